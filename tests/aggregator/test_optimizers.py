"""Steps of the global weights, against the formulas on a few numbers, and in rounds of a real room."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from fleet import JOB, Opener

from aggregator import optimizers
from aggregator.model import GlobalModel
from aggregator.store import Round
from protocol.precision import Float32


def run(text: str, deltas: list[float]) -> list[float]:
    """How far one weight goes in each round."""
    optimizer = optimizers.parse(text)
    memory: Float32 = np.zeros((optimizer.slots, 1), dtype=np.float32)
    moved = []
    for delta in deltas:
        step, memory = optimizer.step(np.array([delta], dtype=np.float32), memory)
        moved.append(float(step[0]))
    return moved


def test_fedavg_goes_as_far_as_the_average() -> None:
    assert run("fedavg", [1.0, -2.0]) == [1.0, -2.0]


def test_fedavgm_goes_further_where_rounds_agree() -> None:
    assert run("fedavgm:0.5", [1.0, 1.0, 0.0]) == [1.0, 1.5, 0.75]


def test_fedadam_is_the_papers_formula() -> None:
    mean = square = 0.0
    expected = []
    for delta in (0.01, 0.02, -0.005):
        mean, square = 0.9 * mean + 0.1 * delta, 0.99 * square + 0.01 * delta**2
        expected.append(0.1 * mean / (square**0.5 + 1e-3))
    assert run("fedadam:0.1", [0.01, 0.02, -0.005]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "text", ["", "sgd", "fedavg:1", "fedavgm", "fedavgm:1", "fedavgm:-1", "fedadam:0", "fedadam:x"]
)
def test_what_is_no_optimizer_is_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(ValueError, match=r"optimizer = .*: expected fedavg, fedavgm:BETA"):
        replace(JOB, optimizer=text)


def deltas_of(models: list[GlobalModel]) -> list[Float32]:
    flat = [np.concatenate([value.reshape(-1) for value in model.shared.values()]) for model in models]
    return [after - before for before, after in pairwise(flat)]


def models_of(open_fleet: Opener, optimizer: str, *, restarts: bool = False) -> list[GlobalModel]:
    """The models of three rounds in which the device always sends the same."""
    fleet = open_fleet(replace(JOB, rounds=3, optimizer=optimizer))
    models = [fleet.model()]
    fleet.connected("a")
    for _ in range(3):
        if restarts:
            fleet.restart()
        fleet.complete()
        models.append(fleet.model())
    return models


def test_momentum_lasts_over_rounds_and_restarts_to_the_same_bits(open_fleet: Opener) -> None:
    plain, heavy = models_of(open_fleet, "fedavg"), models_of(open_fleet, "fedavgm:0.9")
    again = models_of(open_fleet, "fedavgm:0.9", restarts=True)
    first, second, _ = deltas_of(heavy)
    np.testing.assert_array_equal(first, deltas_of(plain)[0])
    assert np.abs(second - 0.9 * first).mean() < np.abs(second).mean()
    assert [model.to_bytes() for model in heavy] == [model.to_bytes() for model in again]


def test_the_average_itself_leaves_nothing_to_remember(open_fleet: Opener) -> None:
    fleet = open_fleet()
    fleet.connected("a")
    fleet.complete()
    assert fleet.rows(Round)[0].memory == ""
