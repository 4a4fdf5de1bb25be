"""From the schema that a database has to the one that `aggregator.store` describes, one step a file in `versions`.

Alembic runs the steps (MIT, by the author of SQLAlchemy) and keeps the number in its table `alembic_version`. SQLite
cannot undo a change of tables as one, so a copy is migrated and then takes the database's place by a rename; the old
file stays beside it. Killed at any moment, either the old or the new database is there, whole.
"""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine

from export.files import sync_folder


def upgrade(connection: Connection, have: str) -> None:
    """Bring the tables to the newest schema.

    Args:
        connection: to a database, outside any transaction.
        have: the schema that it has.
    """
    script = ScriptDirectory(str(Path(__file__).parent))
    context = EnvironmentContext(Config(), script)
    context.configure(
        connection=connection,
        fn=lambda revision, _: script._upgrade_revs("head", revision or have),  # noqa: SLF001 (as alembic.command does)
        render_as_batch=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def replace_by_upgraded(database: Path, have: str) -> Path:
    """Migrate a SQLite file that nobody has open.

    Returns:
        Where the file is now as it was.

    Raises:
        OSError: the disk is full or failing; the database is as it was.
    """
    kept, fresh = (database.with_name(f"{database.name}.{what}") for what in (f"schema-{have}", "upgrading"))
    fresh.unlink(missing_ok=True)
    with closing(sqlite3.connect(database)) as old, closing(sqlite3.connect(fresh)) as new:
        old.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # a journal left behind would be played into the new file
        old.backup(new)
    engine = create_engine(f"sqlite:///{fresh}")
    with engine.connect() as connection:
        upgrade(connection, have)
        connection.commit()
    engine.dispose()
    kept.unlink(missing_ok=True)
    os.link(database, kept)
    fresh.replace(database)
    sync_folder(database.parent)
    return kept
