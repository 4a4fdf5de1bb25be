"""A device against its own history."""

import pytest

from aggregator.allocate.history import believe
from protocol.messages import Cost, EnergySource


def measured(energy_mj: float, precision: str = "W4A8") -> Cost:
    return Cost(precision, 5.0, energy_mj, EnergySource.MEASURED)


def test_the_first_measurement_is_believed() -> None:
    found = believe([measured(4.1)], {})
    assert (found.energy_mj, found.doubts) == ({"W4A8": 4.1}, ())


@pytest.mark.parametrize("now_mj", [0.42, 2.0, 4.1, 40.0])
def test_what_is_within_ten_times_replaces_what_was_before(now_mj: float) -> None:
    assert believe([measured(now_mj)], {"W4A8": 4.1}).energy_mj == {"W4A8": now_mj}


@pytest.mark.parametrize(("now_mj", "word"), [(41.0, "more"), (0.41, "less"), (1e15, "more")])
def test_ten_times_is_flagged_and_not_believed(now_mj: float, word: str) -> None:
    found = believe([measured(now_mj), measured(8.0, "W8A8")], {"W4A8": 4.1})
    assert found.energy_mj == {"W4A8": 4.1, "W8A8": 8.0}
    (doubt,) = found.doubts
    assert doubt.startswith(f"W4A8 at {now_mj:.3g} mJ is ")
    assert f"{word} than the 4.1 mJ it measured before: not believed" in doubt


def test_what_is_modelled_or_nothing_is_no_measurement() -> None:
    modelled = Cost("W4A8", 5.0, 100.0, EnergySource.MODELLED)
    assert believe([modelled, measured(0.0, "W8A8")], {"W4A8": 4.1}).energy_mj == {"W4A8": 4.1}
