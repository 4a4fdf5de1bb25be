"""Everything the aggregator must remember, as tables. Truth lives here and in the agents' outboxes, nowhere else.

SQLite in WAL mode with `synchronous=FULL`: a transaction that returned is on disk. One thread writes (the
coordinator); HTTP readers open their own sessions. Times are wall-clock seconds since 1970.

Devices, tokens and what is to be sent belong to the fleet; rounds, models and updates to one of its jobs. A session of
`Store.of(job)` sees and makes those of its job alone, so that no query can forget to ask.
"""

import copy
import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from sqlalchemy import (
    JSON,
    Connection,
    Engine,
    Enum,
    ForeignKey,
    ForeignKeyConstraint,
    LargeBinary,
    create_engine,
    event,
    inspect,
    text,
)
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    ORMExecuteState,
    Session,
    mapped_column,
    sessionmaker,
    with_loader_criteria,
)
from sqlalchemy.pool import NullPool

SCHEMA: Final = "3"
"""The newest file of `migrations`; what is below must be what those make."""
UPGRADED: Final = frozenset({"2"})
"""Schemas that can be brought to this one."""
MAIN: Final = "main"
"""The job that every fleet has."""

log = logging.getLogger("bitfleet.aggregator")


class StoreError(Exception):
    """The database cannot be used; the message says why and what to do."""


class RoundState(StrEnum):
    """States of a round; the legal moves are in `rounds.MOVES`."""

    PLANNED = "planned"
    OFFERED = "offered"
    COLLECTING = "collecting"
    EXTENDED = "extended"
    MERGING = "merging"
    VALIDATING = "validating"
    COMMITTED = "committed"
    ANNOUNCED = "announced"
    STARVED = "starved"
    ABORTED = "aborted"
    ROLLED_BACK = "rolled-back"


class TaskState(StrEnum):
    """What became of an offer."""

    OFFERED = "offered"
    UPLOADING = "uploading"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    DECLINED = "declined"
    MISSED = "missed"


class Base(DeclarativeBase):
    """The one schema."""

    # SQLAlchemy reads this mapping from the class.
    type_annotation_map = {  # noqa: RUF012
        dict[str, Any]: JSON,
        list[str]: JSON,
        bytes: LargeBinary,
        StrEnum: Enum(StrEnum, native_enum=False, length=24),  # as text: a new state is no new schema
    }


class InJob:
    """What belongs to one job; a session of another one does not see it."""

    job: Mapped[str] = mapped_column(sort_order=-1)


class NamedInJob(InJob):
    """What is told apart within its job only: `JobSession.get` adds the job to its name."""

    job: Mapped[str] = mapped_column(primary_key=True, sort_order=-1)


BOOT: Final = "boot"
"""The fact that counts starts: the first half of every stamp, so that nothing said earlier can be replayed."""


class Fact(Base):
    """Single values: boot counter, when writing was last tried."""

    __tablename__ = "facts"
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[bytes]


class Pause(NamedInJob, Base):
    """While it is there, its job opens no further round."""

    __tablename__ = "pauses"
    because: Mapped[str] = mapped_column(default="")
    """Empty where an operator wants it."""


class Token(Base):
    """A join token, by the SHA-256 of its secret."""

    __tablename__ = "tokens"
    digest: Mapped[bytes] = mapped_column(primary_key=True)
    uses_left: Mapped[int]
    made_at: Mapped[float] = mapped_column(default=0.0)
    expires_at: Mapped[float]
    note: Mapped[str] = mapped_column(default="")
    group: Mapped[str] = mapped_column(default="")
    """Into which group a device comes that joins with it."""


class Applicant(Base):
    """A device that showed a good token and waits for an operator's word; None of its messages is heard."""

    __tablename__ = "applicants"
    device: Mapped[str] = mapped_column(primary_key=True)
    public_key: Mapped[bytes]
    group: Mapped[str] = mapped_column(default="")
    asked_at: Mapped[float]
    rejected: Mapped[bool] = mapped_column(default=False)


