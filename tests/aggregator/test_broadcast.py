"""One publish for all devices of a width: what goes out, when, and to whom."""

from dataclasses import replace
from hashlib import sha256

import pytest
from fleet import JOB, TOPICS, Fleet, Handset, Opener

from protocol.chunks import DEFAULT_CHUNK_BYTES
from protocol.messages import Offer, Status

DELTA = replace(JOB, downlink="delta:sign", rounds=0)
Published = list[tuple[str, bytes]]


@pytest.fixture
def published() -> Published:
    return []


@pytest.fixture
def fleet(open_fleet: Opener, published: Published) -> Fleet:
    return open_fleet(DELTA, broadcast=lambda topic, data: published.append((topic, data)))


def answer(*devices: Handset) -> list[Offer]:
    offers = [device.offer() for device in devices]
    for device, offer in zip(devices, offers, strict=True):
        device.upload(offer, device.train(offer))
    return offers


def test_every_width_is_published_once_behind_the_offers(fleet: Fleet, published: Published) -> None:
    """BF-034."""
    devices = fleet.connected("a", "b")
    others = fleet.connected("c", "d", "e", precisions=("W2A8",))
    fleet.until("offered")
    assert published == []
    fleet.run()
    for group in (devices, others):
        offer = answer(*group)[0]
        assert offer.broadcast
        pieces = [data for topic, data in published if topic.startswith(TOPICS.models(offer.precision)[:-3])]
        assert b"".join(pieces) == fleet.room.blobs.get(offer.newest.digest.hex())
        assert {len(piece) for piece in pieces[:-1]} <= {DEFAULT_CHUNK_BYTES}
    numbers = [topic.rpartition("/")[2] for topic, _ in published]
    assert len(published) == len({topic for topic, _ in published})
    assert numbers.count("0") == 2


def test_later_rounds_publish_the_step_alone(fleet: Fleet, published: Published) -> None:
    a, b = fleet.connected("a", "b")
    fleet.run()
    answer(a, b)
    published.clear()
    fleet.run()
    offer, _ = answer(a, b)
    assert sha256(b"".join(data for _, data in published)).digest() == offer.steps[-1].digest


def test_a_width_of_one_device_is_not_published(fleet: Fleet, published: Published) -> None:
    (a,) = fleet.connected("a")
    fleet.run()
    assert not a.offer().broadcast
    assert published == []


def test_an_offer_repeated_later_promises_nothing(fleet: Fleet) -> None:
    """BF-034: what was published is over by then."""
    a, _ = fleet.connected("a", "b")
    fleet.run()
    assert a.offer().broadcast
    a.say_state(Status.OFFLINE)
    a.connect()
    fleet.run()
    assert not a.offer().broadcast


def test_a_lost_blob_holds_nothing_up(fleet: Fleet, published: Published) -> None:
    a, _ = fleet.connected("a", "b")
    fleet.until("offered")
    fleet.deliver()
    fleet.room.blobs.path(a.offer().newest.digest.hex()).unlink()
    fleet.run()
    assert fleet.state() == "collecting"
    assert published == []
