"""BF-069: our own implementation against every vector of the kit, both ways where an encoder has no choice."""

import json
from hashlib import sha256
from typing import Any

import msgpack
import numpy as np
import pytest
from golden import ROTATED, is_drawn
from kit import (
    FOLDER,
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
from vectors import write
from vectors.coders import CODERS
from vectors.tensors import CODECS, GROUPS

from protocol.architecture import Architecture
from protocol.chunks import chunk_count, from_bitmap, to_bitmap
from protocol.codec.payload import decode, encode
from protocol.codec.recipe import Recipe
from protocol.codec.rotation import blocks, signs, stream, unrotated
from protocol.codec.varint import read_varint, varint
from protocol.envelope import Envelope, Stamp, open_envelope, seal
from protocol.errors import Refusal, RemoteProtocolError, Replayed
from protocol.messages import TYPES
from protocol.networks import parse
from protocol.precision import Precision
from protocol.reader import Reader
from protocol.reference import moved
from protocol.replay import NOTHING_SEEN, admit
from protocol.schema import from_map, to_map
from protocol.signing import SigningKey, VerifyKey

CODER_FILES = [f"1-coders/{name}.json" for name in CODERS]
CODEC_FILES = [f"2-tensors/{name}.json" for name in CODECS]


# --- the files ---


def test_every_file_of_the_kit_is_there_and_no_other() -> None:
    assert {file.relative_to(FOLDER).as_posix() for file in FOLDER.rglob("*") if file.is_file()} == {
        *write.FILES,
        write.SUMS,
    }
    folders = [folder for folder in FOLDER.rglob("*") if folder.is_dir()]
    assert len(folders) == 7
    assert all(any(folder.iterdir()) for folder in folders), "a folder of vectors is empty"


def test_no_file_changed_since_its_sum_was_written() -> None:
    lines = (FOLDER / write.SUMS).read_text().splitlines()
    assert {line[66:] for line in lines} == set(write.FILES)
    for line in lines:
        assert sha256((FOLDER / line[66:]).read_bytes()).hexdigest() == line[:64], line[66:]


@pytest.mark.parametrize("name", sorted(file for file in write.FILES if file.endswith(".json")))
def test_every_file_has_vectors_and_names_its_requirements(name: str) -> None:
    for vector in vectors(name):
        assert vector
        if "refusal" in vector and "bytes" in vector:
            assert vector["refusal"] in set(Refusal)
            assert vector.get("requirement", facts(name).get("requirement")), name


# --- coders ---


@pytest.mark.parametrize("vector", vectors("1-coders/varint.json"), ids=label)
def test_a_varint_is_its_bytes(vector: Vector) -> None:
    """BF-073."""
    data = bytes.fromhex(vector["bytes"])
    reader = Reader(data)
    assert read_varint(reader, 2**63 - 1, "number") == vector["number"]
    reader.finish()
    assert varint(vector["number"]) == data


@pytest.mark.parametrize(("file", "vector"), named(CODER_FILES), ids=label)
def test_codes_are_their_bytes(file: str, vector: Vector) -> None:
    """BF-050, BF-070, BF-071, BF-072."""
    coder, data, codes_N = CODERS[facts(file)["coder"]], bytes.fromhex(vector["bytes"]), codes_of(vector)
    reader = Reader(data)
    np.testing.assert_array_equal(coder.decode(reader, vector["count"], vector["symbols"]), codes_N)
    reader.finish()
    assert coder.encode(codes_N, vector["symbols"]) == data


@pytest.mark.parametrize("vector", vectors("1-coders/choices.json"), ids=label)
def test_codes_that_our_encoders_would_write_otherwise_are_taken(vector: Vector) -> None:
    """BF-070, BF-071."""
    coder, data, codes_N = CODERS[vector["coder"]], bytes.fromhex(vector["bytes"]), codes_of(vector)
    reader = Reader(data)
    np.testing.assert_array_equal(coder.decode(reader, vector["count"], vector["symbols"]), codes_N)
    reader.finish()
    assert coder.encode(codes_N, vector["symbols"]) != data


# --- tensors ---


@pytest.mark.parametrize("vector", vectors("2-tensors/stream.json"), ids=label)
def test_a_stream_is_its_words(vector: Vector) -> None:
    """BF-059."""
    seed = number_of(vector["seed"])
    assert stream(seed, 0, 8).tolist() == [number_of(word) for word in vector["words"]]
    assert stream(seed, 100_000, 100_001).tolist() == [number_of(vector["word 100000"])]


@pytest.mark.parametrize("vector", vectors("2-tensors/rotation.json"), ids=label)
def test_a_rotation_comes_back(vector: Vector) -> None:
    """BF-059."""
    rotated_N, seed = floats_of(vector["rotated"]), number_of(vector["seed"])
    values_N, sizes = np.empty_like(rotated_N), []
    for part, size in blocks(vector["count"]):
        sizes += [size] * ((part.stop - part.start) // size)
        signs_BD = signs(seed, part).reshape(-1, size)
        values_N[part] = unrotated(rotated_N[part].reshape(-1, size), signs_BD).reshape(-1)
    assert sizes == vector["blocks"]
    assert close(values_N[: vector["count"]], floats_of(vector["values"]), vector)


@pytest.mark.parametrize(("file", "vector"), named(CODEC_FILES), ids=label)
def test_a_tensor_is_its_bytes(file: str, vector: Vector) -> None:
    """BF-051 to BF-054, BF-057, BF-058, BF-074 to BF-077."""
    codec, data, seed = (
        Recipe.parse(vector["recipe"]).weights,
        bytes.fromhex(vector["bytes"]),
        number_of(vector["seed"]),
    )
    reader = Reader(data)
    values_N = codec.read(reader, vector["count"], seed).values()
    reader.finish()
    assert close(values_N, floats_of(vector["values"]), vector)
    if not is_drawn(vector["recipe"]) and ROTATED not in vector["recipe"]:
        values = {each["name"]: floats_of(each["values"]) for each in vectors("2-tensors/inputs.json")}
        assert bytes(codec.encode(values[vector["name"]], np.random.default_rng(0), seed)) == data


@pytest.mark.parametrize("vector", vectors("2-tensors/together.json"), ids=label)
def test_small_tensors_lie_together(vector: Vector) -> None:
    """BF-055."""
    reader = Reader(bytes.fromhex(vector["bytes"]))
    values_N = GROUPS[vector["codec"]].read(reader, np.array(vector["sizes"], dtype=np.int64)).values()
    reader.finish()
    np.testing.assert_array_equal(values_N, floats_of(vector["values"]))


# --- payloads ---


def _in_order(vector: Vector) -> np.ndarray:
    payload = decode(payload_bytes(vector))
    header = payload.header
    specs = header.network.tensors(*header.precisions)
    return np.concatenate([payload.tensors[spec.name].reshape(-1) for spec in specs if spec.name in payload.tensors])


@pytest.mark.parametrize("vector", vectors_of_all("3-payloads/payloads"), ids=label)
def test_a_payload_decodes(vector: Vector) -> None:
    """BF-040, BF-044, BF-045, BF-055, BF-056, BF-064, BF-065."""
    assert close(_in_order(vector), payload_values(vector), vector)
    if "bytes" in vector:
        return
    payload = decode(payload_bytes(vector))
    for key in ("architecture", "recipe", "precision", "content", "pictures", "seed"):
        assert getattr(payload.header, key) == vector[key]
    if vector["recipe"] == "fp32":
        assert encode(payload.header, payload.tensors, np.random.default_rng(0)) == payload_bytes(vector)


@pytest.mark.parametrize("vector", vectors("3-payloads/states.json"), ids=lambda vector: ", ".join(vector["steps"]))
def test_steps_lead_from_state_to_state(vector: Vector) -> None:
    """BF-028, BF-029."""
    state = b""
    for name, digest in zip(vector["steps"], vector["states"], strict=True):
        state = moved(state, payload_bytes({"file": name}))
        assert sha256(state).hexdigest() == digest
    assert len(state) == vector["bytes"]


# --- messages ---


def _body(value: Any) -> Any:
    """A body from JSON."""
    if isinstance(value, dict):
        return bytes.fromhex(value["hex"]) if "hex" in value else {int(key): _body(item) for key, item in value.items()}
    return [_body(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("vector", vectors("4-messages/messages.json"), ids=label)
def test_a_message_is_its_signed_bytes(vector: Vector) -> None:
    """BF-010, BF-011, BF-015."""
    common = facts("4-messages/messages.json")
    head, data = common["head"], bytes.fromhex(vector["bytes"])
    key = VerifyKey(bytes.fromhex(common["public_key"]))
    stamp = Stamp(head["4"], head["5"])
    message = from_map(TYPES[vector["type"]], _body(vector["body"]))
    topic, keys = common["topic"], {head["3"]: key}
    opened = open_envelope(data, topic=topic, key_of=keys.get)
    assert opened == Envelope(head["3"], stamp, head["6"], message)
    signing = SigningKey(bytes.fromhex(common["private_key"]))
    again = seal(message, topic=topic, sender=head["3"], stamp=stamp, time_ms=head["6"], key=signing)
    grown = to_map(message).keys() - _body(vector["body"]).keys()  # fields of later versions, each with a default
    assert again == data or (
        grown and open_envelope(again, topic=common["topic"], key_of={head["3"]: key}.get) == opened
    )
    whole = {**_body(head), 2: vector["type"], 7: _body(vector["body"])}
    assert msgpack.unpackb(data[64:], strict_map_key=False) == whole


@pytest.mark.parametrize("vector", vectors("4-messages/refused.json"), ids=label)
def test_an_envelope_is_refused_with_its_code(vector: Vector) -> None:
    """BF-010 to BF-015."""
    common = facts("4-messages/refused.json")
    keys = {name: VerifyKey(bytes.fromhex(raw)) for name, raw in common["known"].items()}
    with pytest.raises(RemoteProtocolError) as caught:
        open_envelope(bytes.fromhex(vector["bytes"]), topic=common["topic"], key_of=keys.get)
    assert caught.value.refusal == vector["refusal"]


@pytest.mark.parametrize("vector", vectors("4-messages/replay.json"), ids=label)
def test_what_comes_again_is_told_from_what_is_new(vector: Vector) -> None:
    """BF-016, BF-017."""
    examples = {each["type"]: each["body"] for each in vectors("4-messages/messages.json")}
    seen = NOTHING_SEEN
    for number, boot, sequence, taken in vector["stamps"]:
        envelope = Envelope("pi-07", Stamp(boot, sequence), 0, from_map(TYPES[number], _body(examples[number])))
        if taken:
            seen = admit(seen, envelope)
            continue
        with pytest.raises(Replayed) as caught:
            admit(seen, envelope)
        assert caught.value.refusal == "replayed"


@pytest.mark.parametrize("vector", vectors("4-messages/chunks.json"), ids=str)
def test_an_upload_has_its_chunks(vector: Vector) -> None:
    """BF-030."""
    sizes = vector["payload"], vector["chunk"]
    if "refusal" in vector:
        with pytest.raises(RemoteProtocolError) as caught:
            chunk_count(*sizes)
        assert caught.value.refusal == vector["refusal"]
        return
    assert chunk_count(*sizes) == vector["chunks"]
    assert vector["payload"] == (vector["chunks"] - 1) * vector["chunk"] + vector["last"]


@pytest.mark.parametrize("vector", vectors("4-messages/bitmaps.json"), ids=lambda vector: str(vector)[:60])
def test_a_bitmap_names_its_chunks(vector: Vector) -> None:
    """BF-032."""
    data = bytes.fromhex(vector["bytes"])
    if "refusal" in vector:
        with pytest.raises(RemoteProtocolError) as caught:
            list(from_bitmap(data, vector["chunks"]))
        assert caught.value.refusal == vector["refusal"]
        return
    assert list(from_bitmap(data, vector["chunks"])) == vector["named"]
    assert to_bitmap(vector["named"], vector["chunks"]) == data


# --- what must be refused ---


@pytest.mark.parametrize("vector", vectors("5-refused/coders.json"), ids=label)
def test_codes_that_lie_are_refused_with_their_code(vector: Vector) -> None:
    """BF-042, BF-050, BF-070 to BF-073."""
    with pytest.raises(RemoteProtocolError) as caught:
        CODERS[vector["coder"]].decode(Reader(bytes.fromhex(vector["bytes"])), vector["count"], vector["symbols"])
    assert caught.value.refusal == vector["refusal"]


@pytest.mark.parametrize("vector", vectors_of_all("5-refused/tensors"), ids=label)
def test_a_tensor_that_lies_is_refused_with_its_code(vector: Vector) -> None:
    """BF-042, BF-043, BF-052 to BF-054, BF-058, BF-076."""
    codec = Recipe.parse(vector["recipe"]).weights
    with pytest.raises(RemoteProtocolError) as caught:
        codec.read(Reader(bytes.fromhex(vector["bytes"])), vector["count"], number_of(vector["seed"])).values()
    assert caught.value.refusal == vector["refusal"]


@pytest.mark.parametrize("vector", vectors_of_all("5-refused/payloads"), ids=label)
def test_a_payload_that_lies_is_refused_with_its_code(vector: Vector) -> None:
    """BF-040 to BF-043, BF-056, BF-060, BF-062, BF-064."""
    with pytest.raises(RemoteProtocolError) as caught:
        decode(bytes.fromhex(vector["bytes"]))
    assert caught.value.refusal == vector["refusal"]


# --- tables ---


@pytest.mark.parametrize("table", list(tables().values()), ids=lambda table: table["architecture"])
def test_a_network_is_its_table(table: Vector) -> None:
    """BF-060, BF-061, BF-068."""
    network = parse(table["architecture"])
    assert network.digest.hex() == table["digest"] == sha256("\n".join(table["layers"]).encode()).hexdigest()
    assert _rows(network, "fp32", of_profile=False) == table["shared"]
    assert table["profiles"]
    for name, rows in table["profiles"].items():
        assert _rows(network, name, of_profile=True) == rows


def _rows(network: Architecture, name: str, *, of_profile: bool) -> list[list[Any]]:
    specs = network.tensors(Precision.parse(name))
    return [[spec.name, list(spec.shape), str(spec.role)] for spec in specs if bool(spec.profile) == of_profile]


def test_a_message_keeps_its_fields_and_the_newest_table_has_all_of_them() -> None:
    """BF-015: a field that is added has a default, and is in a further file `tables/messages-….json`."""
    now = {
        each["message"]: each for each in json.loads(write.as_bytes(write.FILES["tables/messages.json"]()))["vectors"]
    }
    *older, newest = sorted((FOLDER / "tables").glob("messages*.json"), key=lambda file: (len(file.name), file.name))
    assert {each["message"]: each for each in json.loads(newest.read_text())["vectors"]} == now
    for file in older:
        for was in json.loads(file.read_text())["vectors"]:
            fields = now[was["message"]]["fields"]
            assert all(field in fields for field in was["fields"])
            assert all("default" in field for field in fields if field not in was["fields"])


def test_a_refusal_code_stays() -> None:
    """BF-069."""
    *older, newest = sorted((FOLDER / "tables").glob("refusals*.json"), key=lambda file: (len(file.name), file.name))
    assert {vector["refusal"] for vector in json.loads(newest.read_text())["vectors"]} == set(Refusal)
    for file in older:
        assert {vector["refusal"] for vector in json.loads(file.read_text())["vectors"]} <= set(Refusal)
