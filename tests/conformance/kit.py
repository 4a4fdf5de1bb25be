"""Reads the files of the kit, as a decoder in another language would."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from protocol.precision import Float32, UInt8

FOLDER = Path(__file__).parent / "v1"

Vector = dict[str, Any]


@cache
def facts(name: str) -> Vector:
    """One file: what its vectors have in common, and the vectors."""
    return json.loads((FOLDER / name).read_text())


def vectors(name: str) -> list[Vector]:
    """The vectors of a file, of which there are some."""
    found = facts(name)["vectors"]
    assert found, name
    return found


def vectors_of_all(name: str) -> list[Vector]:
    """The vectors of a file and of all that came later to the same end, such as `payloads.json`, `payloads-2.json`."""
    folder, stem = name.split("/")
    files = sorted((FOLDER / folder).glob(f"{stem}*.json"), key=lambda file: (len(file.name), file.name))
    return [vector for file in files for vector in vectors(f"{folder}/{file.name}")]


def named(names: list[str]) -> list[tuple[str, Vector]]:
    """The vectors of several files, each with the name of its file."""
    return [(name, vector) for name in names for vector in vectors(name)]


def label(value: object) -> str | None:
    """How a vector is called in a test's name."""
    if not isinstance(value, dict):
        return str(value).rsplit("/", 1)[-1].removesuffix(".json")
    keys = ("recipe", "codec", "coder", "name", "message", "number", "count", "seed")
    return ", ".join(str(value[key]) for key in keys if key in value)[:80]


def codes_of(vector: Vector) -> UInt8:
    """Codes that are written down one by one, or as runs."""
    if "codes" in vector:
        return np.frombuffer(bytes.fromhex(vector["codes"]), dtype=np.uint8)
    return np.repeat(*np.array(vector["runs"], dtype=np.int64).T).astype(np.uint8)


def floats_of(text: str) -> Float32:
    """Little-endian float32 in hexadecimal."""
    return np.frombuffer(bytes.fromhex(text), dtype="<f4")


def number_of(text: str) -> int:
    """A seed, or a word of a stream."""
    return int(text, 16)


def payload_bytes(vector: Vector) -> bytes:
    """A payload, from its own file or from the vector."""
    if "bytes" in vector:
        return bytes.fromhex(vector["bytes"])
    return (FOLDER / "3-payloads" / vector["file"]).read_bytes()


def payload_values(vector: Vector) -> Float32:
    """What it decodes to, in the order of the table."""
    name = f"{vector['same as']}.values.bin" if "same as" in vector else vector["values"]
    return np.frombuffer((FOLDER / "3-payloads" / name).read_bytes(), dtype="<f4")


def tables() -> dict[str, Vector]:
    """Every network of the kit by its spec."""
    files = sorted((FOLDER / "tables" / "networks").glob("*.json"))
    return {table["architecture"]: table for file in files for table in json.loads(file.read_text())["vectors"]}


def close(found_N: Float32, wanted_N: Float32, vector: Vector) -> bool:
    """Whether values are equal; where a rotation was summed up, within the vector's bound (BF-059)."""
    if "bound" in vector:
        return bool((np.abs(found_N - wanted_N.astype(np.float64)) <= vector["bound"]).all())
    return np.array_equal(found_N, wanted_N)
