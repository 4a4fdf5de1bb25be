"""Tensors, whole payloads, and the spellings in their headers, on any bytes."""

import json
from collections.abc import Iterator
from typing import Any, Final
from zlib import crc32

import golden
import numpy as np

from fuzzing.compare import (
    KIT,
    Disagreement,
    Target,
    all_of,
    bytes_of,
    independent,
    other,
    outcome,
    require_same,
    vectors_of,
    whole,
)
from protocol.codec.payload import decode, encode, read_header
from protocol.codec.recipe import Recipe
from protocol.codec.rotation import padded_size
from protocol.networks import parse
from protocol.precision import join, parse_several

MAX_SEED: Final = 20_000
"""Bytes of the largest seed: fuzzing gets nowhere with larger ones."""
SPREAD: Final = 2.0**-20 * 2.7326
"""Of a rotation, times the scale and the root of the block's size (BF-059)."""


def run_tensor(data: bytes) -> None:
    """Bytes: which recipe, number of values less one, tensor."""
    if len(data) < 2:
        return
    recipe, count, rest = golden.RECIPES[data[0] % len(golden.RECIPES)], 1 + data[1], data[2:]
    codec = Recipe.parse(recipe).weights
    ours = outcome(lambda: whole(lambda reader: codec.read(reader, count, 5).values(), rest))
    theirs = other(lambda: all_of(lambda source: independent.codec_of(recipe)(source, count, 5), rest))
    if ours is None or theirs is None:
        require_same(ours is None, theirs is None, f"{recipe} refused")
        return
    scales = np.frombuffer(rest[: 4 * len(independent.blocks_of(count))], dtype="<f4") if "eden" in recipe else [0.0]
    bound = SPREAD * float(np.max(scales)) * padded_size(count) ** 0.5 + 2.0**-126 if "eden" in recipe else 0.0
    if not np.isfinite(ours).all() or (np.abs(ours - np.array(theirs)) > bound).any():
        raise Disagreement(f"{recipe}: {ours} and {theirs}")


def tensor_seeds() -> Iterator[bytes]:
    """Tensors of the kit in recipes that have golden bytes."""
    files = sorted((KIT / "v1" / "2-tensors").glob("*.json"))
    for vector in (vector for file in files for vector in json.loads(file.read_text())["vectors"]):
        if vector.get("recipe") in golden.RECIPES and vector["count"] <= 256:
            yield bytes([golden.RECIPES.index(vector["recipe"]), vector["count"] - 1]) + bytes_of(vector)


def run_payload(data: bytes) -> None:
    """Any payload; as at ingest, the header decides before the tensors are touched: here, by whether it has a table."""
    found = outcome(lambda: read_header(data))
    if found is None or found[0].architecture not in TABLES:
        if found is None and other(lambda: independent.payload(data, TABLES)) is not None:
            raise Disagreement("a header that only the independent decoder takes")
        return
    ours = outcome(lambda: decode(data))
    if ours is not None:
        for name, values in ours.tensors.items():
            if not np.isfinite(values).all():
                raise Disagreement(f"{name} is not finite")
        if max(float(np.abs(values).max()) for values in ours.tensors.values()) < 1e30:
            again = decode(encode(ours.header, ours.tensors, np.random.default_rng(0)))
            require_same(again.tensors.keys(), ours.tensors.keys(), "tensors there and back")
    if crc32(data) % 4 == 0:  # the plain decoder is slow
        theirs = other(lambda: independent.payload(data, TABLES))
        require_same(ours is None, theirs is None, "payload refused")
        if ours is not None and theirs is not None and golden.ROTATED not in ours.header.recipe:
            for name, values in ours.tensors.items():
                require_same(values.reshape(-1).tolist(), theirs[name], name)


def payload_seeds() -> Iterator[bytes]:
    """Payloads of the kit and of tests/golden, good and bad."""
    for folder in (KIT / "v1" / "3-payloads", golden.FOLDER):
        for file in sorted(folder.glob("*.bin")):
            data = file.read_bytes()
            if data.startswith(b"BF") and len(data) <= MAX_SEED:
                yield data
    for name in ("payloads.json", "payloads-2.json"):
        yield from map(bytes_of, vectors_of(f"5-refused/{name}"))


def _tables() -> dict[str, Any]:
    files = sorted((KIT / "v1" / "tables" / "networks").glob("*.json"))
    tables = {table["architecture"]: table for file in files for table in json.loads(file.read_text())["vectors"]}
    return {name: table for name, table in tables.items() if "8x8" in name}


def run_spelling(data: bytes) -> None:
    """Architectures, recipes and precisions: what is taken has one spelling, and is what it says."""
    text = data.decode("utf-8", errors="replace")
    network = outcome(lambda: parse(text))
    require_same(network.spec if network else text, text, "architecture")
    precisions = outcome(lambda: parse_several(text))
    require_same(join(precisions) if precisions else text, text, "precisions")
    recipe = outcome(lambda: Recipe.parse(text))
    if recipe is not None:
        require_same(Recipe.parse(str(recipe)), recipe, "recipe there and back")
    taken = recipe is not None and str(recipe) == text
    require_same(taken, other(lambda: independent.codec_of(text)) is not None, f"recipe {text!r}")


def spelling_seeds() -> Iterator[bytes]:
    """Names of the kit."""
    names = {*golden.RECIPES, *TABLES, "fp32", "W4A8", "W8A8+W4A4+W1A1", "fp32+W16A32"}
    yield from (name.encode() for name in sorted(names))


TABLES: Final = _tables()
TARGETS: Final[dict[str, Target]] = {
    "payload": Target(run_payload, payload_seeds),
    "tensor": Target(run_tensor, tensor_seeds),
    "spelling": Target(run_spelling, spelling_seeds),
}
