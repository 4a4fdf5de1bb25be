"""Whole numbers in as few bytes as they need (LEB128): seven bits a byte, lowest first, the eighth says more follow."""

from protocol.errors import Malformed
from protocol.reader import Reader


def varint(number: int) -> bytes:
    """The number, zero or more, as bytes."""
    data = bytearray()
    while number >= 0x80:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*data, number])


def read_varint(reader: Reader, limit: int, what: str) -> int:
    """A number of at most `limit`, named `what` in errors.

    Raises:
        Incomplete: the bytes end within it.
        Malformed: it is above the limit, or longer than it needs to be.
    """
    number, shift = 0, 0
    while True:
        byte = reader.byte(what)
        number |= (byte & 0x7F) << shift
        if number > limit:
            raise Malformed(f"{what}: {number} or more, expected at most {limit}")
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            raise Malformed(f"{what}: a number of more than nine bytes")
    if byte == 0 and shift:
        raise Malformed(f"{what}: {number} is written longer than it needs to be")
    return number
