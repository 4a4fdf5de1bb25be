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


def test_broadcasts_have_topics_by_width() -> None:
    """BF-034."""
    topic = TOPICS.model("W8A8+W1A8", bytes(31) + b"\xff", 7)
    assert topic == "bitfleet/v1/home/model/w8a8-w1a8/" + "00" * 31 + "ff/7"
    assert TOPICS.models("W8A8+W1A8") == "bitfleet/v1/home/model/w8a8-w1a8/+/+"
    assert TOPICS.parse_model(topic) == (bytes(31) + b"\xff", 7)
    assert TOPICS.parse_model(TOPICS.server_state) is None


@pytest.mark.parametrize(
    "tail", ["", "w8a8", f"w8a8/{'00' * 32}", "w8a8/00/1", f"w8a8/{'00' * 32}/x", f"w8a8/{'00' * 32}/99999"]
)
def test_a_spoiled_topic_of_a_broadcast_is_malformed(tail: str) -> None:
    with pytest.raises(Malformed):
        TOPICS.parse_model(f"bitfleet/v1/home/model/{tail}")


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
    downward = (TOPICS.server_state, TOPICS.round_state(), TOPICS.device("pi", "offer"), TOPICS.receipt("pi", "t"))
    for topic in downward:
        assert any(matches(p, topic) for p in TOPICS.subscriptions_of_device("pi"))
        assert not any(matches(p, topic) for p in TOPICS.subscriptions_of_aggregator("s0"))
