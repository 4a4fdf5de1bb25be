"""Bytes written once, read for ever. Only scripts/golden writes them; a missing file fails."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from protocol.codec.payload import decode, encode
from protocol.codec.recipe import DEFAULT_RECIPE, recipes
from protocol.envelope import open_envelope
from protocol.precision import Precision
from protocol.signing import VerifyKey

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "tests" / "golden" / "v1"
FACTS = json.loads((FOLDER / "facts.json").read_text())

sys.path.insert(0, str(ROOT / "scripts" / "lib"))
import golden  # noqa: E402 (the script that wrote the files knows what went in)


@pytest.mark.parametrize("message", golden.MESSAGES, ids=lambda message: type(message).__name__)
def test_every_golden_message_still_opens(message: object) -> None:
    """BF-010."""
    data = (FOLDER / f"message-{type(message).__name__.lower()}.bin").read_bytes()
    key = VerifyKey(bytes.fromhex(FACTS["public_key"]))
    assert open_envelope(data, topic=FACTS["topic"], key_of={FACTS["sender"]: key}.get).message == message


@pytest.mark.parametrize("recipe", [*recipes(), DEFAULT_RECIPE])
def test_every_golden_payload_still_decodes_and_deterministic_ones_encode_the_same(recipe: str) -> None:
    """BF-040, BF-050 to BF-056."""
    data = (FOLDER / f"payload-{recipe.replace(':', '')}.bin").read_bytes()
    payload = decode(data)
    wanted = golden.tensors(golden.NETWORK, Precision.parse("W4A8"))
    coarsest = {"uniform:1": 2.0, "uniform:2": 0.7, "sign": 1.0, DEFAULT_RECIPE: 1.0}.get(recipe, 0.3)
    for name, values in payload.tensors.items():
        assert np.abs(values - wanted[name]).max() <= coarsest
    assert encode(payload.header, wanted, np.random.default_rng(0)) == data


def test_there_is_one_golden_file_for_everything_on_the_wire() -> None:
    expected = len(golden.MESSAGES) + len(recipes()) + 2
    assert len(list(FOLDER.iterdir())) == expected
