"""The table of rights is SPEC.md's table of topics, seen from a device."""

import re
from pathlib import Path

from protocol.rights import ANY, DEVICE_RIGHTS, ID, Act

SPEC = Path(__file__).parents[2] / "protocol" / "SPEC.md"


def test_a_device_may_do_what_the_table_of_topics_says_and_nothing_else() -> None:
    """BF-095."""
    table = re.findall(r"^\| (`.+`) \| (aggregator|device)\b", SPEC.read_text(), re.MULTILINE)
    rows = [(topic, sender) for topics, sender in table for topic in re.findall("`([^`]+)`", topics)]
    assert len(rows) == 12
    said = {(Act.PUBLISH if sender == "device" else Act.SUBSCRIBE, _filter(topic)) for topic, sender in rows}
    assert {(right.act, right.filter("root", "pi-1")) for right in DEVICE_RIGHTS} == said


def _filter(topic: str) -> str:
    levels = [{ID: "pi-1"}.get(level, ANY if level.startswith("<") else level) for level in topic.split("/")]
    return "/".join(["root", *levels])
