"""Who may say and hear what, as a Mosquitto access list; the table is `protocol/rights.py`."""

from protocol.envelope import AGGREGATOR
from protocol.rights import DEVICE_RIGHTS, Act

VERBS = {Act.PUBLISH: "write", Act.SUBSCRIBE: "read"}


def mosquitto_access(root: str) -> str:
    """The access list for everything below `root`: `%u` is the user, which is the certificate's common name."""
    lines = [f"user {AGGREGATOR}", f"topic readwrite {root}/#", ""]
    lines += [f"pattern {VERBS[right.act]} {right.filter(root, '%u')}" for right in DEVICE_RIGHTS]
    return "\n".join(lines) + "\n"
