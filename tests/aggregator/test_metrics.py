"""Figures for Prometheus agree with the store, keep their labels to short lists, and are on the Grafana board."""

from typing import Any

import grafana
import httpx
import promql_parser
import pytest
from desks import ADMIN, desk_of, is_problem
from fleet import Fleet, trained
from prometheus_client.parser import text_string_to_metric_families as parse
from prometheus_client.samples import Sample

from aggregator import handlers, readers
from aggregator.app import build_app, serve_http
from aggregator.metrics import Metrics
from aggregator.store import Export

LABELS = {"job", "state", "precision", "purpose", "source", "code", "form", "direction", "step", "le"}
PLATFORM = {"version", "implementation", "major", "minor", "patchlevel"}


def metrics_of(fleet: Fleet) -> Metrics:
    return Metrics(fleet.room, connected=lambda: True, waiting=lambda: 5, lag_s=lambda: 0.25)


@pytest.fixture
def samples(fleet: Fleet) -> list[Sample]:
    """What a scrape of a fleet brings that has trained a round, and has a stranger and a revoked device."""
    metrics = metrics_of(fleet)
    fleet.room.timed = metrics.timed
    trained(fleet)
    handlers.on_message(fleet.room, "bitfleet/v1/test/d/nobody/state", b"nonsense")
    fleet.join("b")
    handlers.revoke(fleet.room, "b")
    with fleet.room.store.transaction() as session:
        session.get_one(Export, (1, "W8A8")).accuracy = 0.9
    with serve_http(build_app(desk_of(fleet, registry=metrics.registry)), "127.0.0.1", 0) as url:
        text = httpx.get(f"{url}/metrics", trust_env=False).text
    return [sample for family in parse(text) for sample in family.samples]


def value(samples: list[Sample], name: str, **labels: str) -> float:
    (found,) = [sample.value for sample in samples if sample.name == f"bitfleet_{name}" and sample.labels == labels]
    return found


def test_the_figures_are_those_of_the_store(samples: list[Sample], fleet: Fleet) -> None:
    assert value(samples, "rounds", job="main", state="announced") == 1
    assert value(samples, "updates_total", code="accepted") == 1
    assert value(samples, "devices", state="online", precision="W8A8") == 1
    assert value(samples, "devices", state="revoked", precision="undecided") == 1
    assert (value(samples, "model_version", job="main"), value(samples, "round_number", job="main")) == (1, 1)
    ((_, code),) = fleet.refusals()
    assert value(samples, "model_accuracy", job="main", precision="W8A8") == 0.9
    assert value(samples, "refused_messages_total", code=code) == 1
    with fleet.room.store.reading() as session:
        ledger, _ = readers.energy_view(session, None, None)
        (update,) = readers.update_views(session).rows
    assert value(samples, "update_bytes_total", form="sent") == update.payload_bytes
    assert value(samples, "update_bytes_total", form="fp32") == update.fp32_bytes
    for total in ledger.totals:
        joules = value(samples, "energy_joules_total", purpose=total.purpose, source=total.source)
        assert joules == pytest.approx(total.energy_mj / 1000)


def test_the_figures_are_those_of_the_process(samples: list[Sample]) -> None:
    assert (value(samples, "coordinator_queue_length"), value(samples, "coordinator_lag_seconds")) == (5, 0.25)
    assert (value(samples, "broker_connected"), value(samples, "paused", job="main")) == (1, 0)
    assert value(samples, "disk_free_bytes") > 1e6
    assert value(samples, "database_bytes") > 1e4
    for step in ("merge", "export"):
        assert value(samples, "step_seconds_count", step=step) == 1
        assert 0 < value(samples, "step_seconds_sum", step=step) < 60
    assert any(sample.name == "process_resident_memory_bytes" and sample.value > 1e7 for sample in samples)


def test_no_label_grows_with_the_fleet(samples: list[Sample]) -> None:
    for sample in samples:
        assert set(sample.labels) <= (PLATFORM if sample.name.startswith("python_info") else LABELS), sample
        assert not {"a", "b", "nobody"} & set(sample.labels.values()), sample


def test_figures_need_the_token_where_reading_does(fleet: Fleet) -> None:
    with serve_http(build_app(desk_of(fleet, open_reads=False)), "127.0.0.1", 0) as url:
        is_problem(httpx.get(f"{url}/metrics", trust_env=False), 401, "admin-token")
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        answer = httpx.get(f"{url}/metrics", headers=ADMIN | accept, trust_env=False)
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert answer.text.endswith("# EOF\n")


# --- the board ---


def test_the_board_is_what_its_script_writes_and_asks_for_figures_that_exist(samples: list[Sample]) -> None:
    assert grafana.BOARD.read_text() == grafana.text(), "run scripts/grafana"
    names = {sample.name for sample in samples}
    labels = {sample.name: set(sample.labels) for sample in samples}
    panels = [panel for panel in grafana.board()["panels"] if panel["type"] != "row"]
    asked = set()
    for query in (target["expr"] for panel in panels for target in panel["targets"]):
        for selector in selectors(promql_parser.parse(query.replace("$__rate_interval", "5m"))):
            assert selector.name in names, f"{query}: no such figure"
            matched = {matcher.name for matcher in selector.matchers.matchers}
            assert matched <= labels[selector.name], f"{query}: no such label"
            asked.add(selector.name)
    ours = {
        name for name in names if name.startswith("bitfleet_") and not name.endswith(("_created", "_sum", "_count"))
    }
    assert asked - {"process_resident_memory_bytes"} == ours, "every figure of ours is on the board"


def selectors(query: Any) -> list[Any]:
    """Every selection of series in a query."""
    if isinstance(query, promql_parser.VectorSelector):
        return [query]
    if isinstance(query, promql_parser.MatrixSelector):
        return [query.vector_selector]
    parts = [getattr(query, name, None) for name in ("expr", "lhs", "rhs")] + list(getattr(query, "args", []) or [])
    return [found for part in parts if part is not None for found in selectors(part)]


def test_the_panels_do_not_cover_one_another() -> None:
    cells = set()
    for panel in grafana.board()["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert x < grafana.WIDTH
                assert (x, y) not in cells, panel["title"]
                cells.add((x, y))
