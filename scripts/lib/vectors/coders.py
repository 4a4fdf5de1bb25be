"""Whole numbers in bytes: `varint`, and every coder of codes."""

from functools import partial
from itertools import groupby
from typing import Final

import numpy as np

from protocol.codec.base import Coder
from protocol.codec.bitpack import Bitpack
from protocol.codec.golomb import Golomb
from protocol.codec.huffman import Huffman
from protocol.codec.range_coder import RangeCoder
from protocol.codec.varint import varint
from protocol.precision import UInt8
from vectors import Files, Vector

CODERS: Final[dict[str, Coder]] = {
    "bitpack": Bitpack(),
    "golomb": Golomb(),
    "huffman": Huffman(),
    "rc": RangeCoder(),
}
REQUIREMENTS: Final = {"bitpack": "BF-050", "golomb": "BF-070", "huffman": "BF-071", "rc": "BF-072"}
LONGEST_HEX: Final = 3000
"""Codes above which only runs are short enough to be written down."""
VARINTS: Final = (0, 1, 127, 128, 129, 300, 16_383, 16_384, 2_097_151, 2_097_152, 2**31, 2**32 - 1, 2**40, 2**63 - 1)

Case = tuple[UInt8, int]


def varints() -> Vector:
    """Numbers and their bytes."""
    vectors = [{"number": number, "bytes": varint(number).hex()} for number in VARINTS]
    return {"requirement": "BF-073", "vectors": vectors}


def coder(name: str) -> Vector:
    """Every case in the bytes of one coder, whose encoder has no choice."""
    made = CODERS[name]
    vectors = [
        {"name": case, "symbols": symbols, "count": codes_N.size}
        | spelled(codes_N)
        | {"bytes": made.encode(codes_N, symbols).hex()}
        for case, (codes_N, symbols) in cases().items()
        if name != "bitpack" or codes_N.size <= LONGEST_HEX
    ]
    return {"coder": name, "requirement": REQUIREMENTS[name], "vectors": vectors}


def spelled(codes_N: UInt8) -> Vector:
    """Codes as a byte each, or as runs of [code, how often]."""
    if codes_N.size <= LONGEST_HEX:
        return {"codes": codes_N.tobytes().hex()}
    return {"runs": [[int(code), len(list(run))] for code, run in groupby(codes_N.tolist())]}


def cases() -> dict[str, Case]:
    """Codes and how many symbols there are; by a name."""
    return {
        "no codes": (np.zeros(0, np.uint8), 2),
        "no codes of five symbols": (np.zeros(0, np.uint8), 5),
        "one zero": (np.zeros(1, np.uint8), 2),
        "one that is not": (np.ones(1, np.uint8), 2),
        "one, the last of three": (np.full(1, 2, np.uint8), 3),
        "all zero": (np.zeros(200, np.uint8), 3),
        "all equal": (np.full(129, 4, np.uint8), 5),
        "every symbol once": (np.arange(256, dtype=np.uint8), 256),
        "powers": (np.repeat(np.arange(8), 2 ** np.arange(8)).astype(np.uint8), 16),
        "first and last": (np.eye(1, 1000, 999, dtype=np.uint8)[0] | np.eye(1, 1000, 0, dtype=np.uint8)[0], 2),
        "fibonacci": (np.repeat(np.arange(15), _fibonacci(15)).astype(np.uint8), 15),
        **{f"{bits} bits, {n} codes": _drawn(n, 1 << bits, bits) for bits in range(1, 9) for n in (7, 8, 9, 65)},
        **{f"{symbols} symbols": _drawn(500, symbols, symbols) for symbols in (2, 3, 5, 6, 16, 17, 255, 256)},
        **{f"{symbols} symbols, unequal": _zipf(1000, symbols) for symbols in (2, 3, 4, 16, 64, 256)},
        "long runs": _long_runs(),
    }


def _drawn(count: int, symbols: int, seed: int) -> Case:
    return np.random.default_rng(seed).integers(0, symbols, count).astype(np.uint8), symbols


def _zipf(count: int, symbols: int) -> Case:
    weights = 1.0 / np.arange(1, symbols + 1) ** 2
    return np.random.default_rng(symbols).choice(symbols, count, p=weights / weights.sum()).astype(np.uint8), symbols


def _fibonacci(count: int) -> list[int]:
    numbers = [1, 1]
    while len(numbers) < count:
        numbers.append(numbers[-1] + numbers[-2])
    return numbers


def _long_runs() -> Case:
    """More codes than a range coder's blocks up to the second of the largest size have."""
    codes_N = np.zeros(200_000, np.uint8)
    codes_N[np.random.default_rng(5).choice(codes_N.size, 60, replace=False)] = 1
    codes_N[150_000:150_500] = 2
    return codes_N, 3


def choices() -> Vector:
    """What our encoders never write and every decoder takes: other Rice parameters, other complete codes."""
    few_N, many_N = np.array([0, 0, 2, 0, 1], np.uint8), np.ones(64, np.uint8)
    rows: list[tuple[str, str, int, UInt8, bytes]] = [
        ("golomb", "r = 0 where gaps are long", 2, np.eye(1, 30, 20, dtype=np.uint8)[0], b"\x01\x00\x03\xff\xff\x0f"),
        ("golomb", "r = 31 where there are none", 2, many_N, bytes([64, 31, 8]) + bytes(8 + 31 * 8)),
        ("golomb", "r above what N needs", 3, few_N, bytes([2, 5, 1, 0, 0b110, 0, 0b01])),
        ("huffman", "longer words than needed", 4, few_N, bytes([0x32, 0x13, 2, 0b10101111, 0b01100000])),
        ("huffman", "words for symbols that do not come", 4, many_N[:3], bytes([0x22, 0x22, 1, 0b01010100])),
    ]
    vectors = [
        {"coder": coder, "name": name, "symbols": symbols, "count": codes_N.size}
        | spelled(codes_N)
        | {"bytes": data.hex()}
        for coder, name, symbols, codes_N, data in rows
    ]
    return {"requirement": "BF-070, BF-071", "vectors": vectors}


FILES: Final[Files] = {
    "1-coders/choices.json": choices,
    "1-coders/varint.json": varints,
    **{f"1-coders/{name}.json": partial(coder, name) for name in CODERS},
}
