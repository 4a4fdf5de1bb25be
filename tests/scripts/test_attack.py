"""Devices that lie in simulations: how they are spelled, who lies, what they send, and what the door makes of it."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, replace

import numpy as np
import pytest
from simulation import Setup, SimulationError
from simulation.attack import Attack
from simulation.device import Update
from simulation.merging import merged
from strategies import SMALL, random_tensors

from aggregator.model import GlobalModel
from edge.data import Dataset
from edge.training.task import TrainerError
from protocol.codec.payload import Content, Header, decode, encode
from protocol.errors import RemoteProtocolError
from protocol.precision import FP32

SETUP = Setup(SMALL.spec, devices=10, sampled=10)
BASE = GlobalModel.fresh(SMALL.spec, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Attack()),
        ("sign-flip:0.3", Attack("sign-flip", 1.0, 0.3)),
        ("sign-flip:4:0.3", Attack("sign-flip", 4.0, 0.3)),
        ("scale:10:0.2", Attack("scale", 10.0, 0.2)),
        ("gaussian:0.1:0.5", Attack("gaussian", 0.1, 0.5)),
        ("label-flip:0.3", Attack("label-flip", 0.0, 0.3)),
        ("nan:0.1", Attack("nan", 0.0, 0.1)),
    ],
)
def test_an_attack_is_read(text: str, expected: Attack) -> None:
    assert Attack.parse(text) == expected
    assert replace(SETUP, attack=text).attack == text


@pytest.mark.parametrize(
    "text",
    ["scale:0.3", "nan", "nan:1", "nan:0", "nan:2:0.1", "label-flip:3:0.1", "theft:0.1", "scale:x:0.1", "scale:-1:0.1"],
)
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"setup attack .* expected sign-flip\[:FACTOR\]:SHARE"):
        replace(SETUP, attack=text)


def test_a_smaller_share_is_among_a_larger_one_and_follows_from_the_seed() -> None:
    shares = [Attack.parse(f"nan:{share}").attackers(5, 10) for share in (0.1, 0.2, 0.3)]
    assert [len(each) for each in shares] == [1, 2, 3]
    assert shares[0] < shares[1] < shares[2] == Attack.parse("scale:9:0.3").attackers(5, 10)
    assert len({Attack.parse("nan:0.3").attackers(seed, 10) for seed in range(5)}) > 1
    liars = Attack.parse("nan:0.3").attackers(SETUP.seed, 10)
    lying = replace(SETUP, attack="nan:0.3")
    assert {index for index in range(10) if lying.attack_of(index).kind} == liars


def test_lies_are_told_of_moments_too_and_a_variance_stays_one() -> None:
    honest = random_tensors(SMALL, FP32)
    for text, factor in (("sign-flip:4:0.3", -4.0), ("scale:10:0.3", 10.0)):
        lies = Attack.parse(text).tensors(honest, np.random.default_rng(0))
        for name, values in honest.items():
            sign = abs(factor) if name.endswith(".variance") else factor
            np.testing.assert_allclose(lies[name], sign * values, rtol=1e-6)
    noise = Attack.parse("gaussian:2:0.3").tensors(honest, np.random.default_rng(0))["layer4.1.conv2.weight"]
    assert noise.std() == pytest.approx(2, rel=0.1)


def test_labels_are_flipped_and_pictures_stay() -> None:
    honest = Dataset(np.zeros((4, 1, 8, 8), np.uint8), np.array([0, 1, 2, 2]), ("a", "b", "c"))
    lie = Attack.parse("label-flip:0.3").pictures(honest, 3)
    assert lie.labels_N.tolist() == [2, 1, 0, 0]
    assert Attack.parse("nan:0.3").pictures(honest, 3) is honest


@pytest.mark.parametrize("recipe", ["fp32", "sign", "eden:1", "uniform:4"])
def test_a_number_that_is_none_is_refused_when_it_is_read(recipe: str) -> None:
    data = payload(0, recipe)
    decode(data)
    with pytest.raises(RemoteProtocolError) as refusal:
        decode(Attack.parse("nan:0.3").payload(data))
    assert refusal.value.refusal == "not-finite"


def payload(seed: int, recipe: str = "fp32") -> bytes:
    header = Header(SMALL.spec, recipe, "fp32", Content.DELTA, 0)
    tensors = random_tensors(SMALL, FP32, seed=seed)
    return encode(header, {spec.name: tensors[spec.name] for spec in header.specs}, np.random.default_rng(0))


def answers(*results: bytes | Exception) -> list[tuple[int, "Future[Update]"]]:
    """As if workers had delivered."""
    made = []
    for index, result in enumerate(results):
        future: Future[Update] = Future()
        if isinstance(result, bytes):
            future.set_result(Update(result, 10, 1.0, {}))
        else:
            future.set_exception(result)
        made.append((index, future))
    return made


def spoilt() -> bytes:
    return Attack.parse("nan:0.3").payload(payload(9))


@pytest.mark.parametrize("fault", [spoilt, lambda: TrainerError("the loss is not finite")])
def test_under_attack_what_the_door_refuses_is_left_out_and_otherwise_ends_the_run(
    fault: Callable[[], bytes | Exception],
) -> None:
    setup = replace(SETUP, attack="nan:0.3", merge="median")
    model, _, updates = merged(setup, BASE, answers(payload(0), fault(), payload(1), payload(2)), 1)
    assert list(updates) == [0, 2, 3]
    clean, _, _ = merged(setup, BASE, answers(payload(2), payload(0), payload(1)), 1)
    assert model.to_bytes() == clean.to_bytes()
    with pytest.raises(SimulationError, match="round 1, device 1"):
        merged(SETUP, BASE, answers(payload(0), fault()), 1)


def test_a_round_in_which_nobody_delivers_leaves_the_model() -> None:
    model, _, updates = merged(replace(SETUP, attack="nan:0.3"), BASE, answers(spoilt()), 1)
    assert model is BASE
    assert updates == {}


def test_a_rule_without_enough_updates_ends_the_run() -> None:
    with pytest.raises(SimulationError, match="round 3: krum of 4 updates: expected at least 5"):
        merged(replace(SETUP, merge="krum:1"), BASE, answers(*map(payload, range(4))), 3)


def test_runs_that_were_kept_before_there_were_attacks_keep_their_names() -> None:
    """What decides them is what it was."""
    assert "merge" in asdict(SETUP)
    assert SETUP.digest == "5b69975272f4"
    assert len({SETUP.digest, replace(SETUP, merge="median").digest, replace(SETUP, attack="nan:0.3").digest}) == 3


@pytest.mark.parametrize(
    ("merge", "other"), [("median", {"vote": True, "recipe": "sign"}), ("trimmed:0.2", {"recipe": "stc:0.1"})]
)
def test_what_does_not_go_together_is_named(merge: str, other: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="setup merge"):
        replace(SETUP, merge=merge, **other)
