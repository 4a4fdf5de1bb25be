import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LocalProtocolError, Malformed
from protocol.topics import Door, Topics, Upward, check_name

TOPICS = Topics("home")


@pytest.mark.parametrize("name", ["", "Pi", "a/b", "a+b", "#", "ä", "x" * 65, "aggregator", "a b"])
def test_a_name_outside_the_alphabet_is_refused_with_its_value(name: str) -> None:
    """BF-001."""
    with pytest.raises(LocalProtocolError, match="expected"):
        check_name(name, "device")


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        (TOPICS.device("pi-07", "state"), Upward(Door.STATE, "pi-07")),
        (TOPICS.device("pi-07", "birth"), Upward(Door.BIRTH, "pi-07")),
        (TOPICS.device("pi-07", "tele"), Upward(Door.TELEMETRY, "pi-07")),
        (TOPICS.response("pi-07", "t1"), Upward(Door.RESPONSE, "pi-07", "t1")),
        (TOPICS.manifest("s0", "pi-07", "t1"), Upward(Door.MANIFEST, "pi-07", "t1")),
        (TOPICS.chunk("s0", "pi-07", "t1", 12), Upward(Door.CHUNK, "pi-07", "t1", 12)),
    ],
)
def test_what_is_built_is_parsed_back(topic: str, expected: Upward) -> None:
    """BF-002."""
    assert TOPICS.parse_upward(topic) == expected


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "bitfleet/v1/home",
        "bitfleet/v1/home/srv/state",
        "bitfleet/v1/other/d/pi-07/state",
        "bitfleet/v1/home/d/pi-07/offer",
        "bitfleet/v1/home/d/PI/state",
        "bitfleet/v1/home/d//state",
        "bitfleet/v1/home/d/aggregator/state",
        "bitfleet/v1/home/up/s0/pi-07/t1/c/",
        "bitfleet/v1/home/up/s0/pi-07/t1/c/-1",
        "bitfleet/v1/home/up/s0/pi-07/t1/c/99999",
        "bitfleet/v1/home/up/s0/pi-07/t1/c/٣",
        "bitfleet/v1/home/up/s0/pi-07/t1/m/more",
    ],
)
def test_any_other_topic_is_refused(topic: str) -> None:
    """BF-002."""
    with pytest.raises(Malformed):
        TOPICS.parse_upward(topic)


@given(st.text())
def test_any_text_is_a_topic_of_ours_or_malformed(topic: str) -> None:
    """BF-002."""
    with contextlib.suppress(Malformed):
        TOPICS.parse_upward(topic)


def test_the_subscriptions_cover_what_the_other_side_publishes() -> None:
    """BF-002."""

    def matches(pattern: str, topic: str) -> bool:
        wanted, given_ = pattern.split("/"), topic.split("/")
        for position, part in enumerate(wanted):
            if part == "#":
                return True
            if position >= len(given_) or part not in {"+", given_[position]}:
                return False
        return len(wanted) == len(given_)

    upward = (
        *(TOPICS.device("pi", leaf) for leaf in ("state", "birth", "tele")),
        TOPICS.response("pi", "t"),
        TOPICS.manifest("s0", "pi", "t"),
        TOPICS.chunk("s0", "pi", "t", 3),
    )
    for topic in upward:
        assert any(matches(p, topic) for p in TOPICS.subscriptions_of_aggregator("s0"))
    downward = (TOPICS.server_state, TOPICS.round_state, TOPICS.device("pi", "offer"), TOPICS.receipt("pi", "t"))
    for topic in downward:
        assert any(matches(p, topic) for p in TOPICS.subscriptions_of_device("pi"))
        assert not any(matches(p, topic) for p in TOPICS.subscriptions_of_aggregator("s0"))
