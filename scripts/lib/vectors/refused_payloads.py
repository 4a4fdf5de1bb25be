"""Payloads that a decoder must refuse, each for one thing that is wrong, with the code it must give."""

import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import golden
import numpy as np

from protocol.architecture import Role
from protocol.codec.payload import Content, Header, encode
from protocol.precision import Precision
from vectors import Files, Vector
from vectors.payloads import GROUPED, NETWORK, PROFILES, body_of, with_header

Changes = dict[int, object]

GOOD: Final[Changes] = {1: NETWORK.spec, 2: "sign", 3: "W4A8", 4: 1, 5: 40, 6: 0}
SAME: Final = Header(NETWORK.spec, "sign", "W4A8", Content.DELTA, 40)
SPEC: Final = NETWORK.spec
SPELLINGS: Final[dict[str, tuple[str, str, Changes]]] = {
    "no architecture": ("BF-060", "malformed", {1: ""}),
    "a word for an architecture": ("BF-060", "malformed", {1: "resnet50"}),
    "a family that nobody has": ("BF-060", "unsupported", {1: SPEC.replace("cnn4", "cnn5")}),
    "a needless zero in a width": ("BF-041", "malformed", {1: SPEC.replace("0.125", "0.1250")}),
    "a needless zero in an edge": ("BF-041", "malformed", {1: SPEC.replace("8x8", "08x8")}),
    "a space": ("BF-041", "malformed", {1: SPEC.replace(",", ", ", 1)}),
    "norm=batch": ("BF-041", "malformed", {1: f"{SPEC},norm=batch"}),
    "codes before norm": ("BF-041", "malformed", {1: f"{SPEC},codes=nested,norm=group"}),
    "a stem where there is none": ("BF-060", "unsupported", {1: SPEC.replace(",input", ",stem=3x3,input")}),
    "a width below the smallest": ("BF-060", "unsupported", {1: SPEC.replace("0.125", "0.001")}),
    "a width above the largest": ("BF-060", "unsupported", {1: SPEC.replace("0.125", "5")}),
    "an edge of seven": ("BF-060", "unsupported", {1: SPEC.replace("8x8", "7x8")}),
    "one class": ("BF-060", "unsupported", {1: SPEC.replace("classes=3", "classes=1")}),
    "an unknown recipe": ("BF-056", "unsupported", {2: "zip"}),
    "no recipe": ("BF-056", "unsupported", {2: ""}),
    "nine bits": ("BF-056", "unsupported", {2: "uniform:9"}),
    "bits with a needless zero": ("BF-041", "malformed", {2: "uniform:04"}),
    "bits with a needless point": ("BF-041", "malformed", {2: "uniform:4.0"}),
    "feedback twice": ("BF-056", "unsupported", {2: "ef+ef+sign"}),
    "momentum without topk": ("BF-056", "unsupported", {2: "dgc+sign"}),
    "topk with sign": ("BF-041", "malformed", {2: "topk:0.1+sign"}),
    "topk with half": ("BF-041", "malformed", {2: "topk:0.1+half"}),
    "topk of everything": ("BF-056", "unsupported", {2: "topk:1"}),
    "topk of nothing": ("BF-056", "unsupported", {2: "topk:0"}),
    "a share without its zero": ("BF-041", "malformed", {2: "topk:.1"}),
    "topk with eden": ("BF-056", "unsupported", {2: "topk:0.1+eden:1"}),
    "topk with stosign": ("BF-056", "unsupported", {2: "topk:0.1+stosign"}),
    "eden of one and a half": ("BF-056", "unsupported", {2: "eden:1.5"}),
    "eden of five": ("BF-056", "unsupported", {2: "eden:5"}),
    "one cluster": ("BF-056", "unsupported", {2: "fedzip:z=0.2,k=1"}),
    "seventeen clusters": ("BF-056", "unsupported", {2: "fedzip:z=0.2,k=17"}),
    "a coder where there are no codes": ("BF-056", "unsupported", {2: "half+rc"}),
    "huffman where codes are even": ("BF-056", "unsupported", {2: "eden:1+huffman"}),
    "huffman for positions": ("BF-056", "unsupported", {2: "topk:0.1+huffman"}),
    "the usual coder by name": ("BF-056", "unsupported", {2: "uniform:4+bitpack"}),
    "an unknown precision": ("BF-062", "unsupported", {3: "W4A5"}),
    "no precision": ("BF-062", "unsupported", {3: ""}),
    "a precision with a needless zero": ("BF-041", "malformed", {3: "W04A8"}),
    "fp32 by another name": ("BF-041", "malformed", {3: "W32A32"}),
    "a precision twice": ("BF-064", "malformed", {3: "W4A8+W4A8"}),
    "a precision and nothing": ("BF-064", "unsupported", {3: "W4A8+"}),
    "nine precisions": ("BF-064", "unsupported", {3: "+".join(f"W{bits}A8" for bits in range(1, 9)) + "+fp32"}),
}
STEP_SPELLINGS: Final[dict[str, tuple[str, str, Changes]]] = {
    "a step of nothing": ("BF-056", "unsupported", {2: "step:0"}),
    "no step": ("BF-056", "unsupported", {2: "step"}),
    "a step of eleven": ("BF-056", "unsupported", {2: "step:11"}),
    "a step of nine decimals": ("BF-056", "unsupported", {2: "step:0.000000001"}),
    "a step with an exponent": ("BF-056", "unsupported", {2: "step:1e-3"}),
    "a step with a needless zero": ("BF-041", "malformed", {2: "step:0.10"}),
    "a step without its zero": ("BF-041", "malformed", {2: "step:.1"}),
    "topk with step": ("BF-056", "unsupported", {2: "topk:0.1+step:0.1"}),
    "momentum with step": ("BF-056", "unsupported", {2: "dgc+step:0.1"}),
}
VALUES: Final[dict[str, Changes]] = {
    "content 3": {4: 3},
    "content true": {4: True},
    "content as text": {4: "1"},
    "pictures below 0": {5: -1},
    "pictures above 2^32": {5: 2**32 + 1},
    "pictures as float": {5: 40.0},
    "a seed of 33 bits": {6: 2**32},
    "a seed below 0": {6: -1},
    "a recipe as bytes": {2: b"sign"},
}