class Certificate(Base):
    """A certificate that the fleet's authority gave a device."""

    __tablename__ = "certificates"
    serial: Mapped[str] = mapped_column(primary_key=True)
    """In hex."""
    device: Mapped[str] = mapped_column(index=True)
    pem: Mapped[str]
    issued_at: Mapped[float]
    expires_at: Mapped[float]
    revoked_at: Mapped[float | None] = mapped_column(default=None)


class User(Base):
    """Somebody who may use the HTTP door, by the SHA-256 of their token."""

    __tablename__ = "users"
    name: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str]
    digest: Mapped[bytes] = mapped_column(unique=True)
    made_at: Mapped[float]


class Audit(Base):
    """Who commanded what, and what became of it."""

    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[float]
    who: Mapped[str]
    role: Mapped[str]
    action: Mapped[str]
    object: Mapped[str]
    """What it was done to: a device, a token, a round, …; empty for the fleet."""
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)
    outcome: Mapped[str]
    """`done`, or why it was refused."""


class Device(Base):
    """A member of the fleet: identity, what it said of itself, and what was decided for it."""

    __tablename__ = "devices"
    id: Mapped[str] = mapped_column(primary_key=True)
    public_key: Mapped[bytes]
    group: Mapped[str] = mapped_column(default="", index=True)
    """Set by the token it joined with, or by hand; empty for none."""
    revoked: Mapped[bool] = mapped_column(default=False)
    joined_at: Mapped[float]
    seen_at: Mapped[float] = mapped_column(default=0.0)
    status: Mapped[str] = mapped_column(default="offline")
    session: Mapped[int] = mapped_column(default=-1)
    stamps: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """The replay guard: newest [boot, sequence] by message type number."""
    birth: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """The fields of its last `Birth`, digests as hex; empty before the first."""
    telemetry: Mapped[dict[str, Any]] = mapped_column(default=dict)
    budget_j_per_day: Mapped[float | None] = mapped_column(default=None)
    """The operator's budget; None leaves the one the device states."""
    precision: Mapped[str] = mapped_column(default="")
    reason: Mapped[str] = mapped_column(default="")
    """Why it got this precision, in a sentence."""
    decision: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """The inputs of that decision, for `explain`."""
    retry_at: Mapped[float] = mapped_column(default=0.0)
    """No offer before this time: it declined and said when to come back."""
    job: Mapped[str] = mapped_column(default=MAIN, index=True)
    """The job it works for."""
    quarantined: Mapped[str] = mapped_column(default="")
    """Why it is asked no more; empty while it is."""
    quarantined_at: Mapped[float] = mapped_column(default=0.0)
    quarantined_until: Mapped[float] = mapped_column(default=0.0)
    """0 until an operator releases it."""
    released_at: Mapped[float] = mapped_column(default=0.0)
    """What it did before counts no more."""
    on_probation: Mapped[bool] = mapped_column(default=False)
    """Time alone let it in again."""


class Round(NamedInJob, Base):
    """One round of training."""

    __tablename__ = "rounds"
    number: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[RoundState]
    base_version: Mapped[int]
    opened_at: Mapped[float]
    deadline_at: Mapped[float] = mapped_column(default=0.0)
    closed_at: Mapped[float | None] = mapped_column(default=None)
    candidate: Mapped[str] = mapped_column(default="")
    """Digest of the merged model before it is committed."""
    note: Mapped[str] = mapped_column(default="")
    coding: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """What `pacing` decided and saw; empty where nothing is adapted."""
    deadline_s: Mapped[float] = mapped_column(default=0.0)
    """How long it collects, as was decided when it opened."""
    memory: Mapped[str] = mapped_column(default="")
    """Digest of what the optimizer remembers after this round; empty for nothing."""


