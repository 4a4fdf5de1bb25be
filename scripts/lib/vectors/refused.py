"""Codes and tensors that a decoder must refuse, with the code it must give."""

import struct
from typing import Final

import numpy as np

from vectors import Files, Vector

CODER_ROWS: Final[dict[str, tuple[str, dict[str, tuple[int, int, str]]]]] = {
    "bitpack": (
        "BF-050",
        {
            "a code that no symbol has": (1, 3, "03"),
            "a bit behind the last code": (3, 2, "08"),
            "seven bits behind the last code": (1, 2, "fe"),
        },
    ),
    "golomb": (
        "BF-070",
        {
            "more codes than there are": (10, 2, "0b"),
            "a number of nine bytes": (10, 2, "ffffffffffffffff7f"),
            "a number of eleven bytes": (10, 2, "8080808080808080808000"),
            "a Rice parameter of 32": (10, 2, "01200100"),
            "more unary bytes than gaps can have": (10, 2, "010004ffffff7f"),
            "four thousand million unary bytes": (10, 2, "0100ffffffff0f00"),
            "no unary bytes": (10, 2, "010000"),
            "fewer gaps than codes": (10, 2, "020001fe"),
            "a byte that no gap needs": (10, 2, "0100020000"),
            "bits behind the last gap": (10, 2, "01000102"),
            "a gap beyond the end": (10, 2, "0103010300"),
            "a gap of 31 bits": (10, 2, "011f01ffffffff7f"),
            "a position beyond the end": (10, 2, "020002ff01"),
            "a number with a needless byte": (10, 2, "8100"),
            "a code that no symbol has": (10, 4, "01000100" + "03"),
        },
    ),
    "huffman": (
        "BF-071",
        {
            "three words of one bit": (5, 3, "11010100"),
            "a word that is missing": (5, 3, "21000100"),
            "one word of one bit": (5, 3, "01000100"),
            "no words": (5, 3, "000000"),
            "alone, and not": (5, 3, "1f00"),
            "two that are alone": (5, 3, "ff00"),
            "a fourth of three symbols": (5, 3, "11100100"),
            "a byte that no word needs": (5, 3, "1100020000"),
            "fewer words than codes": (9, 3, "11000100"),
            "no words in no bytes": (5, 3, "110000"),
            "bits behind the last word": (5, 3, "11000101"),
            "more bytes than words can fill": (5, 3, "11008040"),
            "symbols where there is no code": (0, 3, "1100"),
            "one symbol where there is no code": (0, 3, "0f00"),
        },
    ),
    "rc": (
        "BF-072",
        {
            "more words than codes can need": (10, 2, "0d"),
            "a last word of zero": (10, 2, "0100000000"),
            "a number beyond the range": (10, 2, "02" + "ff" * 8),
            "words that no code needs": (10, 2, "09" + "01000000" * 9),
            "a word behind the end": (10, 2, "03" + "01000000" * 3),
        },
    ),
}


def coders() -> Vector:
    """Codes, their number and that of their symbols, in bytes that lie."""
    vectors = [
        {"coder": coder, "requirement": requirement, "name": name, "refusal": "malformed"}
        | {"count": count, "symbols": symbols, "bytes": data}
        for coder, (requirement, rows) in CODER_ROWS.items()
        for name, (count, symbols, data) in rows.items()
    ]
    return {"vectors": vectors}


def _float(value: float) -> str:
    return struct.pack("<f", value).hex()


