"""A stream is cut into the frames it holds, however the pipe cuts it; what is left over is said."""

import os
import subprocess
import sys
from io import FileIO, RawIOBase
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from edge.data import DataError
from edge.inference.frames import FrameFormat, TruncatedFrame, read_frames


class Dripping(RawIOBase):
    """Gives at most so many bytes at each reading, in turn, as a pipe with a slow writer does."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self.data, self.sizes, self.at, self.turn = data, sizes, 0, 0

    def readinto(self, buffer: memoryview) -> int:
        piece = self.data[self.at : self.at + min(self.sizes[self.turn % len(self.sizes)], len(buffer))]
        buffer[: len(piece)] = piece
        self.at, self.turn = self.at + len(piece), self.turn + 1
        return len(piece)


@given(st.binary(max_size=300), st.integers(1, 70), st.lists(st.integers(1, 90), min_size=1, max_size=9))
def test_any_chunks_give_the_same_frames(data: bytes, frame_bytes: int, sizes: list[int]) -> None:
    whole, left = divmod(len(data), frame_bytes)
    reading = read_frames(Dripping(data, sizes), frame_bytes)
    frames = list(islice(reading, whole))
    if left:
        words = f"frame {whole}: the stream ends after {left} of its {frame_bytes} bytes"
        with pytest.raises(TruncatedFrame, match=words):
            next(reading)
    assert list(reading) == []
    assert frames == [data[at : at + frame_bytes] for at in range(0, whole * frame_bytes, frame_bytes)]


def test_a_frame_is_there_with_its_last_byte_and_not_when_the_next_begins() -> None:
    reading, writing = os.pipe()
    with FileIO(reading) as stream, FileIO(writing, "w") as writer:
        frames = read_frames(stream, 4)
        writer.write(b"abcd")
        assert next(frames) == b"abcd"


def test_frames_larger_than_a_pipe_arrive_from_another_process() -> None:
    code = "import sys; [sys.stdout.buffer.write(bytes([at]) * 300_000) for at in range(3)]"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        frames = [(len(frame), set(frame)) for frame in read_frames(process.stdout, 300_000)]
    assert frames == [(300_000, {at}) for at in range(3)]


def test_formats_mean_what_ffmpeg_and_cameras_write() -> None:
    grey = Image.fromarray((load_digits().images[0] * 15.9).astype(np.uint8))
    colour = Image.merge("RGB", [grey, grey.rotate(90), grey.rotate(180)]).resize((16, 16))
    parse = FrameFormat.parse
    assert parse("8x8:gray").frame_bytes == 64
    assert np.array_equal(parse("8x8:gray").picture(grey.tobytes()), grey)
    assert parse("16x16:rgb24").frame_bytes == 768
    assert np.array_equal(parse("16x16:rgb24").picture(colour.tobytes()), colour)
    luma, *chroma = colour.convert("YCbCr").split()
    halved = [plane.resize((8, 8), Image.Resampling.BOX) for plane in chroma]
    planes = b"".join(plane.tobytes() for plane in (luma, *halved))
    frame_format = parse("16x16:yuv420p")
    assert frame_format.frame_bytes == len(planes) == 384
    smooth = Image.merge("YCbCr", [luma, *(plane.resize((16, 16), Image.Resampling.NEAREST) for plane in halved)])
    assert np.array_equal(frame_format.picture(planes), smooth.convert("RGB"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("640x480", "for example 640x480:rgb24"),
        ("640:480:gray", "for example"),
        ("-1x480:gray", "for example"),
        ("640x480:bgr8", "rgb24, gray, yuv420p"),
        ("0x480:gray", "1 to 64000000 pixels"),
        ("9000x9000:gray", "1 to 64000000 pixels"),
        ("641x480:yuv420p", "even width and height"),
    ],
)
def test_a_wrong_format_is_named_with_what_was_expected(text: str, expected: str) -> None:
    with pytest.raises(DataError, match=expected) as caught:
        FrameFormat.parse(text)
    assert f"--frames {text}" in str(caught.value)