class Task(InJob, Base):
    """One offer to one device in one round."""

    __tablename__ = "tasks"
    __table_args__ = (ForeignKeyConstraint(["job", "round"], ["rounds.job", "rounds.number"]),)
    id: Mapped[str] = mapped_column(primary_key=True)
    round: Mapped[int] = mapped_column(index=True)
    device: Mapped[str] = mapped_column(ForeignKey("devices.id"), index=True)
    state: Mapped[TaskState]
    precision: Mapped[str]
    recipe: Mapped[str]
    base: Mapped[str]
    nonce: Mapped[bytes]
    offer: Mapped[bytes]
    """The offer's fields as msgpack, so that it can be sent again unchanged."""
    note: Mapped[str] = mapped_column(default="")


class Update(InJob, Base):
    """The journal: every update that was judged, once. `digest` names its payload among the blobs."""

    __tablename__ = "updates"
    task: Mapped[str] = mapped_column(ForeignKey("tasks.id"), primary_key=True)
    round: Mapped[int] = mapped_column(index=True)
    device: Mapped[str] = mapped_column(index=True)
    accepted: Mapped[bool]
    refusal: Mapped[str] = mapped_column(default="")
    reason: Mapped[str] = mapped_column(default="")
    digest: Mapped[str]
    payload_bytes: Mapped[int]
    fp32_bytes: Mapped[int] = mapped_column(default=0)
    """What the same update would weigh under recipe `fp32`."""
    merged: Mapped[int | None] = mapped_column(default=None, index=True)
    """The round whose model it went into."""
    samples: Mapped[int]
    loss: Mapped[float]
    accuracy: Mapped[float]
    train_s: Mapped[float]
    energy_mj: Mapped[float]
    energy_source: Mapped[str]
    received_at: Mapped[float]
    norm: Mapped[float] = mapped_column(default=0.0)
    """Euclidean norm of its deltas; 0 where it was refused before that was known."""
    doubt: Mapped[str] = mapped_column(default="")
    """How it stood out when its round was merged, in a sentence; empty where it did not."""


class Energy(NamedInJob, Base):
    """What a round cost one device for one purpose, measured or modelled."""

    __tablename__ = "energies"
    round: Mapped[int] = mapped_column(primary_key=True)
    device: Mapped[str] = mapped_column(primary_key=True, index=True)
    purpose: Mapped[str] = mapped_column(primary_key=True)
    source: Mapped[str] = mapped_column(primary_key=True)
    energy_mj: Mapped[float]


class Model(NamedInJob, Base):
    """A committed global model; version n was made by round n, version 0 by initialization."""

    __tablename__ = "models"
    version: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str]
    made_at: Mapped[float]
    precisions: Mapped[list[str]] = mapped_column(default=list)
    """Which precisions it has a trained profile for."""


class BaseStep(InJob, Base):
    """A step of the base model for one set of precisions: which payload leads from which state to which."""

    __tablename__ = "steps"
    id: Mapped[int] = mapped_column(primary_key=True)
    precision: Mapped[str] = mapped_column(index=True)
    round: Mapped[int]
    before: Mapped[str]
    """The state it starts from, empty for none."""
    digest: Mapped[str]
    payload_bytes: Mapped[int]
    state: Mapped[str]
    """Where it leads, a blob too."""
    state_bytes: Mapped[int]


class Export(NamedInJob, Base):
    """An ONNX file of a model version at one precision, checked before it was written."""

    __tablename__ = "exports"
    __table_args__ = (ForeignKeyConstraint(["job", "version"], ["models.job", "models.version"]),)
    version: Mapped[int] = mapped_column(primary_key=True)
    precision: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str]
    model_bytes: Mapped[int]
    accuracy: Mapped[float | None] = mapped_column(default=None)
    pictures: Mapped[int]
    """On how many pictures it was compared with the integer reference."""