def tensors() -> Vector:
    """One tensor of a recipe, in bytes that lie."""
    nan, infinite, scale = _float(np.nan), _float(np.inf), _float(1.0)
    rows: list[tuple[str, str, int, str, str]] = [
        ("fp32", "BF-043", 2, scale + nan, "not-finite"),
        ("fp32", "BF-043", 2, scale + _float(-np.inf), "not-finite"),
        ("uniform:4", "BF-043", 1, nan + scale + "00", "not-finite"),
        ("uniform:4", "BF-043", 1, scale + infinite + "00", "not-finite"),
        ("uniform:4", "BF-052", 1, scale + _float(0.5) + "00", "malformed"),
        ("uniform:4", "BF-050", 1, scale + scale + "10", "malformed"),
        ("sign", "BF-043", 1, nan + "00", "not-finite"),
        ("sign", "BF-053", 1, _float(-1.0) + "00", "malformed"),
        ("sign", "BF-050", 1, scale + "02", "malformed"),
        ("stosign", "BF-053", 1, _float(-1e-45) + "00", "malformed"),
        ("half", "BF-054", 1, "7200" + "00", "malformed"),
        ("half", "BF-054", 1, "8700" + "00", "malformed"),
        ("half", "BF-043", 1, "00007e", "not-finite"),
        ("half", "BF-043", 1, "00007c", "not-finite"),
        ("half", "BF-043", 1, "71ff7b", "not-finite"),
        ("eden:1", "BF-058", 1, _float(-1.0) + "00" * 8, "malformed"),
        ("eden:1", "BF-058", 1, _float(2e34) + "00" * 8, "malformed"),
        ("eden:1", "BF-043", 1, nan + "00" * 8, "not-finite"),
        ("eden:3+huffman", "BF-071", 64, scale + "000000f1" + "00", "malformed"),
        ("fedzip:z=0.2,k=3", "BF-043", 4, scale + nan + scale + "00", "not-finite"),
        ("fedzip:z=0.2,k=3", "BF-070", 4, scale * 3 + "05", "malformed"),
        ("topk:0.1", "BF-070", 4, "05", "malformed"),
        ("topk:0.1", "BF-043", 4, "010001" + "00" + "00" + "007e", "not-finite"),
    ]
    return {"vectors": [_tensor(*row) for row in rows]}


def _tensor(recipe: str, requirement: str, count: int, data: str, refusal: str) -> Vector:
    facts = {"recipe": recipe, "requirement": requirement, "refusal": refusal}
    return facts | {"count": count, "seed": "0" * 16, "bytes": data}


def steps() -> Vector:
    """One tensor of `step`, likewise."""
    rows: list[tuple[str, str, int, tuple[float, int, int], str, str]] = [
        ("step:0.3", "BF-043", 1, (np.nan, 0, 0), "", "not-finite"),
        ("step:0.3", "BF-043", 1, (np.inf, 0, 0), "", "not-finite"),
        ("step:0.3", "BF-076", 1, (0.0, 0, 0), "", "malformed"),
        ("step:0.3", "BF-076", 1, (-0.3, 0, 0), "", "malformed"),
        ("step:0.3", "BF-076", 1, (0.3, -(2**24) - 1, 0), "", "malformed"),
        ("step:0.3", "BF-076", 1, (0.3, 2**24 + 1, 0), "", "malformed"),
        ("step:0.3", "BF-076", 1, (0.3, 2**31 - 1, 255), "00", "malformed"),
        ("step:0.3", "BF-076", 1, (0.3, 2**24, 1), "00", "malformed"),
        ("step:0.3", "BF-076", 1, (1e32, -(2**24), 0), "", "not-finite"),
        ("step:0.3", "BF-076", 1, (2e38, 0, 3), "00", "not-finite"),
        ("step:0.3", "BF-050", 2, (0.3, -1, 2), "0d", "malformed"),
        ("step:0.3", "BF-050", 3, (0.3, -1, 1), "08", "malformed"),
        ("step:0.3", "BF-042", 3, (0.3, -1, 3), "", "incomplete"),
        ("ef+step:0.3", "BF-042", 70_000, (0.3, -1, 255), "00" * 9, "incomplete"),
        ("step:0.3+huffman", "BF-071", 5, (0.3, -1, 2), "11100100", "malformed"),
        ("step:0.3+rc", "BF-072", 10, (0.3, -1, 1), "0d", "malformed"),
    ]
    packed = (
        (recipe, number, count, struct.pack("<fiB", *head).hex() + codes, code)
        for recipe, number, count, head, codes, code in rows
    )
    return {"vectors": [_tensor(*row) for row in packed]}


FILES: Final[Files] = {
    "5-refused/coders.json": coders,
    "5-refused/tensors.json": tensors,
    "5-refused/tensors-2.json": steps,
}
