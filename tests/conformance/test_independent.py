"""BF-069: the decoder that was written from SPEC.md alone agrees with every vector of the kit."""

import ast
import sys
from functools import partial
from hashlib import sha256
from pathlib import Path

import independent
import numpy as np
import pytest
from golden import FOLDER as GOLDEN
from golden import RECIPES, payload_name
from kit import (
    Vector,
    close,
    codes_of,
    facts,
    floats_of,
    label,
    named,
    number_of,
    payload_bytes,
    payload_values,
    tables,
    vectors,
    vectors_of_all,
)
from test_vectors import CODEC_FILES, CODER_FILES

from protocol.codec.payload import decode

TABLES = tables()


def test_it_imports_nothing_but_the_standard_library() -> None:
    tree = ast.parse(Path(independent.__file__).read_text())
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names


@pytest.mark.parametrize("vector", vectors("1-coders/varint.json"), ids=label)
def test_numbers(vector: Vector) -> None:
    """BF-073."""
    source = independent.Bytes(bytes.fromhex(vector["bytes"]))
    assert independent.varint(source, 2**63 - 1) == vector["number"]
    source.end()


@pytest.mark.parametrize(("file", "vector"), named(CODER_FILES), ids=label)
def test_codes(file: str, vector: Vector) -> None:
    """BF-050, BF-070 to BF-072."""
    source = independent.Bytes(bytes.fromhex(vector["bytes"]))
    codes = independent.CODERS[facts(file)["coder"]](source, vector["count"], vector["symbols"])
    source.end()
    assert bytes(codes) == codes_of(vector).tobytes()


@pytest.mark.parametrize("vector", vectors("1-coders/choices.json"), ids=label)
def test_codes_that_our_encoders_would_write_otherwise(vector: Vector) -> None:
    """BF-070, BF-071."""
    source = independent.Bytes(bytes.fromhex(vector["bytes"]))
    codes = independent.CODERS[vector["coder"]](source, vector["count"], vector["symbols"])
    source.end()
    assert bytes(codes) == codes_of(vector).tobytes()


@pytest.mark.parametrize("vector", vectors("2-tensors/stream.json"), ids=label)
def test_streams(vector: Vector) -> None:
    """BF-059."""
    words = [*range(8), 100_000]
    wanted = [*vector["words"], vector["word 100000"]]
    assert [f"{independent.word(number_of(vector['seed']), word):016x}" for word in words] == wanted


@pytest.mark.parametrize("vector", vectors("2-tensors/rotation.json"), ids=label)
def test_rotations(vector: Vector) -> None:
    """BF-059."""
    rotated, values, seed = floats_of(vector["rotated"]).tolist(), [], number_of(vector["seed"])
    assert independent.blocks_of(vector["count"]) == vector["blocks"]
    for size in vector["blocks"]:
        values += independent.unrotated(rotated[len(values) : len(values) + size], seed, len(values))
    assert close(np.array(values[: vector["count"]]), floats_of(vector["values"]), vector)


@pytest.mark.parametrize(("file", "vector"), named(CODEC_FILES), ids=label)
def test_tensors(file: str, vector: Vector) -> None:
    """BF-051 to BF-054, BF-056 to BF-058, BF-074 to BF-077."""
    source = independent.Bytes(bytes.fromhex(vector["bytes"]))
    values = independent.codec_of(vector["recipe"])(source, vector["count"], number_of(vector["seed"]))
    source.end()
    assert close(np.array(values), floats_of(vector["values"]), vector)


@pytest.mark.parametrize("vector", vectors("2-tensors/together.json"), ids=label)
def test_small_tensors(vector: Vector) -> None:
    """BF-055."""
    read = {
        "fp32": independent.floats_together,
        "uniform:8": independent.ranges_together,
        "half": independent.halves_together,
    }[vector["codec"]]
    source = independent.Bytes(bytes.fromhex(vector["bytes"]))
    values = [value for values in read(source, vector["sizes"]) for value in values]
    source.end()
    assert values == floats_of(vector["values"]).tolist()


@pytest.mark.parametrize("vector", vectors_of_all("3-payloads/payloads"), ids=label)
def test_payloads(vector: Vector) -> None:
    """BF-040, BF-044, BF-045, BF-055, BF-061, BF-064, BF-065."""
    tensors = independent.payload(payload_bytes(vector), TABLES)
    values = [value for values in tensors.values() for value in values]
    assert close(np.array(values), payload_values(vector), vector)


@pytest.mark.parametrize("vector", vectors("3-payloads/states.json"), ids=lambda vector: ", ".join(vector["steps"]))
def test_states(vector: Vector) -> None:
    """BF-029."""
    state = b""
    for name, digest in zip(vector["steps"], vector["states"], strict=True):
        state = independent.state_after(state, payload_bytes({"file": name}), TABLES)
        assert sha256(state).hexdigest() == digest


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_golden_payloads(recipe: str) -> None:
    """BF-040, BF-058."""
    data = (GOLDEN / payload_name(recipe)).read_bytes()
    ours, theirs = decode(data).tensors, independent.payload(data, TABLES)
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        bound = {"bound": 2.0**-19 * float(np.linalg.norm(values))} if "eden" in recipe else {}
        assert close(np.array(theirs[name]), values.reshape(-1), bound), name


@pytest.mark.parametrize("vector", vectors("5-refused/coders.json"), ids=label)
def test_codes_that_lie(vector: Vector) -> None:
    """BF-042, BF-050, BF-070 to BF-073."""
    source = independent.Bytes(bytes.fromhex(vector["bytes"]))
    _refuses(partial(independent.CODERS[vector["coder"]], source, vector["count"], vector["symbols"]), vector)


@pytest.mark.parametrize("vector", vectors_of_all("5-refused/tensors"), ids=label)
def test_tensors_that_lie(vector: Vector) -> None:
    """BF-042, BF-043, BF-052 to BF-054, BF-058, BF-076."""
    source = independent.Bytes(bytes.fromhex(vector["bytes"]))
    seed = number_of(vector["seed"])
    _refuses(partial(independent.codec_of(vector["recipe"]), source, vector["count"], seed), vector)


@pytest.mark.parametrize("vector", vectors_of_all("5-refused/payloads"), ids=label)
def test_payloads_that_lie(vector: Vector) -> None:
    """BF-040 to BF-043, BF-056, BF-060, BF-062, BF-064."""
    _refuses(partial(independent.payload, bytes.fromhex(vector["bytes"]), TABLES), vector)


@pytest.mark.parametrize("name", ["sign", "topk-0.1", "fedzip-z0.2-k5+huffman", "uniform-4+rc", "step-0.3"])
def test_every_strict_prefix_is_incomplete(name: str) -> None:
    """BF-042."""
    data = payload_bytes({"file": f"{name}.bin"})
    for end in range(0, len(data), 7):
        with pytest.raises(independent.Refused) as caught:
            independent.payload(data[:end], TABLES)
        assert caught.value.code == "incomplete"


def _refuses(call: "partial[object]", vector: Vector) -> None:
    with pytest.raises(independent.Refused) as caught:
        call()
    assert caught.value.code == vector["refusal"]