class Outgoing(InJob, Base):
    """What must be published: written in the transaction that decided it, deleted after the broker took it."""

    __tablename__ = "outbox"
    # A number is never used again: the late acknowledgement of a replaced row must not delete its successor.
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012 (SQLAlchemy's own form)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    topic: Mapped[str]
    message_type: Mapped[int]
    body: Mapped[bytes]
    retain: Mapped[bool] = mapped_column(default=False)
    expires_at: Mapped[float | None] = mapped_column(default=None)
    round: Mapped[int | None] = mapped_column(default=None, index=True)
    """The round that waits for this before it moves on, if one does."""


class RefusalCount(Base):
    """How often each stable code was given to each sender."""

    __tablename__ = "refusals"
    device: Mapped[str] = mapped_column(primary_key=True)
    refusal: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int]


class JobSession(Session):
    """A session within one job, or over the whole fleet where its `info` names none.

    Reading, it sees what is `InJob` of its own job alone; writing, it marks it so. Over the whole fleet it sees all.
    """

    @property
    def job(self) -> str | None:
        """The job's name."""
        name: str | None = self.info.get("job")
        return name

    def enter(self, job: str | None) -> None:
        """Go on within a job; for who has to look at a device first."""
        self.info["job"] = job

    def get(self, entity: Any, ident: Any, **named: Any) -> Any:
        """As usual; what is `NamedInJob` goes by the rest of its name."""
        return super().get(entity, self._whole(entity, ident), **named)

    def get_one(self, entity: Any, ident: Any, **named: Any) -> Any:
        """As `get`, for what must be there."""
        return super().get_one(entity, self._whole(entity, ident), **named)

    def _whole(self, entity: Any, ident: Any) -> Any:
        rest = ident if isinstance(ident, tuple) else (ident,)
        named = self.job is not None and isinstance(entity, type) and issubclass(entity, NamedInJob)
        return (self.job, *rest) if named and len(rest) < len(entity.__mapper__.primary_key) else ident


@event.listens_for(JobSession, "do_orm_execute")
def _see_own(state: ORMExecuteState) -> None:
    job = state.session.info.get("job")
    if job is not None and not state.is_column_load:
        own = with_loader_criteria(InJob, lambda cls: cls.job == job, include_aliases=True)
        state.statement = state.statement.options(own)


@event.listens_for(JobSession, "before_attach")
def _mark_own(session: Session, row: object) -> None:
    job: str | None = session.info.get("job")
    if job and isinstance(row, InJob) and not row.job:
        row.job = job


class StoreReader:
    """A database opened for looking only, perhaps while an aggregator runs on it; nothing in it is changed.

    SQLite lays its index of the journal (`-shm`) beside it, as for every reader.

    Raises:
        StoreError: there is none, it is no SQLite database, or has another schema version.
    """

    _advice: ClassVar = ""
    job: str | None = None

    def __init__(self, path: Path) -> None:
        self.path = path
        self.engine = self._open()
        try:
            self._check()
        except DatabaseError as error:
            self.engine.dispose()
            raise StoreError(f"database {path}: {error.orig}{self._advice}") from error

    def _open(self) -> Engine:
        if not self.path.is_file():
            raise StoreError(f"database {self.path}: no such file; expected the state directory of an aggregator")
        uri = f"{self.path.absolute().as_uri()}?mode=ro"
        return create_engine(
            "sqlite://", creator=lambda: sqlite3.connect(uri, uri=True, timeout=30), poolclass=NullPool
        )

    def _check(self) -> None:
        with self.engine.connect() as connection:
            found = _schema_of(connection)
        if found != SCHEMA:
            raise StoreError(f"database {self.path} has schema {found or 'none'}: this version reads {SCHEMA}")

    @contextmanager
    def reading(self) -> Iterator[JobSession]:
        """A session for looking only."""
        with JobSession(self.engine, info={"job": self.job}) as session:
            yield session

    def of(self, job: str | None) -> Self:
        """The same database, of which only one job is seen, besides what is the fleet's; all of it with None."""
        one = copy.copy(self)
        one.job = job
        return one

    def close(self) -> None:
        """Give back every connection."""
        self.engine.dispose()


