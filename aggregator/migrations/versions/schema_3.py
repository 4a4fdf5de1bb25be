"""Schema 3: several jobs, groups, quarantine, late updates.

Keys of most tables begin with the job now, so each table is made anew and filled from the one before; whatever there
was belongs to the main job.
"""

from typing import Any, Final

import sqlalchemy as sa
from alembic import op

revision = "3"
down_revision = "2"

BEFORE: Final = (
    "devices",
    "energies",
    "facts",
    "models",
    "outbox",
    "refusals",
    "rounds",
    "steps",
    "tokens",
    "exports",
    "tasks",
    "updates",
)
"""Tables of schema 2, none before one that it refers to."""
FILLED: Final[dict[str, Any]] = {
    "made_at": 0.0,
    "group": "",
    "job": "main",
    "quarantined": "",
    "quarantined_at": 0.0,
    "quarantined_until": 0.0,
    "released_at": 0.0,
    "on_probation": False,
    "deadline_s": 0.0,
    "memory": "",
    "norm": 0.0,
    "doubt": "",
}
"""Values of columns that are new."""


def upgrade() -> None:
    """Make every table anew, and fill it."""
    connection = op.get_bind()
    for table in BEFORE:
        for index in sa.inspect(connection).get_indexes(table):
            op.drop_index(str(index["name"]), table)
        op.rename_table(table, f"{table}_2")
    _make()
    for table in BEFORE:
        _fill(connection, table)
    connection.execute(
        sa.text("INSERT INTO pauses (job, because) SELECT 'main', '' FROM facts_2 WHERE name = 'paused'")
    )
    connection.execute(sa.text("DELETE FROM facts WHERE name = 'paused'"))
    connection.execute(sa.text("UPDATE updates SET merged = round WHERE accepted"))
    for table in reversed(BEFORE):
        op.drop_table(f"{table}_2")


def _fill(connection: sa.Connection, table: str) -> None:
    old = sa.Table(f"{table}_2", sa.MetaData(), autoload_with=connection)
    new = sa.Table(table, sa.MetaData(), autoload_with=connection)
    fresh = [column.name for column in new.columns if column.name not in old.columns and column.name in FILLED]
    shared = [column.name for column in new.columns if column.name in old.columns]
    values = [*(old.columns[name] for name in shared), *(sa.literal(FILLED[name]) for name in fresh)]
    connection.execute(new.insert().from_select([*shared, *fresh], sa.select(*values)))


