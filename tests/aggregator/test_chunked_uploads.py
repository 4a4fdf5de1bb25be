"""Uploads in pieces: any order, cut off anywhere, damaged, too many at once."""

import pytest
from fleet import TOPICS, Fleet, Opener, offered, refused

from aggregator import handlers
from aggregator.uploads import MAX_FAILURES
from protocol.chunks import chunk_count
from protocol.messages import Need


def test_chunks_may_come_in_any_order_and_more_than_once(fleet: Fleet) -> None:
    ((a, offer),) = offered(fleet)
    payload = a.train(offer)
    a.announce(a.manifest(offer, payload))
    count = chunk_count(len(payload), 1024)
    assert count >= 3
    for number in [*reversed(range(1, count)), 1, 0]:
        a.send_chunk(offer.task, payload, number)
    assert a.receipt().outcome == "accepted"


def test_an_upload_cut_off_at_any_chunk_goes_on_from_there(open_fleet: Opener) -> None:
    """BF-024."""
    fleet = open_fleet()
    ((a, offer),) = offered(fleet)
    payload = a.train(offer)
    count = chunk_count(len(payload), 1024)
    a.announce(a.manifest(offer, payload))
    for number in range(count):
        assert a.missing(payload) == list(range(number, count))
        assert fleet.accepted() == []
        a.send_chunk(offer.task, payload, number)
        if number < count - 1:
            a.announce(a.manifest(offer, payload))
    assert a.receipt().outcome == "accepted"


def test_an_upload_cut_off_by_a_restart_is_asked_for_again(fleet: Fleet) -> None:
    ((a, offer),) = offered(fleet)
    payload = a.train(offer)
    a.announce(a.manifest(offer, payload))
    a.send_chunk(offer.task, payload, 0)
    fleet.restart()
    a.send_chunk(offer.task, payload, 1)  # nobody announced it to this process
    a.announce(a.manifest(offer, payload))
    assert a.missing(payload) == list(range(chunk_count(len(payload), 1024)))
    a.upload(offer, payload)
    assert a.receipt().outcome == "accepted"


@pytest.mark.parametrize("data", [b"", b"x", bytes(1025)])
def test_a_chunk_of_the_wrong_size_is_dropped_and_counted(fleet: Fleet, data: bytes) -> None:
    ((a, offer),) = offered(fleet)
    payload = a.train(offer)
    a.announce(a.manifest(offer, payload))
    handlers.on_message(fleet.room, TOPICS.chunk("0", "a", offer.task, 0), data)
    assert fleet.refusals() == {("a", "malformed"): 1}
    a.upload(offer, payload)
    assert a.receipt().outcome == "accepted"


def test_a_chunk_past_the_end_is_dropped_and_counted(fleet: Fleet) -> None:
    ((a, offer),) = offered(fleet)
    a.announce(a.manifest(offer, a.train(offer)))
    handlers.on_message(fleet.room, TOPICS.chunk("0", "a", offer.task, 999), bytes(1024))
    assert fleet.refusals() == {("a", "malformed"): 1}


def test_a_damaged_upload_is_asked_for_again_and_refused_the_third_time(fleet: Fleet) -> None:
    """BF-033."""
    ((a, offer),) = offered(fleet)
    payload = a.train(offer)
    damaged = payload[:-1] + bytes([payload[-1] ^ 1])
    count = chunk_count(len(payload), 1024)
    a.announce(a.manifest(offer, payload))
    for _ in range(MAX_FAILURES - 1):
        for number in range(count):
            a.send_chunk(offer.task, damaged, number)
        assert a.missing(payload) == list(range(count))
    for number in range(count):
        a.send_chunk(offer.task, damaged, number)
    refused(a, "wrong-digest")


def test_an_upload_damaged_once_is_accepted_when_it_comes_whole(fleet: Fleet) -> None:
    ((a, offer),) = offered(fleet)
    payload = a.train(offer)
    a.announce(a.manifest(offer, payload))
    for number in range(chunk_count(len(payload), 1024)):
        a.send_chunk(offer.task, bytes(len(payload)), number)
    for number in a.missing(payload):
        a.send_chunk(offer.task, payload, number)
    assert a.receipt().outcome == "accepted"


def test_uploads_beyond_the_quota_wait_without_an_answer(fleet: Fleet) -> None:
    (a, offer_a), (b, offer_b) = offered(fleet, "a", "b")
    payload = a.train(offer_a)
    fleet.room.uploads.quota_bytes = len(payload) + 10
    a.announce(a.manifest(offer_a, payload))
    b.announce(b.manifest(offer_b, b.train(offer_b)))
    fleet.deliver()
    assert len(a.take(Need)) == 1
    assert b.inbox == []
    a.upload(offer_a, payload)
    b.upload(offer_b, b.train(offer_b))
    assert fleet.accepted() == ["a", "b"]
