"""The job: wrong values stop at the door, and schedules follow from it."""

from dataclasses import replace
from typing import Any

import pytest
from fleet import JOB

from protocol.errors import RemoteProtocolError
from protocol.precision import FP32, Precision


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rounds", -1),
        ("precisions", ()),
        ("precisions", (FP32, FP32)),
        ("epochs", 0),
        ("batch", 0),
        ("batch", 5000),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("learning_rate_decay", 1.5),
        ("min_devices", 0),
        ("quorum", 0.0),
        ("quorum", 1.01),
        ("deadline_s", 0.0),
        ("deadline_s", float("inf")),
        ("extension_s", -1.0),
        ("seed", -1),
        ("norm_limit", 0.0),
        ("allocate", "by hand"),
        ("recipes", ("stosign",)),
        ("recipes", ("uniform:04",)),
        ("epoch_choices", (0,)),
        ("rounds_per_day", -1.0),
        ("fleet_j_per_day", float("nan")),
        ("fleet_uplink_bytes", -1),
        ("min_per_precision", -1),
    ],
)
def test_a_value_out_of_bounds_is_named_with_what_was_expected(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"job {name} = .*: expected "):
        replace(JOB, **{name: value})


@pytest.mark.parametrize(("name", "value"), [("architecture", "resnet19"), ("recipe", "zip"), ("downlink", "sign")])
def test_an_unknown_architecture_recipe_or_downlink_is_refused(name: str, value: str) -> None:
    with pytest.raises(RemoteProtocolError, match=value):
        replace(JOB, **{name: value})


def test_a_precision_that_cannot_be_exported_is_refused() -> None:
    with pytest.raises(ValueError, match="W8A32"):
        replace(JOB, precisions=(Precision(8, 32),))


def test_learning_rate_decays_by_round() -> None:
    job = replace(JOB, learning_rate=0.1, learning_rate_decay=0.5)
    assert [job.learning_rate_for(number) for number in (1, 2, 3)] == [0.1, 0.05, 0.025]


def test_the_calibration_round_comes_after_the_last_and_trains_nothing() -> None:
    job = replace(JOB, rounds=3, epochs=2, calibrate_last=True)
    assert job.last_round == 4
    assert [job.epochs_for(number) for number in (1, 3, 4)] == [2, 2, 0]
    assert replace(job, calibrate_last=False).last_round == 3
    assert replace(job, rounds=0).last_round is None
    assert replace(job, rounds=0).epochs_for(1000) == 2


@pytest.mark.parametrize(
    ("quorum", "offered", "expected"), [(0.5, 6, 3), (0.5, 7, 4), (0.1, 30, 3), (0.01, 5, 1), (1.0, 4, 4), (0.7, 10, 7)]
)
def test_the_quorum_is_rounded_up_and_at_least_one(quorum: float, offered: int, expected: int) -> None:
    assert replace(JOB, quorum=quorum).quorum_of(offered) == expected


def test_in_the_calibration_round_every_device_measures_every_precision_that_was_trained() -> None:
    job = replace(JOB, rounds=3, calibrate_last=True, precisions=(Precision(8, 8), Precision(1, 8)))
    assert job.precisions_for(3, Precision(1, 8), {"W1A8"}) == (Precision(1, 8),)
    assert job.precisions_for(4, Precision(1, 8), {"W8A8", "W1A8"}) == job.precisions
    assert job.precisions_for(4, Precision(8, 8), {"W1A8"}) == (Precision(1, 8),)
    assert not job.calibrates_steps(4, {"W8A8", "W1A8"}, job.precisions)


def test_a_method_of_many_precisions_asks_every_device_for_all() -> None:
    job = replace(JOB, method="best", precisions=(Precision(1, 8), Precision(8, 8)))
    assert job.precisions_for(1, Precision(1, 8), set()) == (Precision(8, 8), Precision(1, 8))
    assert job.calibrates_steps(1, set(), job.precisions)
    assert not job.calibrates_steps(2, {"W8A8", "W1A8"}, job.precisions)


def test_a_fleet_that_trains_at_full_precision_calibrates_the_others_at_the_end() -> None:
    job = replace(JOB, method="kure", rounds=2, calibrate_last=True)
    assert job.precisions_for(2, Precision(8, 8), {"fp32"}) == (FP32,)
    assert job.calibrates_steps(3, {"fp32"}, job.precisions_for(3, Precision(8, 8), {"fp32"}))
    with pytest.raises(ValueError, match=r"job calibrate_last = False: expected true with method kure"):
        replace(job, calibrate_last=False)


@pytest.mark.parametrize("method", ["fbq", "apqn"])
def test_a_method_whose_networks_are_not_exported_is_for_simulations(method: str) -> None:
    with pytest.raises(ValueError, match=f"job method = '{method}'"):
        replace(JOB, method=method)


def test_a_width_that_nested_codes_do_not_have_is_refused_before_anything_is_trained() -> None:
    with pytest.raises(ValueError, match="job precisions: precision W7A8: nested codes have"):
        replace(JOB, architecture=f"{JOB.architecture},codes=nested", precisions=(Precision(7, 8),))


@pytest.mark.parametrize("recipe", ["eden:1", "stc:0.1", "uniform:1", "fp32"])
def test_a_vote_is_for_updates_of_one_bit(recipe: str) -> None:
    assert replace(JOB, recipe="ef+sign", vote=True).vote
    with pytest.raises(ValueError, match=r"job vote = True: expected false with recipe"):
        replace(JOB, recipe=recipe, vote=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"merge": "average"}, "job merge = 'average': expected mean, clip:NORM"),
        (
            {"merge": "median", "recipe": "ef+stc:0.01"},
            r"job merge = 'median': .* most values of ef\+stc:0.01 are zero",
        ),
        ({"merge": "trimmed:0.2", "recipe": "fp32", "recipes": ("topk:0.1",)}, "most values of topk:0.1 are zero"),
        ({"merge": "median", "rates": "best:0.1"}, "mean, a clip or Krum with rates best:0.1"),
        ({"merge": "clip:median", "vote": True}, "expected mean with a vote"),
        ({"merge": "krum:2", "min_devices": 6}, "job min_devices = 6: expected 7 or more with merge krum:2"),
        ({"quarantine": "1/3"}, "job quarantine = '1/3': expected off, or k/m"),
        ({"quarantine_rest_s": -1.0}, "job quarantine_rest_s = -1.0"),
    ],
)
def test_ways_of_merging_that_do_not_work_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(JOB, **given)


@pytest.mark.parametrize("merge", ["mean", "clip:median", "median", "trimmed:0.3", "multi-krum:0.3", "clip:1+krum:1"])
@pytest.mark.parametrize("recipe", ["ef+sign", "stosign", "eden:1", "fp32", "uniform:4+rc"])
def test_every_rule_goes_with_every_recipe_that_sends_all_values(merge: str, recipe: str) -> None:
    assert replace(JOB, merge=merge, recipe=recipe, min_devices=5).merge == merge
