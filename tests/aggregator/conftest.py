"""A fleet on a fresh disk for every test that asks for one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet import JOB, Fleet, Opener

from aggregator.job import Job


@pytest.fixture
def open_fleet(tmp_path: Path) -> Iterator[Opener]:
    """Opens fleets, each in its own folder, and closes their databases."""
    opened: list[Fleet] = []

    def open_(job: Job = JOB, **surroundings: Any) -> Fleet:
        folder = tmp_path / f"fleet{len(opened)}"
        folder.mkdir()
        opened.append(Fleet(folder, job, **surroundings))
        return opened[-1]

    yield open_
    for fleet in opened:
        fleet.room.store.close()


@pytest.fixture
def fleet(open_fleet: Opener) -> Fleet:
    """One fleet with the standard job: one round."""
    return open_fleet()
