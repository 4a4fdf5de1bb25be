"""The board for Grafana, as data: which figures, in which panels, in which rows."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BOARD = Path(__file__).parents[2] / "docs" / "grafana" / "bitfleet.json"
SOURCE = {"type": "prometheus", "uid": "${source}"}
WIDTH = 24
HEIGHTS = {"stat": 4, "timeseries": 8, "bargauge": 8}


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: a title, queries with their legends, and a unit as Grafana names it."""

    title: str
    queries: dict[str, str]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    stacked: bool = False


ROWS: dict[str, list[Panel]] = {
    "Fleet": [
        Panel("Devices online", {"": 'sum(bitfleet_devices{state="online"})'}, kind="stat", width=4),
        Panel("Round", {"{{job}}": "bitfleet_round_number"}, kind="stat", width=4),
        Panel("Model version", {"{{job}}": "bitfleet_model_version"}, kind="stat", width=4),
        Panel(
            "Uplink smaller than fp32 by",
            {"": 'bitfleet_update_bytes_total{form="fp32"} / ignoring(form) bitfleet_update_bytes_total{form="sent"}'},
            "x",
            kind="stat",
            width=4,
        ),
        Panel("Energy", {"": "sum(bitfleet_energy_joules_total)"}, "joule", kind="stat", width=4),
        Panel("Broker", {"": "bitfleet_broker_connected"}, "bool_on_off", kind="stat", width=4),
        Panel("Devices by state", {"{{state}}": "sum by (state) (bitfleet_devices)"}, stacked=True),
        Panel("Devices by precision", {"{{precision}}": "sum by (precision) (bitfleet_devices)"}, stacked=True),
        Panel("Rounds by state", {"{{state}}": "sum by (state) (bitfleet_rounds)"}, stacked=True),
    ],
    "Learning": [
        Panel("Accuracy", {"{{job}} {{precision}}": "bitfleet_model_accuracy"}, "percentunit"),
        Panel(
            "Updates an hour, by outcome",
            {"{{code}}": "sum by (code) (increase(bitfleet_updates_total[1h]))"},
            stacked=True,
        ),
        Panel(
            "Messages refused an hour", {"{{code}}": "sum by (code) (increase(bitfleet_refused_messages_total[1h]))"}
        ),
        Panel("Bytes up", {"{{form}}": "rate(bitfleet_update_bytes_total[$__rate_interval])"}, "Bps"),
        Panel("Bytes that devices tell", {"{{direction}}": "bitfleet_device_bytes"}, "bytes"),
        Panel("Model files", {"{{job}} {{precision}}": "bitfleet_model_bytes"}, "bytes", kind="bargauge"),
    ],
    "Energy": [
        Panel(
            "Watts, by purpose",
            {"{{purpose}}": "sum by (purpose) (rate(bitfleet_energy_joules_total[1h]))"},
            "watt",
            width=12,
            stacked=True,
        ),
        Panel(
            "Joules, measured and modelled",
            {"{{source}}": "sum by (source) (bitfleet_energy_joules_total)"},
            "joule",
            width=12,
        ),
    ],
    "Aggregator": [
        Panel(
            "Seconds of a step, 9 of 10",
            {"{{step}}": "histogram_quantile(0.9, sum by (step, le) (rate(bitfleet_step_seconds_bucket[1h])))"},
            "s",
        ),
        Panel("Coordinator", {"lag": "bitfleet_coordinator_lag_seconds"}, "s"),
        Panel("Waiting", {"events": "bitfleet_coordinator_queue_length", "messages": "bitfleet_outbox_messages"}),
        Panel("Memory", {"resident": "process_resident_memory_bytes"}, "bytes"),
        Panel("Disk", {"free": "bitfleet_disk_free_bytes", "database": "bitfleet_database_bytes"}, "bytes"),
        Panel("Rounds paused", {"{{job}}": "bitfleet_paused"}, "bool_yes_no"),
    ],
}


def board() -> dict[str, Any]:
    """The board as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        panels.append(_row(title, len(panels), top))
        top += 1
        left = height = 0
        for panel in row:
            if left + panel.width > WIDTH:
                left, top, height = 0, top + height, 0
            panels.append(_panel(panel, len(panels), left, top))
            left, height = left + panel.width, max(height, HEIGHTS[panel.kind])
        top += height
    choice = {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    return {
        "uid": "bitfleet",
        "title": "bitfleet",
        "tags": ["bitfleet"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [choice]},
        "panels": panels,
    }


def _row(title: str, number: int, top: int) -> dict[str, Any]:
    place = {"x": 0, "y": top, "w": WIDTH, "h": 1}
    return {"id": number + 1, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}


def _panel(panel: Panel, number: int, left: int, top: int) -> dict[str, Any]:
    queries = [
        {"refId": chr(ord("A") + place), "expr": query, "legendFormat": legend or "__auto", "datasource": SOURCE}
        for place, (legend, query) in enumerate(panel.queries.items())
    ]
    custom = {"fillOpacity": 20, "stacking": {"mode": "normal"}} if panel.stacked else {"fillOpacity": 0}
    return {
        "id": number + 1,
        "type": panel.kind,
        "title": panel.title,
        "datasource": SOURCE,
        "gridPos": {"x": left, "y": top, "w": panel.width, "h": HEIGHTS[panel.kind]},
        "targets": queries,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": custom}, "overrides": []},
    }


def text() -> str:
    """The file's content."""
    return json.dumps(board(), indent=1) + "\n"


if __name__ == "__main__":
    BOARD.parent.mkdir(parents=True, exist_ok=True)
    BOARD.write_text(text())
