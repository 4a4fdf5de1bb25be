"""Several jobs side by side: each has its devices, rounds and models, and none sees another's."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fleet import JOB, Fleet, Opener
from sqlalchemy import delete, func, select

from aggregator import handlers, rounds
from aggregator.handlers import CommandRefused
from aggregator.store import MAIN, InJob, Model, Outgoing, Pause, Round, RoundState, Store, Task
from protocol.messages import ModelOffer, Offer

NIGHT = replace(JOB, groups=("cellar",), rounds=2, seed=5)


@pytest.fixture
def both(open_fleet: Opener) -> Fleet:
    """A fleet with two jobs, and a device for each."""
    fleet = open_fleet(jobs={"night": NIGHT})
    fleet.join("day-1", "night-1")
    handlers.set_group(fleet.room, "night-1", "cellar")
    for device in fleet.handsets.values():
        device.connect()
    return fleet


def test_each_job_trains_its_own_model_with_its_own_devices(both: Fleet) -> None:
    for _ in range(2):
        both.complete()
    (day,), night = (both.room.rooms[name] for name in (MAIN,)), both.room.rooms["night"]
    with day.store.reading() as session, night.store.reading() as other:
        assert session.scalars(select(Model.version)).all() == [0, 1]
        assert other.scalars(select(Model.version)).all() == [0, 1, 2]
        assert {task.device for task in session.scalars(select(Task))} == {"day-1"}
        assert {task.device for task in other.scalars(select(Task))} == {"night-1"}
        assert session.get_one(Model, 1).digest != other.get_one(Model, 1).digest
    offers = [message for message in both.handsets["night-1"].inbox if isinstance(message, ModelOffer)]
    assert {offer.version for offer in offers} == {1, 2}


def test_offers_and_rounds_name_their_job_but_for_the_main_one(both: Fleet) -> None:
    both.run()
    assert [device.take(Offer)[-1].job for device in both.handsets.values()] == ["", "night"]


def test_a_job_that_rests_does_not_hold_up_another(both: Fleet) -> None:
    handlers.pause(both.room.rooms["night"])
    both.run()
    with both.room.store.of(None).reading() as session:
        assert [row.job for row in session.scalars(select(Round))] == [MAIN]
        assert session.get_one(Pause, "night").because == ""
    handlers.resume(both.room.rooms["night"])
    both.run()
    assert len(both.handsets["night-1"].take(Offer)) == 1


def test_a_device_that_changes_its_group_leaves_its_task_and_gets_the_other_jobs_model(both: Fleet) -> None:
    both.run()
    offer = both.handsets["night-1"].take(Offer)[-1]
    handlers.set_group(both.room, "night-1", "")
    assert both.device("night-1").job == MAIN
    with both.room.store.of(None).reading() as session:
        assert session.get_one(Task, offer.task).state.value == "missed"
    both.handsets["night-1"].upload(offer, both.handsets["night-1"].train(offer))
    assert both.accepted() == []
    assert both.refusals() == {("night-1", "unknown-task"): 1}
    both.handsets["day-1"].deliver_update()
    both.run()
    (model,) = both.handsets["night-1"].take(ModelOffer)
    assert model.version == 1


@pytest.mark.parametrize("group", ["Cellar", "a b", "x" * 65])
def test_a_group_has_a_name_like_a_device(both: Fleet, group: str) -> None:
    with pytest.raises(CommandRefused, match="group"):
        handlers.set_group(both.room, "day-1", group)


def test_devices_of_a_job_that_is_gone_work_for_the_main_one_after_the_next_start(both: Fleet) -> None:
    both.run()
    del both.jobs["night"]
    both.restart()
    assert both.device("night-1").job == MAIN
    for device in both.handsets.values():
        device.connect()
    both.run()
    assert both.state() == "collecting"


def test_a_job_goes_on_after_a_restart_where_it_was(both: Fleet) -> None:
    both.run()
    both.restart()
    for _ in range(3):
        both.complete()
    with both.room.rooms["night"].store.reading() as session:
        assert session.scalar(select(func.max(Model.version))) == 2


# --- what a session sees ---


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A database with a round and a message of each of two jobs."""
    opened = Store(tmp_path / "fleet.db")
    for name in (MAIN, "night"):
        with opened.of(name).transaction() as session:
            session.add(Round(number=1, state=RoundState.PLANNED, base_version=0, opened_at=0.0))
            session.add(Outgoing(topic=name, message_type=1, body=b""))
    yield opened
    opened.close()


def test_a_session_sees_its_own_job_alone(store: Store) -> None:
    with store.of("night").reading() as session:
        assert session.get_one(Round, 1).job == "night"
        assert session.scalar(select(func.count()).select_from(Round)) == 1
        assert session.scalars(select(Outgoing.topic)).all() == ["night"]
    with store.reading() as session:
        assert session.get_one(Round, (MAIN, 1)).job == MAIN
        assert session.scalar(select(func.count()).select_from(Round)) == 2


def test_a_session_deletes_in_its_own_job_alone(store: Store) -> None:
    with store.of("night").transaction() as session:
        session.execute(delete(Outgoing).where(Outgoing.id > 0))
    with store.reading() as session:
        assert session.scalars(select(Outgoing.topic)).all() == [MAIN]


def test_everything_that_belongs_to_rounds_belongs_to_a_job() -> None:
    tables = {cls.__tablename__ for cls in InJob.__subclasses__() if hasattr(cls, "__tablename__")}
    assert {"tasks", "updates", "steps", "outbox"} <= tables
    assert all("job" in table.columns for table in Round.metadata.tables.values() if "round" in table.columns)


def test_rounds_of_one_job_move_while_another_waits(both: Fleet) -> None:
    both.run()
    both.handsets["day-1"].deliver_update()
    both.run()
    with both.room.store.of(None).reading() as session:
        states = {row.job: row.state.value for row in session.scalars(select(Round))}
    assert states == {MAIN: "announced", "night": "collecting"}
    assert not rounds.advance(both.room.rooms["night"])
