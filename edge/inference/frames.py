"""Raw frames, one after another without a header, as `ffmpeg -f rawvideo` and `rpicam-vid --codec yuv420` write them.

rgb24     H rows of W pixels of three bytes
gray      H rows of W pixels of one byte
yuv420p   three planes: Y of H×W, then U and V of H/2×W/2; full range, as rpicam-vid has it
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import RawIOBase
from typing import Final, Self

import numpy as np
from PIL import Image

from edge.data import DataError
from edge.data.folder import MAX_PIXELS

_BYTES_OF_TWO_PIXELS: Final = {"rgb24": 6, "gray": 2, "yuv420p": 3}
_EXAMPLE: Final = "WIDTHxHEIGHT:FORMAT, for example 640x480:rgb24"


class TruncatedFrame(DataError):
    """A stream ended within a frame."""


@dataclass(frozen=True, slots=True)
class FrameFormat:
    """What one frame of a stream is.

    Raises:
        DataError: no such format, or a size that it cannot have.
    """

    width: int
    height: int
    pixels: str

    def __post_init__(self) -> None:
        if self.pixels not in _BYTES_OF_TWO_PIXELS:
            raise DataError(f"--frames {self}: expected a format of {', '.join(_BYTES_OF_TWO_PIXELS)}")
        if not 0 < self.width * self.height <= MAX_PIXELS:
            raise DataError(f"--frames {self}: expected 1 to {MAX_PIXELS} pixels")
        if self.pixels == "yuv420p" and (self.width % 2 or self.height % 2):
            raise DataError(f"--frames {self}: expected an even width and height")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `640x480:rgb24`.

        Raises:
            DataError: it is not of that form.
        """
        match = re.fullmatch(r"([0-9]{1,9})x([0-9]{1,9}):(\w+)", text)
        if match is None:
            raise DataError(f"--frames {text}: expected {_EXAMPLE}")
        return cls(int(match[1]), int(match[2]), match[3])

    def __str__(self) -> str:
        return f"{self.width}x{self.height}:{self.pixels}"

    @property
    def frame_bytes(self) -> int:
        """Of one frame."""
        return self.width * self.height * _BYTES_OF_TWO_PIXELS[self.pixels] // 2

    def picture(self, frame: bytes | bytearray) -> Image.Image:
        """The picture of a whole frame."""
        values = np.frombuffer(frame, np.uint8)
        if self.pixels == "rgb24":
            return Image.fromarray(values.reshape(self.height, self.width, 3))
        if self.pixels == "gray":
            return Image.fromarray(values.reshape(self.height, self.width))
        luma, chroma = np.split(values, [self.width * self.height])
        halves = chroma.reshape(2, self.height // 2, self.width // 2).repeat(2, axis=1).repeat(2, axis=2)
        planes = [Image.fromarray(plane) for plane in (luma.reshape(self.height, self.width), *halves)]
        return Image.merge("YCbCr", planes).convert("RGB")


def read_frames(stream: RawIOBase, frame_bytes: int) -> Iterator[bytearray]:
    """Frame by frame, each as soon as its last byte is there, however the pipe cuts the bytes.

    Raises:
        TruncatedFrame: at the end, if bytes of one more frame are there.
    """
    number = 0
    while True:
        frame = bytearray(frame_bytes)
        filled = _fill(stream, frame)
        if filled < frame_bytes:
            break
        yield frame
        number += 1
    if filled:
        raise TruncatedFrame(f"frame {number}: the stream ends after {filled} of its {frame_bytes} bytes")


def _fill(stream: RawIOBase, frame: bytearray) -> int:
    """How many bytes there were for it."""
    filled = 0
    with memoryview(frame) as view:
        while filled < len(frame) and (count := stream.readinto(view[filled:])):
            filled += count
    return filled