def _make() -> None:
    op.create_table(
        "devices",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("group", sa.String(), nullable=False),
        sa.Column("revoked", sa.Boolean(), nullable=False),
        sa.Column("joined_at", sa.Double(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("session", sa.Integer(), nullable=False),
        sa.Column("stamps", sa.JSON(), nullable=False),
        sa.Column("birth", sa.JSON(), nullable=False),
        sa.Column("telemetry", sa.JSON(), nullable=False),
        sa.Column("budget_j_per_day", sa.Double(), nullable=True),
        sa.Column("precision", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("decision", sa.JSON(), nullable=False),
        sa.Column("retry_at", sa.Double(), nullable=False),
        sa.Column("job", sa.String(), nullable=False),
        sa.Column("quarantined", sa.String(), nullable=False),
        sa.Column("quarantined_at", sa.Double(), nullable=False),
        sa.Column("quarantined_until", sa.Double(), nullable=False),
        sa.Column("released_at", sa.Double(), nullable=False),
        sa.Column("on_probation", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_devices_group"), "devices", ["group"], unique=False)
    op.create_index(op.f("ix_devices_job"), "devices", ["job"], unique=False)
    op.create_table(
        "energies",
        sa.Column("job", sa.String(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("energy_mj", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("job", "round", "device", "purpose", "source"),
    )
    op.create_index(op.f("ix_energies_device"), "energies", ["device"], unique=False)
    op.create_table(
        "facts",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "models",
        sa.Column("job", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("made_at", sa.Double(), nullable=False),
        sa.Column("precisions", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("job", "version"),
    )
    op.create_table(
        "outbox",
        sa.Column("job", sa.String(), nullable=False),
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("topic", sa.String(), nullable=False),
        sa.Column("message_type", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("retain", sa.Boolean(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("round", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_outbox_round"), "outbox", ["round"], unique=False)
    op.create_table(
        "pauses",
        sa.Column("job", sa.String(), nullable=False),
        sa.Column("because", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("job"),
    )
    op.create_table(
        "refusals",
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("refusal", sa.String(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("device", "refusal"),
    )
    op.create_table(
        "rounds",
        sa.Column("job", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "PLANNED",
                "OFFERED",
                "COLLECTING",
                "EXTENDED",
                "MERGING",
                "VALIDATING",
                "COMMITTED",
                "ANNOUNCED",
                "STARVED",
                "ABORTED",
                "ROLLED_BACK",
                name="roundstate",
                native_enum=False,
                length=24,
            ),
            nullable=False,
        ),
        sa.Column("base_version", sa.Integer(), nullable=False),
        sa.Column("opened_at", sa.Double(), nullable=False),
        sa.Column("deadline_at", sa.Double(), nullable=False),
        sa.Column("closed_at", sa.Double(), nullable=True),
        sa.Column("candidate", sa.String(), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("coding", sa.JSON(), nullable=False),
        sa.Column("deadline_s", sa.Double(), nullable=False),
        sa.Column("memory", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("job", "number"),
    )
    op.create_table(
        "steps",
        sa.Column("job", sa.String(), nullable=False),
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("precision", sa.String(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("before", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("payload_bytes", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("state_bytes", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_steps_precision"), "steps", ["precision"], unique=False)
    op.create_table(
        "tokens",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("uses_left", sa.Integer(), nullable=False),
        sa.Column("made_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("group", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_table(
        "exports",
        sa.Column("job", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("precision", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("model_bytes", sa.Integer(), nullable=False),
        sa.Column("accuracy", sa.Double(), nullable=True),
        sa.Column("pictures", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job", "version"],
            ["models.job", "models.version"],
        ),
        sa.PrimaryKeyConstraint("job", "version", "precision"),
    )
    op.create_table(
        "tasks",
        sa.Column("job", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "OFFERED",
                "UPLOADING",
                "ACCEPTED",
                "REFUSED",
                "DECLINED",
                "MISSED",
                name="taskstate",
                native_enum=False,
                length=24,
            ),
            nullable=False,
        ),
        sa.Column("precision", sa.String(), nullable=False),
        sa.Column("recipe", sa.String(), nullable=False),
        sa.Column("base", sa.String(), nullable=False),
        sa.Column("nonce", sa.LargeBinary(), nullable=False),
        sa.Column("offer", sa.LargeBinary(), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["device"],
            ["devices.id"],
        ),
        sa.ForeignKeyConstraint(
            ["job", "round"],
            ["rounds.job", "rounds.number"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_tasks_device"), "tasks", ["device"], unique=False)
    op.create_index(op.f("ix_tasks_round"), "tasks", ["round"], unique=False)
    op.create_table(
        "updates",
        sa.Column("job", sa.String(), nullable=False),
        sa.Column("task", sa.String(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("accepted", sa.Boolean(), nullable=False),
        sa.Column("refusal", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("payload_bytes", sa.Integer(), nullable=False),
        sa.Column("fp32_bytes", sa.Integer(), nullable=False),
        sa.Column("merged", sa.Integer(), nullable=True),
        sa.Column("samples", sa.Integer(), nullable=False),
        sa.Column("loss", sa.Double(), nullable=False),
        sa.Column("accuracy", sa.Double(), nullable=False),
        sa.Column("train_s", sa.Double(), nullable=False),
        sa.Column("energy_mj", sa.Double(), nullable=False),
        sa.Column("energy_source", sa.String(), nullable=False),
        sa.Column("received_at", sa.Double(), nullable=False),
        sa.Column("norm", sa.Double(), nullable=False),
        sa.Column("doubt", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["task"],
            ["tasks.id"],
        ),
        sa.PrimaryKeyConstraint("task"),
    )
    op.create_index(op.f("ix_updates_device"), "updates", ["device"], unique=False)
    op.create_index(op.f("ix_updates_merged"), "updates", ["merged"], unique=False)
    op.create_index(op.f("ix_updates_round"), "updates", ["round"], unique=False)
    _make_who()


def _make_who() -> None:
    """Who waits, who was certified, who may steer, and who did."""
    op.create_table(
        "applicants",
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("group", sa.String(), nullable=False),
        sa.Column("asked_at", sa.Double(), nullable=False),
        sa.Column("rejected", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("device"),
    )
    op.create_table(
        "certificates",
        sa.Column("serial", sa.String(), nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("pem", sa.String(), nullable=False),
        sa.Column("issued_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("serial"),
    )
    op.create_index(op.f("ix_certificates_device"), "certificates", ["device"], unique=False)
    op.create_table(
        "users",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("made_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sa.UniqueConstraint("digest"),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("who", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("object", sa.String(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
