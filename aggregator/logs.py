"""The log, a line for each thing that happens: in words for people, or as JSON with fields for programs.

As JSON every line is an object with `time`, `level`, `event` (the words) and `fleet`, and where they are known `job`,
`round`, `device` and `code`.
"""

import logging
import sys
from typing import Any, Final

from pythonjsonlogger.json import JsonFormatter

from aggregator.changes import Change
from aggregator.store import MAIN

TEXT: Final = "text"
JSON: Final = "json"
FORMATS: Final = (TEXT, JSON)
FIELDS: Final = ("job", "round", "device", "code")

log = logging.getLogger("bitfleet.aggregator")


def set_up(form: str, fleet: str) -> None:
    """Write the log of this process to standard error.

    Args:
        form: one of `FORMATS`.
        fleet: the fleet's name, in every object.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(form, fleet))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def formatter(form: str, fleet: str) -> logging.Formatter:
    """How a line is written."""
    if form == TEXT:
        return logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    names = {"timestamp": "time", "levelname": "level", "message": "event"}
    return JsonFormatter(
        "%(levelname)s %(message)s", rename_fields=names, static_fields={"fleet": fleet}, timestamp=True
    )


def change(told: Change) -> None:
    """Write a line for a change that somebody may look for later."""
    facts = told.facts
    match told.kind:
        case "round":
            log.info("%sround %d: %s", _job(facts), facts["round"], facts["state"], extra=_fields(facts))
        case "update" if facts["accepted"]:
            words = "update of %s for round %d: accepted, %d bytes"
            log.info(words, facts["device"], facts["round"], facts["payload_bytes"], extra=_fields(facts))
        case "update":
            words = "update of %s for round %d: refused, %s"
            log.warning(words, facts["device"], facts["round"], facts["code"], extra=_fields(facts))
        case "export":
            log.info("model %d at %s: exported, %d bytes", facts["version"], facts["precision"], facts["model_bytes"])
        case "fleet":
            log.info("%srounds are %s", _job(facts), "paused" if facts["paused"] else "opened", extra=_fields(facts))


def _job(facts: dict[str, Any]) -> str:
    """What tells jobs apart; nothing for the main one, which most fleets have alone."""
    return "" if facts["job"] == MAIN else f"job {facts['job']}, "


def _fields(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: facts[name] for name in FIELDS if facts.get(name)}
