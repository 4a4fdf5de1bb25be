"""The outbox: rows of a transaction, in order, until they are done."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from strategies import messages

from aggregator import outbox
from aggregator.store import MAIN, Store
from protocol.errors import LocalProtocolError
from protocol.messages import Message, RoundState


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "fleet.db").of(MAIN)
    yield opened
    opened.close()


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(message=messages)
def test_any_message_comes_back_from_its_row(store: Store, message: Message) -> None:
    with store.transaction() as session:
        outbox.post(session, "topic", message, expires_at=5.0)
    with store.transaction() as session:
        (row,) = outbox.pending(session)
        assert (outbox.message_of(row), row.topic, row.retain, row.expires_at) == (message, "topic", False, 5.0)
        outbox.done(session, row.id)
    with store.transaction() as session:
        assert outbox.pending(session) == []


def test_messages_stay_in_the_order_they_were_posted(store: Store) -> None:
    with store.transaction() as session:
        for number in range(5):
            outbox.post(session, "topic", RoundState(number, "planned", 0))
    with store.reading() as session:
        assert [outbox.message_of(row).round for row in outbox.pending(session)] == list(range(5))


def test_a_transaction_that_fails_posts_nothing(store: Store) -> None:
    def fail() -> None:
        with store.transaction() as session:
            outbox.post(session, "topic", RoundState(1, "planned", 0))
            session.flush()
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        fail()
    with store.reading() as session:
        assert outbox.pending(session) == []


def test_a_retained_message_replaces_the_unsent_one_of_its_topic(store: Store) -> None:
    with store.transaction() as session:
        for number in range(3):
            outbox.post(session, "round", RoundState(number, "planned", 0), retain=True)
        outbox.post(session, "other", RoundState(9, "planned", 0), retain=True)
    with store.reading() as session:
        assert [outbox.message_of(row).round for row in outbox.pending(session)] == [2, 9]


def test_a_round_waits_for_its_own_rows_alone(store: Store) -> None:
    with store.transaction() as session:
        outbox.post(session, "topic", RoundState(1, "planned", 0), round=1)
        outbox.post(session, "topic", RoundState(1, "planned", 0))
        session.flush()
        assert outbox.waiting(session, 1)
        assert not outbox.waiting(session, 2)
        outbox.done(session, outbox.pending(session)[0].id)
        assert not outbox.waiting(session, 1)


def test_forgetting_a_row_twice_is_no_error(store: Store) -> None:
    with store.transaction() as session:
        outbox.done(session, 12345)


def test_nonsense_is_not_posted(store: Store) -> None:
    def post() -> None:
        with store.transaction() as session:
            outbox.post(session, "topic", RoundState(-1, "planned", 0))

    with pytest.raises(LocalProtocolError, match=r"RoundState\.round"):
        post()
