"""Bytes written once, read for ever. Only scripts/golden writes them; a missing file fails."""

import sys
from pathlib import Path

import numpy as np
import pytest

from protocol.codec.payload import decode, encode
from protocol.envelope import open_envelope
from protocol.precision import Precision
from protocol.signing import VerifyKey

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "tests" / "golden" / "v1"

sys.path.insert(0, str(ROOT / "scripts" / "lib"))
import golden  # noqa: E402 (the script that wrote the files knows what went in)

FACTS = golden.facts()


@pytest.mark.parametrize("message", golden.MESSAGES, ids=lambda message: type(message).__name__)
def test_every_golden_message_still_opens(message: object) -> None:
    """BF-010."""
    data = (FOLDER / f"message-{type(message).__name__.lower()}.bin").read_bytes()
    key = VerifyKey(bytes.fromhex(FACTS["public_key"]))
    assert open_envelope(data, topic=FACTS["topic"], key_of={FACTS["sender"]: key}.get).message == message


@pytest.mark.parametrize("recipe", golden.RECIPES)
def test_every_golden_payload_still_decodes_and_deterministic_ones_encode_the_same(recipe: str) -> None:
    """BF-040, BF-050 to BF-059, BF-070 to BF-077."""
    data = (FOLDER / golden.payload_name(recipe)).read_bytes()
    payload = decode(data)
    wanted = golden.tensors(golden.NETWORK, Precision.parse("W4A8"))
    if golden.ROTATED in recipe:
        again = decode(encode(payload.header, wanted, np.random.default_rng(0))).tensors
        for name, values in payload.tensors.items():
            assert np.square(values - again[name]).mean() < 1e-3  # a value next to a border may fall on either side
    else:
        assert golden.digest(payload) == FACTS["decoded"][recipe]
        if not golden.is_drawn(recipe):
            assert encode(payload.header, wanted, np.random.default_rng(0)) == data


def test_there_is_one_golden_file_for_everything_on_the_wire() -> None:
    assert len(list(FOLDER.iterdir())) == len(golden.MESSAGES) + len(golden.RECIPES) + 1 + len(golden.LATER_RECIPES)
