"""The API keeps its own description: whatever a client sends, the answer is one of those that /openapi.json names.

Schemathesis makes requests from the description, good and bad ones, and checks status, type and body of each answer.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from desks import ADMIN, desk_of
from fleet import Fleet
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case
from schemathesis.generation import GenerationMode

from aggregator.app import build_app

EXAMPLES = 6
"""Of each operation and kind; more would find little more, and take longer."""
STREAM = "/api/v1/events"
"""It has no end to wait for; test_feed reads it."""
ANYTHING = {"/api/v1/blobs/{digest}", "/api/v1/updates/{task}", "/api/v1/tokens/{token}", "/metrics"}
"""They take any text, so that nothing is bad, which is long looked for."""
SETTINGS = settings(
    max_examples=EXAMPLES,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The application of a fleet that has trained a round; commands run at once."""
    fleet = Fleet(tmp_path_factory.mktemp("schema"))
    devices = fleet.connected("pi-1", "pi-2")
    fleet.until("collecting")
    for device in devices:
        device.deliver_update()
    fleet.run()
    yield build_app(desk_of(fleet))
    fleet.room.store.close()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_answer_is_one_that_is_described(app: Any, mode: GenerationMode) -> None:
    asked = set()
    for found in schemathesis.openapi.from_asgi("/openapi.json", app).get_all_operations():
        operation = found.ok()
        if operation.path == STREAM or (mode is GenerationMode.NEGATIVE and operation.path in ANYTHING):
            continue

        @SETTINGS
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Case) -> None:
            if mode is GenerationMode.POSITIVE and case.query:
                case.query.pop("cursor", None)  # no description says which are good; test_paging does
            case.call_and_validate(headers=ADMIN)
            asked.add(case.operation.label)

        try:
            ask()
        except Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE, operation.label
    assert {"GET /api/v1/rounds", "POST /api/v1/tokens", "PUT /api/v1/devices/{name}/budget"} <= asked
    assert len(asked) >= (24 if mode is GenerationMode.POSITIVE else 12)
