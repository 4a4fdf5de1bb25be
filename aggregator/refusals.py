"""What was turned away, counted by sender and stable code."""

from sqlalchemy.orm import Session

from aggregator.store import Device, RefusalCount
from protocol.errors import Refusal

UNKNOWN = ""
"""Stands for every sender that is no member: names that strangers make up must not fill the table."""


def count(session: Session, device: str, refusal: Refusal) -> None:
    """Count one refusal."""
    name = device if session.get(Device, device) is not None else UNKNOWN
    row = session.get(RefusalCount, (name, refusal.value))
    if row is None:
        session.add(RefusalCount(device=name, refusal=refusal.value, count=1))
        session.flush()
    else:
        row.count += 1