class Store(StoreReader):
    """An open database, made if there is none; for the one process that writes.

    Raises:
        StoreError: the file is no SQLite database, is damaged, or has another schema version.
    """

    _advice = "; restore it from a backup, or move it away to start a new fleet"

    def __init__(self, path: Path) -> None:
        self._shared = list[JobSession]()
        """The session of `together`, while there is one; every view of a job has the same list."""
        self._along = list[Callable[[Session], None]]()
        """What the next transaction carries besides, shared likewise."""
        super().__init__(path)
        self.writer = sessionmaker(self.engine, class_=JobSession, expire_on_commit=False)
        """Makes the sessions that change something; `changes` listens to it."""

    def _open(self) -> Engine:
        return _open_engine(self.path)

    def _check(self) -> None:
        with self.engine.connect() as connection:
            damage = connection.execute(text("PRAGMA quick_check")).scalar_one()
            if damage != "ok":
                raise StoreError(f"database {self.path} is damaged ({damage}): restore it from a backup")
            found = _schema_of(connection)
        if not found:
            self._make()
        elif found != SCHEMA:
            self._upgrade(found)

    def _make(self) -> None:
        """Every table at once; a test holds it to be what the migrations make."""
        with self.engine.begin() as connection:
            Base.metadata.create_all(connection)
            connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
            connection.execute(text("INSERT INTO alembic_version VALUES (:schema)"), {"schema": SCHEMA})

    def _upgrade(self, found: str) -> None:
        if found not in UPGRADED:
            known = ", ".join(sorted(UPGRADED))
            raise StoreError(
                f"database {self.path} has schema {found}: this version reads {SCHEMA}, and makes that of {known}"
            )
        from aggregator.migrations import replace_by_upgraded  # noqa: PLC0415 (seldom needed, and slow to load)

        self.engine.dispose()
        kept = replace_by_upgraded(self.path, found)
        log.warning("database %s: schema %s became %s; %s is as it was", self.path, found, SCHEMA, kept)

    @contextmanager
    def transaction(self) -> Iterator[JobSession]:
        """A session whose changes are on disk when the block ends, or undone if it raises.

        Within `together` both wait for the end of that.
        """
        if not self._shared:
            with self._begun() as session:
                yield session
            return
        (session,) = self._shared
        before = session.job
        session.enter(self.job)
        try:
            yield session
        finally:
            session.enter(before)

    @contextmanager
    def together(self) -> Iterator[JobSession]:
        """Make one transaction of all those in the block: on disk when it ends, or all undone if one of them raises.

        A disk takes as long to make one change last as a hundred.
        """
        with self._begun() as session:
            self._shared.append(session)
            try:
                yield session
            finally:
                self._shared.clear()

    @contextmanager
    def _begun(self) -> Iterator[JobSession]:
        with self.writer(info={"job": self.job}) as session, session.begin():
            yield session
            self._write_along(session)

    @contextmanager
    def accompanied(self, write: Callable[[Session], None]) -> Iterator[None]:
        """Have the next transaction of this block carry `write` too; one of its own does if there is no other."""
        self._along.append(write)
        try:
            yield
            if self._along:
                with self.transaction():
                    pass
        finally:
            self._along.clear()

    def _write_along(self, session: Session) -> None:
        while self._along:
            self._along.pop()(session)


def _schema_of(connection: Connection) -> str:
    """The number of the schema; empty for a database without tables. Schemas before 3 kept it in the file's head."""
    if inspect(connection).has_table("alembic_version"):
        return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())
    before = connection.execute(text("PRAGMA user_version")).scalar_one()
    return str(before) if before else ""


def _open_engine(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def _set_pragmas(connection: Any, _: Any) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    return engine
