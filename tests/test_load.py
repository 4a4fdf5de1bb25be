"""Virtual devices that come and go over a real broker: every update is merged once, late, or refused with a reason."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from programs import needs_mosquitto
from virtual import accountant, ledger
from virtual.stage import Stage

from aggregator.state_dir import DATABASE

pytestmark = [pytest.mark.chaos, needs_mosquitto]

NETWORK = "resnet18:width=0.0625,stem=3x3,input=1x8x8,classes=10"
JOB = {
    "architecture": NETWORK,
    "rounds": 2,
    "downlink": "delta:eden:4",
    "precisions": ["W4A8"],
    "min_devices": 10,
    "deadline_s": 3.0,
    "extension_s": 3.0,
}


def test_no_update_of_devices_that_come_and_go_is_lost_or_counted_twice(tmp_path: Path) -> None:
    """BF-021, BF-024, BF-025: and an accountant that finds nothing would find it if there were something."""
    with Stage(tmp_path, JOB) as stage:
        stage.populate(24, processes=2, churn=0.3, absence_s=2.0, training_s=0.5)
        stage.command("churn")
        stage.until(lambda: stage.told("departures") > 0 and _over(stage), "two rounds", within_s=90)
        stage.settle()
        stage.finish()
    events = ledger.read(stage.ledgers)
    verdict = accountant.judge(events, stage.state)
    assert verdict.faults == []
    assert verdict.sent == verdict.merged + verdict.late + verdict.refused.total() > 10
    assert verdict.rounds_equal == verdict.rounds == 2
    _spoil(stage.state)
    assert len(accountant.judge(events, stage.state).faults) >= 1
    assert len(accountant.judge([event for event in events if event.kind != "receipt"], stage.state).faults) > 10


def _over(stage: Stage) -> bool:
    status = stage.door.get("/api/v1/status")
    return bool(status["model_version"] == 2 and status["state"] == "announced")


def _spoil(state: Path) -> None:
    """An update that the books say was refused, though its device holds a receipt."""
    with closing(sqlite3.connect(state / DATABASE)) as connection, connection:
        connection.execute(
            "UPDATE updates SET accepted = 0 WHERE task = (SELECT task FROM updates WHERE accepted LIMIT 1)"
        )
