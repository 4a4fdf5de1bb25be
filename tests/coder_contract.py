"""What every coder must do: bring codes back, whatever they are."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from protocol.codec.base import Coder
from protocol.errors import Incomplete, RemoteProtocolError
from protocol.precision import UInt8
from protocol.reader import Reader

alphabets = st.sampled_from([2, 3, 5, 16, 255, 256])
streams = alphabets.flatmap(
    lambda symbols: st.tuples(
        st.just(symbols),
        st.integers(0, 90).flatmap(lambda n: arrays(np.uint8, n, elements=st.integers(0, symbols - 1))),
    )
)


def zipf(count: int, symbols: int, seed: int = 0) -> UInt8:
    """Codes of which zero is the commonest, and the last is as rare as can be."""
    weights = 1.0 / np.arange(1, symbols + 1) ** 2
    return np.random.default_rng(seed).choice(symbols, count, p=weights / weights.sum()).astype(np.uint8)


AWKWARD = {
    "nothing": (np.zeros(0, np.uint8), 2),
    "one zero": (np.zeros(1, np.uint8), 3),
    "one that is not": (np.full(1, 2, np.uint8), 3),
    "all zero": (np.zeros(100_000, np.uint8), 3),
    "all equal": (np.full(70_001, 4, np.uint8), 5),
    "all but one zero": (np.eye(1, 90_000, 89_999, dtype=np.uint8)[0], 2),
    "in turns": (np.arange(66_000, dtype=np.int64).astype(np.uint8) % 2, 2),
    "all there are": (np.arange(256, dtype=np.uint8), 256),
    "rare at the end": (np.concatenate([np.zeros(70_000, np.uint8), np.arange(200, dtype=np.uint8)]), 256),
    "powers": (np.repeat(np.arange(16), 2 ** np.arange(16)).astype(np.uint8), 16),
}


class CoderContract:
    """Inherit, and set `coder`."""

    coder: Coder

    def round_trip(self, codes_N: UInt8, symbols: int) -> UInt8:
        reader = Reader(self.coder.encode(codes_N, symbols))
        decoded_N = self.coder.decode(reader, codes_N.size, symbols)
        reader.finish()
        return decoded_N

    @given(streams)
    def test_codes_come_back(self, case: tuple[int, UInt8]) -> None:
        symbols, codes_N = case
        decoded_N = self.round_trip(codes_N, symbols)
        assert decoded_N.dtype == np.uint8
        np.testing.assert_array_equal(decoded_N, codes_N)

    @pytest.mark.parametrize("name", AWKWARD)
    def test_awkward_codes_come_back(self, name: str) -> None:
        codes_N, symbols = AWKWARD[name]
        np.testing.assert_array_equal(self.round_trip(codes_N, symbols), codes_N)

    @pytest.mark.parametrize("symbols", [2, 3, 16, 256])
    def test_blocks_join_without_a_seam(self, symbols: int) -> None:
        codes_N = zipf(200_003, symbols)
        np.testing.assert_array_equal(self.round_trip(codes_N, symbols), codes_N)

    @pytest.mark.parametrize("symbols", [2, 3, 16])
    def test_every_strict_prefix_is_incomplete(self, symbols: int) -> None:
        """BF-042."""
        data = self.coder.encode(zipf(60, symbols), symbols)
        for end in range(len(data)):
            with pytest.raises(Incomplete):
                self.coder.decode(Reader(data[:end]), 60, symbols)

    @given(st.binary(max_size=200), st.integers(0, 5000), alphabets)
    def test_any_bytes_raise_only_the_protocols_own_errors(self, data: bytes, count: int, symbols: int) -> None:
        """BF-042."""
        try:
            decoded_N = self.coder.decode(Reader(data), count, symbols)
        except RemoteProtocolError:
            return
        assert decoded_N.shape == (count,)
        assert not count or int(decoded_N.max()) < symbols

    @given(st.integers(0, 1 << 30), st.integers(1, 255), st.sampled_from([2, 3, 16]))
    def test_a_flipped_byte_gives_codes_or_is_refused(self, position: int, flip: int, symbols: int) -> None:
        """BF-042."""
        data = bytearray(self.coder.encode(zipf(500, symbols), symbols))
        data[position % len(data)] ^= flip
        try:
            assert int(self.coder.decode(Reader(bytes(data)), 500, symbols).max()) < symbols
        except RemoteProtocolError:
            return

    @given(st.binary(max_size=60))
    def test_lengths_that_lie_are_refused_before_anything_is_allocated(self, data: bytes) -> None:
        """BF-042: whatever the bytes say, memory goes with the number of codes that was asked for."""
        tracemalloc.start()
        try:
            self.coder.decode(Reader(b"\xff" * 4 + b"\x7f" + data), 1000, 3)
        except RemoteProtocolError:
            pass
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 2_000_000


def entropy_bytes(codes_N: UInt8) -> float:
    """C. Shannon's bound for codes drawn independently with these frequencies."""
    counts = np.bincount(codes_N)
    shares = counts[counts > 0] / codes_N.size
    return float(-(shares * np.log2(shares)).sum()) * codes_N.size / 8


def ratio(coder: Coder, codes_N: UInt8, symbols: int) -> float:
    """Bytes over the bound."""
    return len(coder.encode(codes_N, symbols)) / max(entropy_bytes(codes_N), math.ulp(1.0))
