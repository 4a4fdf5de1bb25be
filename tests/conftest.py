"""One place for what every test relies on."""

import os

import pytest
from hypothesis import HealthCheck, settings
from programs import PROGRAMS, find

CI = os.environ.get("CI") == "true"

settings.register_profile(
    "bitfleet",
    deadline=None,  # neighbours on the machine are noisy; a slow example is not a failure
    suppress_health_check=[
        HealthCheck.too_slow,  # for the same reason
        HealthCheck.differing_executors,  # contract classes run one method for many codecs, on purpose
    ],
    derandomize=CI,  # CI judges the change, not the day's luck
    max_examples=50 if CI else 100,  # the same ones every time: twice as many would find little more
)
settings.load_profile("bitfleet")


LONG = ("chaos", "demo", "long")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first: whoever got it last would keep the other workers waiting."""
    items.sort(key=lambda item: not any(item.get_closest_marker(name) for name in LONG))


def pytest_configure() -> None:
    """In CI nothing may be skipped because a program is missing."""
    missing = [program for program in PROGRAMS if find(program) is None]
    if CI and missing:
        raise pytest.UsageError(f"CI lacks {', '.join(missing)}: .ci/run installs what the suite needs")
