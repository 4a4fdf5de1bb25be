"""Whole payloads: every recipe, every content, several profiles, and tables with every role."""

import struct
from collections.abc import Mapping, Sequence
from functools import cache, partial
from hashlib import sha256
from typing import Final

import golden
import msgpack
import numpy as np

from protocol.codec.payload import Content, Header, decode, encode, read_header
from protocol.networks import binary18, cnn4
from protocol.precision import parse_several
from protocol.reference import moved
from vectors import Files, Vector
from vectors.tensors import PRECISION

NETWORK: Final = cnn4(width=0.125, input_shape=(1, 8, 8), classes=3)
"""1,699 parameters: a payload of every recipe stays small enough to be read."""
GROUPED: Final = "cnn4:width=0.125,input=1x8x8,classes=3,norm=group,codes=nested"
BINARY: Final = binary18(width=0.01, input_shape=(1, 8, 8), classes=2)
"""It has every role of a tensor but the nested ones."""
DELTA, WEIGHTS, PROFILES = Content.DELTA, Content.WEIGHTS, Content.PROFILES


def _of_recipes(recipes: Sequence[str]) -> dict[str, Header]:
    """A payload of each, by its name."""
    return {
        golden.payload_name(recipe)[len("payload-") : -len(".bin")]: Header(
            NETWORK.spec, recipe, "W4A8", DELTA, 40, seed=7
        )
        for recipe in recipes
    }


FIRST_HEADERS: Final[dict[str, Header]] = {
    **_of_recipes(golden.FIRST_RECIPES),
    "ef+fp32": Header(NETWORK.spec, "ef+fp32", "W4A8", DELTA, 40),
    "topk-0.5+uniform-4+huffman": Header(NETWORK.spec, "topk:0.5+uniform:4+huffman", "W4A8", DELTA, 40),
    "whole-fp32": Header(NETWORK.spec, "fp32", "fp32", WEIGHTS, 40),
    "whole-half": Header(NETWORK.spec, "half", "W4A4", WEIGHTS, 40),
    "profiles-fp32": Header(NETWORK.spec, "fp32", "W4A8", PROFILES, 40),
    "profiles-of-three": Header(NETWORK.spec, "ef+sign", "W8A8+W4A4+W1A1", PROFILES, 2**32),
    "several-profiles": Header(NETWORK.spec, "uniform:4", "W4A8+W1A8+fp32", DELTA, 40),
    "every-seed": Header(NETWORK.spec, "eden:1", "W4A8", DELTA, 40, seed=2**32 - 1),
    "whole": Header(NETWORK.spec, "half", "W4A8", WEIGHTS, 0),
    "without-moments": Header(NETWORK.spec, "uniform:4", "W4A8", DELTA, 0),
    "profiles-without-moments": Header(NETWORK.spec, "ef+sign", "W8A8+W4A4", PROFILES, 0),
    "nested": Header(GROUPED, "half", "W2A4", DELTA, 40),
    "nested-profiles": Header(GROUPED, "half", "W8A8+W2A4", PROFILES, 40),
    "binary": Header(BINARY.spec, "ef+sign", "W1A1", DELTA, 40),
    "binary-whole": Header(BINARY.spec, "half", "W1A1", WEIGHTS, 0),
}
STEP_HEADERS: Final[dict[str, Header]] = {
    **_of_recipes(golden.LATER_RECIPES["step"]),
    "step-profiles": Header(NETWORK.spec, "step:0.3+rc", "W8A8+W4A4", PROFILES, 40),
}
HEADERS: Final = {**FIRST_HEADERS, **STEP_HEADERS}


@cache
def data_of(name: str) -> bytes:
    """The payload."""
    header = HEADERS[name]
    values = golden.tensors(header.network, *parse_several(header.precision))
    return encode(header, values, np.random.default_rng(0))


def values_of(name: str) -> bytes:
    """Every value of every tensor, in the order of the table."""
    payload = decode(data_of(name))
    header = payload.header
    specs = header.network.tensors(*header.precisions)
    sent = (payload.tensors[spec.name] for spec in specs if spec.name in payload.tensors)
    return b"".join(values.astype("<f4").tobytes() for values in sent)


def facts() -> Vector:
    """What lies in the files beside this one."""
    vectors = _facts(FIRST_HEADERS)
    vectors += [{"name": name, "bytes": data.hex(), "same as": "sign"} for name, data in spellings().items()]
    return {"requirement": "BF-040", "vectors": vectors}


def step_facts() -> Vector:
    """The same of the recipes with `step`."""
    return {"requirement": "BF-076", "vectors": _facts(STEP_HEADERS)}


def _facts(headers: Mapping[str, Header]) -> list[Vector]:
    return [
        {"name": name}
        | {"file": f"{name}.bin", "values": f"{name}.values.bin"}
        | {"architecture": header.architecture, "recipe": header.recipe, "precision": header.precision}
        | {"content": int(header.content), "pictures": header.pictures, "seed": header.seed}
        | ({"bound": _bound(name)} if golden.ROTATED in header.recipe else {})
        for name, header in headers.items()
    ]


def _bound(name: str) -> float:
    """What values may differ by, with room for what is padded."""
    return 2 * PRECISION * max(float(np.linalg.norm(values)) for values in decode(data_of(name)).tensors.values())


def spellings() -> dict[str, bytes]:
    """Other headers before the same tensors, which a decoder takes alike."""
    body = body_of(data_of("sign"))
    values = {1: NETWORK.spec, 2: "sign", 3: "W4A8", 4: 1, 5: 40}
    packed = msgpack.packb({**values, 5: 41})
    twice = _beginning(bytes([packed[0] + 1]) + packed[1:] + msgpack.packb(5) + msgpack.packb(40))
    return {
        "a header without seed": with_header(values) + body,
        "a header with a key of a later version": with_header({**values, 6: 7, 99: "later"}) + body,
        "a header with a key twice, of which the last counts": twice + body,
        "a header in another order": with_header(dict(reversed(values.items()))) + body,
    }


def with_header(values: object) -> bytes:
    """A beginning with any header."""
    return _beginning(msgpack.packb(values))


def _beginning(packed: bytes) -> bytes:
    return b"BF\x01" + struct.pack("<H", len(packed)) + packed


def body_of(data: bytes) -> bytes:
    """The tensors of a payload."""
    _, reader = read_header(data)
    return bytes(reader.take(len(data) - 5 - struct.unpack("<H", data[3:5])[0], "all that is left"))


def states() -> Vector:
    """Steps one after the other, and the SHA-256 of the state that each of them leads to."""
    vectors = [_chain(*names) for names in (("whole",), ("whole-fp32",), ("whole", "ef+sign", "without-moments"))]
    return {"requirement": "BF-028, BF-029", "vectors": vectors}


def _chain(*names: str) -> Vector:
    state, digests = b"", []
    for name in names:
        state = moved(state, data_of(name))
        digests.append(sha256(state).hexdigest())
    return {"steps": [f"{name}.bin" for name in names], "bytes": len(state), "states": digests}


FILES: Final[Files] = {
    "3-payloads/payloads.json": facts,
    "3-payloads/payloads-2.json": step_facts,
    "3-payloads/states.json": states,
    **{f"3-payloads/{name}.bin": partial(data_of, name) for name in HEADERS},
    **{f"3-payloads/{name}.values.bin": partial(values_of, name) for name in HEADERS},
}
