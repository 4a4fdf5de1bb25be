"""The arithmetic behind `range_coder`: by the library `constriction`, or the same in plain Python.

The library has no wheels for every processor that bitfleet runs on, and a device without a compiler must be able to
read what another one wrote.
"""

from bisect import bisect_right
from importlib.util import find_spec
from itertools import accumulate
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from protocol.errors import Malformed
from protocol.precision import UInt8

Int64 = npt.NDArray[np.int64]
UInt32 = npt.NDArray[np.uint32]

PRECISION: Final = 24
_WORD: Final = 32
_TOP: Final = (1 << 64) - 1
_LOW_WORD: Final = (1 << _WORD) - 1
_BEYOND: Final = "words of a range coder that no encoder makes"


class Encoder(Protocol):
    """Takes codes with their frequencies, which add up to 2^24."""

    def put(self, codes_N: UInt8, frequencies_S: Int64) -> None:
        """Append codes."""
        ...

    def words(self) -> UInt32:
        """What stands for all of them; nothing can be appended after."""
        ...


class Decoder(Protocol):
    """Gives the codes back, with the same frequencies in the same order."""

    def get(self, count: int, frequencies_S: Int64) -> UInt8:
        """The next codes.

        Raises:
            Malformed: no encoder makes such words.
        """
        ...

    def is_exhausted(self) -> bool:
        """Whether the words could end here."""
        ...


def fastest_encoder() -> Encoder:
    """The fastest there is."""
    return LibraryEncoder() if find_spec("constriction") else PlainEncoder()


def fastest_decoder(words: UInt32) -> Decoder:
    """The fastest there is."""
    return LibraryDecoder(words) if find_spec("constriction") else PlainDecoder(words)


class LibraryEncoder:
    """`constriction.stream.queue.RangeEncoder`."""

    def __init__(self) -> None:
        self._queue = _library().stream.queue.RangeEncoder()

    def put(self, codes_N: UInt8, frequencies_S: Int64) -> None:
        """Append codes."""
        self._queue.encode(codes_N.astype(np.int32), _categorical(frequencies_S))

    def words(self) -> UInt32:
        """What stands for all of them."""
        return _without_zeros(np.asarray(self._queue.get_compressed()))


class LibraryDecoder:
    """`constriction.stream.queue.RangeDecoder`."""

    def __init__(self, words: UInt32) -> None:
        self._queue = _library().stream.queue.RangeDecoder(words)

    def get(self, count: int, frequencies_S: Int64) -> UInt8:
        """The next codes."""
        try:
            codes_N = self._queue.decode(_categorical(frequencies_S), count)
        except AssertionError as error:
            raise Malformed(_BEYOND) from error
        return np.asarray(codes_N).astype(np.uint8)

    def is_exhausted(self) -> bool:
        """Whether the words could end here."""
        return bool(self._queue.maybe_exhausted())


def _library() -> Any:
    import constriction  # noqa: PLC0415 (only where it is installed)

    return constriction


def _categorical(frequencies_S: Int64) -> Any:
    """The library gives each symbol 1 and shares out the rest in proportion; given the rest, it does so exactly."""
    return _library().stream.model.Categorical((frequencies_S - 1).astype(np.float64), perfect=False)


class PlainEncoder:
    """The same words without the library."""

    def __init__(self) -> None:
        self._low, self._range, self._words = 0, _TOP, [0]  # a carry out of the first word never comes

    def put(self, codes_N: UInt8, frequencies_S: Int64) -> None:
        """Append codes."""
        frequencies = frequencies_S.tolist()
        below = [0, *accumulate(frequencies)]
        for code in codes_N.tolist():
            unit = self._range >> PRECISION
            self._move(unit * below[code])
            self._range = unit * frequencies[code]
            if self._range <= _LOW_WORD:
                self._words.append(self._low >> _WORD)
                self._low, self._range = (self._low & _LOW_WORD) << _WORD, self._range << _WORD

    def words(self) -> UInt32:
        """What stands for all of them."""
        self._move(_LOW_WORD)
        return _without_zeros(np.array([*self._words[1:], self._low >> _WORD], dtype=np.uint32))

    def _move(self, distance: int) -> None:
        self._low += distance
        if self._low > _TOP:
            self._low -= _TOP + 1
            place = len(self._words) - 1
            while self._words[place] == _LOW_WORD:
                self._words[place] = 0
                place -= 1
            self._words[place] += 1


class PlainDecoder:
    """The same codes without the library."""

    def __init__(self, words: UInt32) -> None:
        self._words = words.data  # as it is: a list of them would take ten times the memory
        self._read = 0
        self._offset = self._next() << _WORD | self._next()  # p − l: neither is needed alone
        self._range = _TOP

    def get(self, count: int, frequencies_S: Int64) -> UInt8:
        """The next codes."""
        frequencies = frequencies_S.tolist()
        above = [*accumulate(frequencies)]
        codes_N = np.empty(count, dtype=np.uint8)
        for index in range(count):
            unit = self._range >> PRECISION
            quantile = self._offset // unit
            if quantile >> PRECISION:
                raise Malformed(_BEYOND)
            code = bisect_right(above, quantile)
            self._offset -= unit * (above[code] - frequencies[code])
            self._range = unit * frequencies[code]
            if self._range <= _LOW_WORD:
                self._offset, self._range = self._offset << _WORD | self._next(), self._range << _WORD
            codes_N[index] = code
        return codes_N

    def is_exhausted(self) -> bool:
        """Whether the words could end here."""
        return self._read >= len(self._words) and (self._range == _TOP or self._offset < (2 << _WORD) - 1)

    def _next(self) -> int:
        self._read += 1
        return self._words[self._read - 1] if self._read <= len(self._words) else 0


def _without_zeros(words: UInt32) -> UInt32:
    """Words without the zeros at their end, which a decoder reads there anyway."""
    used = words.nonzero()[0]
    return words[: int(used[-1]) + 1 if used.size else 0]
