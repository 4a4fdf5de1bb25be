"""What a device says of itself is what it measured, unless its own past says that it cannot be."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from edge_support import SPEC
from measure_support import document, measured

from edge.measure.document import Plan
from edge.measure.energy import CallEnergy
from edge.measure.history import HISTORY_FILE, KEPT, Entry, costs_for_birth, entries_of, read_history, remember
from edge.measure.subject import Kind
from protocol.messages import Cost, EnergySource

MODELLED, MEASURED = EnergySource.MODELLED, EnergySource.MEASURED
ENTRY = Entry("2026-01-01T00:00:00+00:00", SPEC, "W8A8", 5.0, 2.0, MEASURED)
INSTALLED = (Cost("W8A8", 6.0, 3.0, MODELLED), Cost("fp32", 12.0, 9.0, MODELLED))


def test_the_birth_carries_the_newest_measurement_and_what_was_never_measured_as_installed(tmp_path: Path) -> None:
    assert costs_for_birth(tmp_path, INSTALLED, SPEC) == INSTALLED
    remember(tmp_path, [ENTRY])
    remember(tmp_path, [replace(ENTRY, latency_ms=5.5)])
    assert costs_for_birth(tmp_path, INSTALLED, SPEC) == (Cost("W8A8", 5.5, 2.0, MEASURED), INSTALLED[1])
    assert costs_for_birth(tmp_path, INSTALLED, "another network") == INSTALLED
    assert costs_for_birth(tmp_path, (), SPEC) == (Cost("W8A8", 5.5, 2.0, MEASURED),)


@pytest.mark.parametrize("odd", [{"latency_ms": 51.0}, {"latency_ms": 0.49}, {"energy_mj": 21.0}, {"energy_mj": 0.0}])
def test_ten_times_off_its_own_history_is_flagged_and_not_believed_until_it_repeats(
    tmp_path: Path, odd: dict[str, float]
) -> None:
    remember(tmp_path, [ENTRY, replace(ENTRY, precision="fp32")])
    strange = replace(ENTRY, **odd)
    (flagged,) = remember(tmp_path, [strange])
    assert "where this device's own history says" in flagged.flag
    assert {cost.latency_ms for cost in costs_for_birth(tmp_path, (), SPEC)} == {5.0}
    (again,) = remember(tmp_path, [strange])
    assert again.flag == ""
    assert strange.cost in costs_for_birth(tmp_path, (), SPEC)
    assert remember(tmp_path, [strange])[0].flag == "", "the past before it no longer counts"
    assert [entry.precision for entry in read_history(tmp_path)].count("fp32") == 1


def test_two_strange_figures_that_do_not_agree_confirm_nothing(tmp_path: Path) -> None:
    remember(tmp_path, [ENTRY])
    assert remember(tmp_path, [replace(ENTRY, latency_ms=60.0)])[0].flag
    assert remember(tmp_path, [replace(ENTRY, latency_ms=300.0)])[0].flag
    assert remember(tmp_path, [replace(ENTRY, latency_ms=6.0)])[0].flag == ""


def test_a_person_may_say_that_it_is_right(tmp_path: Path) -> None:
    remember(tmp_path, [ENTRY])
    assert remember(tmp_path, [replace(ENTRY, latency_ms=60.0)], believe=True)[0].flag == ""
    assert costs_for_birth(tmp_path, (), SPEC)[0].latency_ms == 60.0


def test_measured_and_modelled_energy_are_never_compared(tmp_path: Path) -> None:
    """The model counts arithmetic, a rail everything: a factor of ten between them is no surprise."""
    remember(tmp_path, [replace(ENTRY, energy_mj=0.01, source=MODELLED)])
    assert remember(tmp_path, [ENTRY])[0].flag == ""


def test_just_below_ten_times_is_believed(tmp_path: Path) -> None:
    remember(tmp_path, [ENTRY])
    assert remember(tmp_path, [replace(ENTRY, latency_ms=49.0, energy_mj=0.21)])[0].flag == ""


def test_the_file_stays_small_and_a_damaged_one_is_set_aside(tmp_path: Path) -> None:
    for number in range(KEPT + 3):
        remember(tmp_path, [replace(ENTRY, latency_ms=5.0 + number / 1000)])
    assert len(read_history(tmp_path)) == KEPT
    path = tmp_path / HISTORY_FILE
    whole = path.read_bytes()
    for damaged in (whole[:100], b"[]", json.dumps({"schema": "x", "entries": [{"when": 1}]}).encode()):
        path.write_bytes(damaged)
        assert costs_for_birth(tmp_path, INSTALLED, SPEC) == INSTALLED
        remember(tmp_path, [ENTRY])
        assert read_history(tmp_path) == [ENTRY]
        assert path.with_name(f"{HISTORY_FILE}.damaged").read_bytes() == damaged


def test_only_what_the_agent_itself_does_becomes_a_cost() -> None:
    one = measured([5.0] * 3)
    run = document(
        one,
        measured([9.0] * 3, "W8A8, batch 8", batch=8),
        measured([9.0] * 3, "training", kind=Kind.TRAINING),
        measured([7.0] * 3, "W8A8, batch 1 #2"),
        measured([], "W4A8", precision="W4A8"),
    )
    (entry,) = entries_of(run)
    assert (entry.precision, entry.latency_ms, entry.energy_mj, entry.source) == ("W8A8", 5.0, 0.5, MODELLED)
    assert list(entries_of(replace(run, plan=Plan(threads=2)))) == []
    assert len(list(entries_of(replace(run, plan=Plan(threads=2)), threads=2))) == 1


def test_energy_that_was_not_resolved_is_modelled_and_says_so() -> None:
    unresolved = CallEnergy(MEASURED, 300.0, None, 300.0, 300.0, "idle power moved")
    (entry,) = entries_of(document(replace(measured([5.0] * 3), energy=unresolved)))
    assert (entry.energy_mj, entry.source) == (0.5, MODELLED)
    resolved = CallEnergy(MEASURED, 300.0, 100.0, 90.0, 110.0, "")
    (entry,) = entries_of(document(replace(measured([5.0] * 3), energy=resolved)))
    assert (entry.energy_mj, entry.source) == (100.0, MEASURED)
