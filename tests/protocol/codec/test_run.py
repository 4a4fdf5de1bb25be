"""Weights of one bit a value, read all at once: what one by one would have given, or what it would have said."""

import numpy as np
import pytest

from protocol.codec.base import RunCodec
from protocol.codec.coded import Coded
from protocol.codec.eden import Eden
from protocol.codec.run import RunLayout, SignRun
from protocol.codec.sign import Sign
from protocol.codec.stochastic_sign import StochasticSign
from protocol.errors import RemoteProtocolError
from protocol.reader import Reader

COUNTS = (1, 64, 5000, 17, 4096, 71)
SEEDS = tuple(range(100, 100 + len(COUNTS)))
CODECS = {"sign": Sign(), "stosign": StochasticSign(), "stosign of a step": StochasticSign(0.5), "eden:1": Eden(1)}


def layout(codec: RunCodec) -> RunLayout:
    result = codec.run(COUNTS, SEEDS)
    assert result is not None
    return result


def encoded(codec: RunCodec) -> bytes:
    rng = np.random.default_rng(3)
    tensors = [(rng.standard_normal(count) * 0.1).astype(np.float32) for count in COUNTS]
    pieces = zip(tensors, SEEDS, strict=True)
    return b"".join(bytes(codec.encode(tensor, rng, seed)) for tensor, seed in pieces)


def one_by_one(codec: RunCodec, data: bytes) -> list[Coded]:
    reader = Reader(data)
    return [codec.read(reader, count, seed) for count, seed in zip(COUNTS, SEEDS, strict=True)]


@pytest.mark.parametrize("name", CODECS)
def test_a_run_is_its_tensors(name: str) -> None:
    codec, data = CODECS[name], encoded(CODECS[name])
    reader = Reader(data + b"behind")
    run = layout(codec).read(reader)
    assert isinstance(run, SignRun)
    assert bytes(reader.take(6, "rest")) == b"behind"
    for part, peak, expected in zip(run.parts(), run.peaks(), one_by_one(codec, data), strict=True):
        assert type(part) is type(expected)
        assert part.values().tobytes() == expected.values().tobytes()
        assert part.norm() == expected.norm()
        assert float(peak) == part.peak() == expected.peak()


@pytest.mark.parametrize("name", CODECS)
def test_whatever_one_tensor_refuses_the_run_leaves_alone(name: str) -> None:
    """Every byte of every tensor's first 12 and last 2 is set to what could be wrong there."""
    codec, data, pieces = CODECS[name], encoded(CODECS[name]), layout(CODECS[name]).pieces
    refused = 0
    for piece in pieces:
        start = piece.bits.start - 4 * (piece.scales.stop - piece.scales.start)
        for place in {*range(start, start + 12), piece.bits.stop - 2, piece.bits.stop - 1}:
            for byte in (0x00, 0x7F, 0x80, 0xFF):
                broken = data[:place] + bytes([byte]) + data[place + 1 :]
                reader = Reader(broken)
                run = layout(codec).read(reader)
                try:
                    one_by_one(codec, broken)
                except RemoteProtocolError:
                    refused += 1
                    assert run is None
                    assert bytes(reader.take(len(data), "all")) == broken
                else:
                    assert run is not None
    assert refused


@pytest.mark.parametrize("name", CODECS)
def test_a_run_that_ends_too_early_is_left_alone(name: str) -> None:
    codec, data = CODECS[name], encoded(CODECS[name])
    for end in (0, 1, 5, len(data) // 2, len(data) - 1):
        assert layout(codec).read(Reader(data[:end])) is None


def test_other_rates_have_no_run() -> None:
    assert Eden(2).run(COUNTS, SEEDS) is None
    assert Eden(0.5).run(COUNTS, SEEDS) is None
