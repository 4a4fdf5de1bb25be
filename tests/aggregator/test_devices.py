"""What devices say of themselves, and who can be asked to work."""

from collections.abc import Callable
from typing import Any

import pytest
from fleet import Fleet

from aggregator import devices
from protocol.messages import Cost, EnergySource, Status


def available(fleet: Fleet) -> list[str]:
    with fleet.room.store.reading() as session:
        return [device.id for device in devices.available(session, fleet.room.job, fleet.clock.wall())]


@pytest.mark.parametrize(
    "birth", [{"trains": False}, {"samples": 0}, {"codecs": ("fp32",)}, {"codecs": ("sign",)}, {"precisions": ()}]
)
def test_a_device_that_cannot_do_the_job_is_not_available(fleet: Fleet, birth: dict[str, Any]) -> None:
    a, _ = fleet.connected("a", "b")
    a.say_birth(**birth)
    assert available(fleet) == ["b"]


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.ONLINE])
def test_a_device_that_is_not_online_is_not_available(fleet: Fleet, status: Status) -> None:
    a, _ = fleet.connected("a", "b")
    a.say_state(status)
    assert available(fleet) == ["b"]
    a.say_state(Status.ONLINE)
    assert available(fleet) == ["a", "b"]


def test_a_member_that_never_introduced_itself_is_not_available(fleet: Fleet) -> None:
    (a,) = fleet.join("a")
    a.say_state(Status.ONLINE)
    assert available(fleet) == []


def test_a_clock_set_back_keeps_no_device_away_for_longer_than_it_may_ask(fleet: Fleet) -> None:
    a, _ = fleet.connected("a", "b")
    fleet.run()
    a.decline(a.offer(), retry_after_s=60.0)
    assert available(fleet) == ["b"]
    fleet.clock.wall_s -= 30 * 86400.0
    assert available(fleet) == ["a", "b"]


@pytest.fixture
def with_costs(fleet: Fleet) -> Callable[..., list[Cost]]:
    def state(*costs: Cost) -> list[Cost]:
        (a,) = fleet.connected("a")
        a.say_birth(costs=costs)
        return devices.costs(fleet.device("a"))

    return state


def test_costs_come_back_as_they_were_stated(with_costs: Callable[..., list[Cost]]) -> None:
    measured = Cost("W8A8", 1.5, 0.25, EnergySource.MEASURED)
    modelled = Cost("W1A8", 1.0, 0.125, EnergySource.MODELLED)
    assert with_costs(measured, modelled) == [measured, modelled]
