"""What must be published, as rows: written in the transaction that decided it, deleted when the broker has it.

Rows hold the message unsealed; whoever sends one seals it with the server's key and a fresh stamp. A row that is
sent twice (killed between publishing and deleting) does no harm: every message is idempotent.

`expires_at` is for the broker, which drops an undelivered message after it. A row that could not be sent before its
time is still sent, with the shortest expiry: better late than never decided.
"""

import msgpack
from sqlalchemy import delete, exists, select
from sqlalchemy.orm import Session

from aggregator.store import Outgoing
from protocol.messages import NUMBERS, TYPES, Message
from protocol.schema import from_map, to_map, unpack_map


def post(
    session: Session,
    topic: str,
    message: Message,
    *,
    retain: bool = False,
    expires_at: float | None = None,
    round: int | None = None,  # noqa: A002 (the domain's word)
) -> None:
    """Add a message to the outbox of this transaction.

    Args:
        session: the transaction that decides it.
        topic: where to publish.
        message: what to publish.
        retain: keep it at the broker; it then replaces an unsent retained message of the same topic.
        expires_at: wall-clock second after which the broker may drop it.
        round: the round that waits until this is sent.

    Raises:
        LocalProtocolError: a field of the message is out of bounds.
    """
    if retain:
        session.execute(delete(Outgoing).where(Outgoing.topic == topic, Outgoing.retain))
    row = Outgoing(topic=topic, message_type=NUMBERS[type(message)], body=msgpack.packb(to_map(message)))
    row.retain, row.expires_at, row.round = retain, expires_at, round
    session.add(row)


def pending(session: Session, after: int = 0) -> list[Outgoing]:
    """Everything unsent whose number is above `after`, oldest first."""
    return list(session.scalars(select(Outgoing).where(Outgoing.id > after).order_by(Outgoing.id)))


def message_of(row: Outgoing) -> Message:
    """The message a row holds."""
    message: Message = from_map(TYPES[row.message_type], unpack_map(row.body))
    return message


def done(session: Session, *ids: int) -> None:
    """Forget rows that the broker has acknowledged; one already gone is no error."""
    session.execute(delete(Outgoing).where(Outgoing.id.in_(ids)))


def waiting(session: Session, number: int) -> bool:
    """Whether round `number` still waits for a message to be sent."""
    return bool(session.scalar(select(exists().where(Outgoing.round == number))))
