from dataclasses import replace

import numpy as np
import pytest
from strategies import SMALL, random_tensors

from protocol.architecture import Role, Tensors
from protocol.codec.feedback import MOMENTUM, encode_with_feedback
from protocol.codec.payload import Content, Header, decode
from protocol.precision import Precision

W4A8 = Precision.parse("W4A8")
HEADER = Header(SMALL.spec, "ef+sign", "W4A8", Content.DELTA, pictures=40)
WEIGHTS = {spec.name for spec in SMALL.tensors(W4A8) if spec.role is Role.WEIGHT}
NAME = "layer1.0.conv1.weight"


def rounds(recipe: str, number: int) -> tuple[list[Tensors], list[Tensors], Tensors]:
    """The updates, what was sent of them, and what is left."""
    rng, residual = np.random.default_rng(3), {}
    updates = [random_tensors(SMALL, W4A8, seed=seed) for seed in range(number)]
    sent = []
    for seed, update in enumerate(updates):
        header = replace(HEADER, recipe=recipe, seed=seed)
        payload, residual = encode_with_feedback(header, update, residual, rng)
        sent.append(decode(payload).tensors)
    return updates, sent, residual


@pytest.mark.parametrize(
    "recipe",
    [
        *("ef+sign", "ef+eden:1", "ef+eden:0.3", "ef+stc:0.1", "ef+fedzip:z=0.2,k=3", "ef+uniform:2"),
        *("ef+step:0.3", "ef+step:10+rc"),
    ],
)
def test_error_feedback_loses_nothing_over_rounds(recipe: str) -> None:
    """BF-056: what was sent, plus the residual, is the sum of all updates; and the residual stays small."""
    updates, sent, residual = rounds(recipe, 30)
    assert set(residual) == WEIGHTS
    for name in WEIGHTS:
        wanted = np.sum([update[name] for update in updates], axis=0, dtype=np.float64)
        arrived = np.sum([tensors[name] for tensors in sent], axis=0, dtype=np.float64)
        np.testing.assert_allclose(arrived + residual[name], wanted, atol=1e-4)
        assert np.linalg.norm(residual[name]) < 12 * np.linalg.norm(updates[0][name])


def test_momentum_correction_by_hand() -> None:
    """BF-056: two rounds of DGC, in the words of its formulas."""
    updates, sent, residual = rounds("dgc+topk:0.1+fp32", 2)
    first, second = (update[NAME] for update in updates)
    waits = np.where(sent[0][NAME] != 0, 0, first)
    speed = second + np.float32(MOMENTUM) * waits
    np.testing.assert_allclose(sent[1][NAME] + residual[NAME], speed + waits, rtol=1e-6)
    np.testing.assert_allclose(residual[f"momentum/{NAME}"], np.where(sent[1][NAME] != 0, 0, speed), rtol=1e-6)
    assert (sent[1][NAME] != 0).sum() == np.ceil(0.1 * first.size)


def test_without_feedback_there_is_no_residual() -> None:
    """BF-056."""
    payload, residual = encode_with_feedback(
        replace(HEADER, recipe="sign"), random_tensors(SMALL, W4A8), {}, np.random.default_rng(0)
    )
    assert residual == {}
    assert decode(payload).header.recipe == "sign"