def payloads() -> Vector:
    """Whole payloads, of which one thing is wrong."""
    good = with_header(GOOD) + body_of(_encoded())
    rows = [(f"the first {end} bytes", "BF-042", "incomplete", good[:end]) for end in _cuts(good)]
    rows += [*_beginnings(good), *_headers(good), *_tensors(good)]
    return {"vectors": [_vector(*row) for row in rows]}


def steps() -> Vector:
    """The same, with recipes of `step`."""
    rows = [*_spelled(STEP_SPELLINGS, body_of(_encoded())), *_stepped()]
    return {"vectors": [_vector(*row) for row in rows]}


def _vector(name: str, requirement: str, refusal: str, data: bytes) -> Vector:
    return {"name": name, "requirement": requirement, "refusal": refusal, "bytes": data.hex()}


Row = tuple[str, str, str, bytes]


def _encoded(**changes: Any) -> bytes:
    header = replace(SAME, **changes)
    values = golden.tensors(header.network, *header.precisions)
    return encode(header, values, np.random.default_rng(0))


def _cuts(good: bytes) -> list[int]:
    header_end = 5 + struct.unpack("<H", good[3:5])[0]
    return [0, 1, 2, 3, 4, 5, 20, header_end - 1, header_end, header_end + 3, len(good) // 2, len(good) - 1]


def _beginnings(good: bytes) -> list[Row]:
    (length,) = struct.unpack("<H", good[3:5])
    return [
        ("a zip file", "BF-040", "malformed", b"PK\x03\x04" + good[4:]),
        ("payload version 2", "BF-040", "unsupported", b"BF\x02" + good[3:]),
        ("payload version 0", "BF-040", "unsupported", b"BF\x00" + good[3:]),
        ("a header of 513 bytes", "BF-040", "malformed", b"BF\x01\x01\x02" + good[5:]),
        ("a header of 65,535 bytes", "BF-040", "malformed", b"BF\x01\xff\xff" + good[5:]),
        ("a header of no bytes", "BF-040", "malformed", b"BF\x01\x00\x00" + good[5:]),
        ("a header a byte shorter", "BF-040", "malformed", good[:3] + struct.pack("<H", length - 1) + good[5:]),
        ("a header a byte longer", "BF-040", "malformed", good[:3] + struct.pack("<H", length + 1) + good[5:]),
        ("a header that is a list", "BF-040", "malformed", with_header([*GOOD.values()]) + body_of(good)),
        ("a list of four thousand million", "BF-042", "malformed", b"BF\x01\x07\x00\x81\x01\xdd\xff\xff\xff\xff"),
        ("one byte too many", "BF-040", "malformed", good + b"\x00"),
        ("another payload behind", "BF-040", "malformed", good + good),
    ]


def _headers(good: bytes) -> list[Row]:
    body = body_of(good)
    rows = _spelled(SPELLINGS, body)
    rows += [(name, "BF-015", "malformed", with_header({**GOOD, **new}) + body) for name, new in VALUES.items()]
    for key in range(1, 6):
        without = {number: value for number, value in GOOD.items() if number != key}
        rows.append((f"a header without key {key}", "BF-015", "malformed", with_header(without) + body))
    return rows


def _spelled(spellings: Mapping[str, tuple[str, str, Changes]], body: bytes) -> list[Row]:
    return [
        (name, number, code, with_header({**GOOD, **new}) + body) for name, (number, code, new) in spellings.items()
    ]


def _stepped() -> list[Row]:
    beginning, body = with_header({**GOOD, 2: "ef+step:10"}), body_of(_encoded(recipe="ef+step:10"))
    changed = struct.pack("<fiB", 10, 2**24, 1)
    return [
        ("a step of no size", "BF-076", "malformed", beginning + bytes(4) + body[4:]),
        ("levels beyond the last", "BF-076", "malformed", beginning + changed + body[9:]),
        ("a step without its levels", "BF-042", "incomplete", beginning + body[:8]),
    ]


def _tensors(good: bytes) -> list[Row]:
    at = 5 + struct.unpack("<H", good[3:5])[0]
    variance = next(spec.name for spec in NETWORK.tensors(Precision.parse("W4A8")) if spec.role is Role.VARIANCE)
    values = golden.tensors(NETWORK, Precision.parse("W4A8"))
    negative = {**values, variance: -values[variance]}
    absolutes = body_of(_encoded(content=PROFILES))
    groups = body_of(_encoded(architecture=GROUPED, precision="W2A4", content=PROFILES))
    rows = [
        ("a scale that is not finite", "BF-043", "not-finite", good[:at] + struct.pack("<f", np.nan) + good[at + 4 :]),
        ("a scale below 0", "BF-053", "malformed", good[:at] + struct.pack("<f", -1) + good[at + 4 :]),
        ("a variance below 0", "BF-043", "malformed", encode(SAME, negative, np.random.default_rng(0))),
        ("tensors of another content", "BF-040", "malformed", with_header({**GOOD, 4: 2}) + body_of(good)),
        ("tensors of another recipe", "BF-040", "malformed", with_header({**GOOD, 2: "eden:0.01"}) + bytes(2000)),
    ]
    grouped = {**GOOD, 1: GROUPED, 3: "W2A4", 4: 2}
    rows.append(
        ("a range upside down", "BF-052", "malformed", with_header(grouped) + struct.pack("<ff", 1, 0) + groups[8:])
    )
    rows.append(
        (
            "a range without an end",
            "BF-043",
            "not-finite",
            with_header(grouped) + struct.pack("<ff", 0, np.inf) + groups[8:],
        )
    )
    last = len(absolutes) - 2
    profiles = with_header({**GOOD, 4: 2})
    rows.append(("a moment that is not finite", "BF-043", "not-finite", profiles + absolutes[:last] + b"\x00\x7e"))
    wide = {**GOOD, 1: "resnet18:width=1,stem=3x3,input=1x28x28,classes=10"}
    rows.append(("eleven million weights, none of which is there", "BF-042", "incomplete", with_header(wide)))
    return rows


FILES: Final[Files] = {
    "5-refused/payloads.json": payloads,
    "5-refused/payloads-2.json": steps,
}
