"""Announced steps: what devices are told, take, and may not change."""

from dataclasses import replace

import numpy as np
import pytest
from fleet import JOB, SMALL, Fleet, Opener, refused

from aggregator.model import GlobalModel
from aggregator.steps import REACH, announced
from protocol.architecture import Role
from protocol.codec.payload import Content, Header, decode, encode, read
from protocol.errors import LocalProtocolError
from protocol.messages import Offer

STOSIGN = replace(JOB, recipe="stosign", rounds=0)
WEIGHTS = [spec.name for spec in SMALL.tensors(JOB.precisions[0]) if spec.role is Role.WEIGHT]


def test_a_step_is_four_times_the_last_move_and_none_where_nothing_moved() -> None:
    before = GlobalModel.fresh(SMALL.spec, 0)
    moved = {name: values + np.float32(0.5) for name, values in before.shared.items()}
    assert announced(before, replace(before, shared=moved)) == pytest.approx([0.5 * REACH] * len(WEIGHTS), rel=1e-5)
    assert announced(before, before) == ()
    stuck = moved | {WEIGHTS[2]: before.shared[WEIGHTS[2]]}
    assert announced(before, replace(before, shared=stuck)) == ()


def upload(fleet: Fleet, offer: Offer, steps: tuple[float, ...]) -> bytes:
    """What a device sends that takes these steps."""
    device = fleet.handsets["a"]
    usual = decode(device.train(offer))
    header: Header = usual.header
    return encode(header, usual.tensors, np.random.default_rng(offer.seed), steps)


def test_the_second_round_announces_what_the_first_moved(open_fleet: Opener) -> None:
    """BF-057: the first round has nothing to go by; then every update takes the steps of its offer, to the bit."""
    fleet = open_fleet(STOSIGN)
    (a,) = fleet.connected("a")
    fleet.run()
    offer = a.offer()
    assert offer.codec_steps == ()
    a.upload(offer, a.train(offer))
    fleet.run()
    offer = a.offer()
    assert len(offer.codec_steps) == len(WEIGHTS)
    payload = upload(fleet, offer, offer.codec_steps)
    sent = decode(payload).tensors
    for name, step in zip(WEIGHTS, offer.codec_steps, strict=True):
        assert set(np.abs(sent[name]).ravel()) == {np.float32(step)}
    a.upload(offer, payload)
    assert a.receipt().outcome == "accepted"


def test_other_steps_than_the_announced_are_refused(open_fleet: Opener) -> None:
    """BF-057."""
    fleet = open_fleet(STOSIGN)
    (a,) = fleet.connected("a")
    fleet.run()
    offer = a.offer()
    a.upload(offer, a.train(offer))
    fleet.run()
    offer = a.offer()
    a.upload(offer, upload(fleet, offer, (*offer.codec_steps[:-1], 2 * offer.codec_steps[-1])))
    assert WEIGHTS[-1] in refused(a, "wrong-recipe").reason


def test_a_recipe_without_steps_announces_none(open_fleet: Opener) -> None:
    fleet = open_fleet(replace(JOB, recipe="sign", rounds=0))
    (a,) = fleet.connected("a")
    fleet.run()
    a.deliver_update()
    fleet.run()
    assert a.offer().codec_steps == ()


def test_steps_of_a_recipe_that_may_double_them_bind_nobody(
    open_fleet: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BF-077: the bytes say which step a tensor took."""
    announced_steps = tuple(number / 1024 for number in range(1, 1 + len(WEIGHTS)))
    monkeypatch.setattr("aggregator.planning._codec_steps", lambda *_: announced_steps)
    fleet = open_fleet(replace(JOB, recipe="step:0.002+rc", rounds=0))
    (a,) = fleet.connected("a")
    fleet.run()
    offer = a.offer()
    assert offer.codec_steps == announced_steps
    payload = upload(fleet, offer, offer.codec_steps)
    for name, coded in read(payload).weights.items():
        size = np.float32(announced_steps[WEIGHTS.index(name)])
        assert not (coded.values() / size % 1).any()
    a.upload(offer, payload)
    assert a.receipt().outcome == "accepted"


def test_a_calibration_has_no_weights_to_take_steps() -> None:
    header = Header(SMALL.spec, "stosign", "fp32", Content.PROFILES, 10)
    tensors = {spec.name: np.zeros(spec.shape, dtype=np.float32) for spec in header.specs}
    assert encode(header, tensors, np.random.default_rng(0), [1.0] * len(WEIGHTS))


def test_as_many_steps_as_weights() -> None:
    header = Header(SMALL.spec, "stosign", "fp32", Content.DELTA, 10)
    tensors = {spec.name: np.zeros(spec.shape, dtype=np.float32) for spec in header.specs}
    with pytest.raises(LocalProtocolError, match=f"1 steps for {len(WEIGHTS)} weights"):
        encode(header, tensors, np.random.default_rng(0), [1.0])
