"""The log tells once of each thing that happens; as JSON with fields."""

import json
import logging
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from fleet import Fleet, offered, trained

from aggregator import changes, logs


def as_objects(records: list[logging.LogRecord]) -> list[dict[str, Any]]:
    form = logs.formatter(logs.JSON, "test")
    return [json.loads(form.format(record)) for record in records]


@pytest.fixture
def watched(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> Fleet:
    caplog.set_level(logging.INFO, logger="bitfleet.aggregator")
    changes.watch(fleet.room.store, logs.change)
    return fleet


def test_a_round_is_logged_with_its_fields(watched: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    trained(watched)
    lines = as_objects(caplog.records)
    assert [line["event"] for line in lines if line["event"].startswith("round")] == [
        f"round 1: {state}" for state in watched.states()
    ]
    (update,) = [line for line in lines if line["event"].startswith("update")]
    assert (update["fleet"], update["round"], update["device"], update["level"]) == ("test", 1, "a", "INFO")
    assert "code" not in update
    assert datetime.fromisoformat(update["time"]).tzinfo is not None
    assert sum(line["event"].startswith("model 1 at W8A8: exported") for line in lines) == 1


def test_a_refusal_is_logged_with_its_code(watched: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    ((device, offer),) = offered(watched)
    device.upload(offer, b"nonsense")
    (line,) = [line for line in as_objects(caplog.records) if line["event"].startswith("update")]
    assert line["level"] == "WARNING"
    assert line["code"] == device.receipt().refusal != ""


def test_an_error_keeps_its_traceback_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    try:
        Path("nowhere").read_bytes()
    except OSError:
        logging.getLogger("bitfleet.aggregator").exception("the round is held up")
    (line,) = as_objects(caplog.records)
    assert "FileNotFoundError" in line["exc_info"]


def test_text_is_for_people(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("bitfleet.aggregator").warning("broker lost")
    assert logs.formatter(logs.TEXT, "test").format(caplog.records[0]).endswith(" WARNING broker lost")
