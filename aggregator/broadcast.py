"""The way down over MQTT: what several devices of one width need is published once, and the broker spreads it.

It goes out when every offer of the round is with the broker, in pieces, at QoS 0: devices know name and length from
the offer, and fetch over HTTP what did not come.
"""

from collections.abc import Iterator

from sqlalchemy.orm import Session

from aggregator.blobs import BlobError
from aggregator.planning import OPEN_TASKS, offer_of, tasks_of
from aggregator.room import Room
from protocol.chunks import DEFAULT_CHUNK_BYTES, chunk_at, chunk_count


def packets(room: Room, session: Session, number: int) -> Iterator[tuple[str, bytes]]:
    """Topic and piece, one after the other, of everything that the open offers of a round call broadcast."""
    offers = [offer_of(task) for task in tasks_of(session, number) if task.state in OPEN_TASKS]
    for width, digest in sorted({(offer.precision, offer.newest.digest) for offer in offers if offer.broadcast}):
        try:
            payload = room.blobs.get(digest.hex())
        except BlobError:
            continue  # whoever wants it over HTTP is told what is wrong
        for piece in range(chunk_count(len(payload), DEFAULT_CHUNK_BYTES)):
            yield room.topics.model(width, digest, piece), chunk_at(payload, DEFAULT_CHUNK_BYTES, piece)
