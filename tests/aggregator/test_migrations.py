"""Databases of earlier schemas: brought to the newest one with all that is in them, or left as they were."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from edge_command import ROOT
from fleet import Fleet
from sqlalchemy import create_engine, select

from aggregator import migrations
from aggregator.migrations.versions import schema_2
from aggregator.store import (
    MAIN,
    SCHEMA,
    Base,
    Device,
    Model,
    Pause,
    Round,
    RoundState,
    Store,
    StoreError,
    Task,
    Update,
)

ROWS = {
    "facts": {"name": "paused", "value": b"1"},
    "devices": {
        "id": "pi",
        "public_key": b"k",
        "revoked": 0,
        "joined_at": 1.0,
        "seen_at": 2.0,
        "status": "online",
        "session": 3,
        "stamps": "{}",
        "birth": json.dumps({"samples": 7}),
        "telemetry": "{}",
        "precision": "W8A8",
        "reason": "why",
        "decision": "{}",
        "retry_at": 0.0,
    },
    "rounds": {
        "number": 1,
        "state": "ANNOUNCED",
        "base_version": 0,
        "opened_at": 1.0,
        "deadline_at": 2.0,
        "candidate": "c",
        "note": "",
        "coding": "{}",
    },
    "models": {"version": 1, "digest": "m", "made_at": 4.0, "precisions": '["W8A8"]'},
    "tasks": {
        "id": "t",
        "round": 1,
        "device": "pi",
        "state": "ACCEPTED",
        "precision": "W8A8",
        "recipe": "sign",
        "base": "b",
        "nonce": b"n",
        "offer": b"o",
        "note": "",
    },
    "updates": {
        "task": "t",
        "round": 1,
        "device": "pi",
        "accepted": 1,
        "refusal": "",
        "reason": "",
        "digest": "d",
        "payload_bytes": 5,
        "fp32_bytes": 6,
        "samples": 7,
        "loss": 0.5,
        "accuracy": 0.25,
        "train_s": 1.0,
        "energy_mj": 2.0,
        "energy_source": "measured",
        "received_at": 3.0,
    },
}
"""What a fleet of schema 2 had after one round."""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A database as the version before wrote it."""
    path = tmp_path / "fleet.db"
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        with Operations.context(context):
            schema_2.upgrade()
        connection.commit()
    engine.dispose()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        for table, row in ROWS.items():
            marks = ", ".join("?" * len(row))
            connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", list(row.values()))
        connection.execute("PRAGMA user_version = 2")
        connection.commit()
    return path


def test_migrations_make_the_tables_that_the_store_describes(old: Path, tmp_path: Path) -> None:
    for path in (old, tmp_path / "new.db"):
        store = Store(path)
        with store.engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, Base.metadata) == [], path
        store.close()


def test_everything_of_an_older_database_belongs_to_the_main_job(old: Path) -> None:
    store = Store(old)
    with store.of(MAIN).reading() as session:
        assert session.get_one(Device, "pi").birth == {"samples": 7}
        assert session.get_one(Round, 1).state is RoundState.ANNOUNCED
        assert session.get_one(Model, 1).precisions == ["W8A8"]
        assert session.get_one(Pause, ()).because == ""
        task, update = session.get_one(Task, "t"), session.get_one(Update, "t")
        assert (task.job, update.samples, update.merged, update.norm) == (MAIN, 7, 1, 0.0)
        assert session.scalars(select(Device.job)).all() == [MAIN]
    store.close()


def test_the_database_stays_beside_as_it_was(old: Path) -> None:
    before = old.read_bytes()
    Store(old).close()
    kept = old.with_name("fleet.db.schema-2")
    with closing(sqlite3.connect(kept)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        assert connection.execute("SELECT count(*) FROM updates").fetchone() == (1,)
    assert len(before) <= kept.stat().st_size
    assert not old.with_name("fleet.db.upgrading").exists()
    Store(old).close()


def test_a_migration_that_is_killed_loses_nothing(old: Path) -> None:
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom aggregator import migrations\n"
        "os.link = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "migrations.replace_by_upgraded(Path(sys.argv[1]), '2')\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(old)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert old.with_name("fleet.db.upgrading").exists(), "it died with its work done and not yet in place"
    store = Store(old)
    with store.reading() as session:
        assert session.get_one(Update, "t").digest == "d"
    store.close()


def test_where_the_disk_refuses_the_database_is_as_it_was(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OSError, match="No space left"):
        migrations.replace_by_upgraded(old, "2")
    monkeypatch.undo()
    with closing(sqlite3.connect(old)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)


def test_a_schema_from_the_future_is_refused(fleet: Fleet) -> None:
    path = fleet.room.store.path
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9'")
        connection.commit()
    with pytest.raises(StoreError, match=f"schema 9: this version reads {SCHEMA}, and makes that of 2"):
        Store(path)
