"""States and steps of the base model: what both sides hold is the same to the bit, and nears the model."""

from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.downlink import next_step
from aggregator.model import GlobalModel
from protocol.architecture import Role
from protocol.codec.payload import Content, Header, decode, encode
from protocol.codec.recipe import Recipe
from protocol.errors import Malformed, RemoteProtocolError
from protocol.messages import Step
from protocol.precision import Precision, join
from protocol.reference import cheapest, length, moved, state_of

SPEC = "cnn4:width=0.25,input=1x8x8,classes=10"
PRECISIONS = (Precision(8, 8), Precision(2, 8))
RECIPES = ("uniform:4", "eden:1", "eden:2", "sign", "topk:0.1+uniform:8", "stc:0.1", "fp32")


def model_of(seed: int) -> GlobalModel:
    """A model near that of another seed: shared weights drawn anew, a tenth as large."""
    model, rng = GlobalModel.fresh(SPEC, 0), np.random.default_rng(seed)
    drawn = {
        name: values + rng.normal(scale=0.01, size=values.shape).astype(np.float32)
        for name, values in model.shared.items()
    }
    return replace(model, shared=drawn)


def weights_off(state: bytes, model: GlobalModel) -> float:
    """Root mean square distance of a state's weights from the model's."""
    payload = decode(state)
    names = [spec.name for spec in payload.header.specs if spec.role is Role.WEIGHT]
    errors = [np.ravel(payload.tensors[name] - model.shared[name]) for name in names]
    return float(np.sqrt(np.mean(np.concatenate(errors) ** 2)))


@pytest.mark.parametrize("recipe", RECIPES)
def test_who_follows_every_step_holds_what_the_sender_holds(recipe: str) -> None:
    """BF-029: the sender keeps the state it computed, the receiver starts from bytes alone."""
    sent, held = None, None
    for number in range(25):
        payload, after = next_step(model_of(number), PRECISIONS, sent, Recipe.parse(recipe), number)
        held = state_of(payload) if held is None else moved(held, payload)
        assert held == after
        sent = after


@pytest.mark.parametrize("recipe", ["uniform:8", "eden:1", "eden:2", "sign", "stc:0.1"])
def test_what_a_step_drops_comes_later(recipe: str) -> None:
    """EF21-P: against a model that stands still, the distance shrinks towards nothing."""
    target = model_of(1)
    _, state = next_step(model_of(0), PRECISIONS, None, Recipe.parse(recipe), 0)
    first = weights_off(state, target)
    for number in range(60):
        _, state = next_step(target, PRECISIONS, state, Recipe.parse(recipe), number)
    assert weights_off(state, target) < 0.1 * first


def test_moments_are_those_of_the_step() -> None:
    """BF-029."""
    _, state = next_step(model_of(0), PRECISIONS, None, Recipe.parse("sign"), 0)
    other = model_of(1)
    profiles = {
        str(precision): dict(other.with_profile(precision).profiles[str(precision)]) for precision in PRECISIONS
    }
    for profile in profiles.values():
        profile.update({name: np.full_like(values, 3.0) for name, values in profile.items() if "variance" in name})
    _, after = next_step(replace(other, profiles=profiles), PRECISIONS, state, Recipe.parse("sign"), 1)
    found = [values for name, values in decode(after).tensors.items() if "variance" in name]
    assert found
    assert all((values == 3.0).all() for values in found)


def test_a_state_is_its_fp32_payload_whatever_led_there() -> None:
    """BF-029: one name for one model."""
    model = model_of(0)
    tensors = model.tensors(*PRECISIONS)
    header = Header(SPEC, "fp32", join(PRECISIONS), Content.WEIGHTS, pictures=9, seed=0)
    whole = encode(header, tensors, np.random.default_rng(0))
    plain = encode(replace(header, pictures=0), tensors, np.random.default_rng(0))
    assert state_of(whole) == plain
    assert state_of(plain) == plain


def test_a_step_of_another_model_or_content_is_refused() -> None:
    payload, state = next_step(model_of(0), PRECISIONS, None, Recipe.parse("sign"), 0)
    step, _ = next_step(model_of(1), PRECISIONS, state, Recipe.parse("sign"), 0)
    _, elsewhere = next_step(model_of(0), PRECISIONS[:1], None, Recipe.parse("sign"), 0)
    with pytest.raises(Malformed, match=r"at W8A8\+W2A8: expected .* at W8A8"):
        moved(elsewhere, step)
    with pytest.raises(Malformed, match="payload of delta: expected weights"):
        state_of(step)
    assert moved(elsewhere, payload) == state, "weights lead there from anywhere"


def test_a_step_out_of_range_is_refused() -> None:
    header = Header(SPEC, "fp32", "fp32", Content.WEIGHTS, 0)
    huge = {spec.name: np.full(spec.shape, 8e29, dtype=np.float32) for spec in header.specs}
    state = encode(header, huge, np.random.default_rng(0))
    step = encode(replace(header, content=Content.DELTA), huge, np.random.default_rng(0))
    with pytest.raises(Malformed, match="out of range"):
        moved(state, step)


@given(st.binary(max_size=64))
def test_any_bytes_raise_only_errors_of_the_protocol(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        moved(data, data)
    with pytest.raises(RemoteProtocolError):
        state_of(data)


# --- which way ---


def chain(*sizes: int, anchor: bool = True) -> list[Step]:
    """Steps from state to state; names are single letters."""
    names = [b"" if anchor else b"z", *(bytes([97 + index]) for index in range(len(sizes)))]
    return [Step(before, sha256(before).digest(), size) for before, size in zip(names, sizes, strict=False)]


def test_the_way_starts_at_the_state_held_last() -> None:
    """BF-028."""
    steps = chain(50, 10, 10, 10)
    assert length(cheapest(steps, b"d", 100, {b"c"}) or ()) == 10
    assert length(cheapest(steps, b"d", 100, {b"a", b"c"}) or ()) == 10
    assert length(cheapest(steps, b"d", 100, {b"a"}) or ()) == 30
    assert length(cheapest(steps, b"d", 100, {b"unknown"}) or ()) == 80


def test_the_whole_is_taken_where_it_is_no_more() -> None:
    """BF-028."""
    assert cheapest(chain(50, 30, 20), b"c", 100, set()) is None
    assert cheapest(chain(10, 10, anchor=False), b"b", 100, set()) is None
    assert cheapest([], b"b", 100, {b"a"}) is None


def test_who_is_there_has_nothing_to_do() -> None:
    """BF-028."""
    assert cheapest(chain(50, 10), b"b", 100, {b"b"}) == ()
