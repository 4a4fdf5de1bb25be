"""The database: what is committed stays, what is damaged is said so."""

from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from aggregator.store import Device, Fact, Store, StoreError


def filled(path: Path) -> None:
    store = Store(path)
    with store.transaction() as session:
        session.add_all(Device(id=f"d{index}", public_key=bytes(32), joined_at=0.0) for index in range(200))
    store.close()


def test_what_was_committed_is_there_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    filled(path)
    with Store(path).reading() as session:
        assert session.get_one(Device, "d7").status == "offline"


def test_a_block_that_raises_leaves_no_trace(tmp_path: Path) -> None:
    store = Store(tmp_path / "fleet.db")

    def fail() -> None:
        with store.transaction() as session:
            session.add(Fact(name="x", value=b""))
            session.flush()
            raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        fail()
    with store.reading() as session:
        assert session.get(Fact, "x") is None


def test_every_connection_writes_ahead_and_syncs(tmp_path: Path) -> None:
    store = Store(tmp_path / "fleet.db")
    with store.engine.connect() as connection:
        pragmas = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
    assert pragmas == ["wal", 2]
    store.close()


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\x00" + bytes(200)])
def test_a_file_that_is_no_database_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fleet.db"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=str(path)):
        Store(path)


@pytest.mark.parametrize("offset", [4096, 8192, 12288, 20480])
def test_a_damaged_page_is_noticed_at_start(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "fleet.db"
    filled(path)
    data = bytearray(path.read_bytes())
    data[offset : offset + 512] = b"\xff" * 512
    path.write_bytes(data)
    with pytest.raises(StoreError, match="backup"):
        Store(path)


def test_a_truncated_file_is_noticed_at_start(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    filled(path)
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(StoreError, match="backup"):
        Store(path)


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="absent"):
        Store(tmp_path / "absent" / "fleet.db")


def test_transactions_together_are_on_disk_at_the_end_of_all_or_not_at_all(tmp_path: Path) -> None:
    store = Store(tmp_path / "fleet.db")

    def write(*names: str) -> None:
        with store.together():
            for name in names:
                with store.transaction() as session:
                    session.add(Fact(name=name, value=b""))
                    session.flush()
            with store.reading() as other:
                assert other.get(Fact, names[0]) is None, "before the end nobody else sees it"

    write("a", "b")
    with pytest.raises(IntegrityError):
        write("c", "a")
    with store.reading() as session:
        assert set(session.scalars(select(Fact.name))) == {"a", "b"}
    with store.transaction() as session:
        session.add(Fact(name="d", value=b""))
    with store.reading() as session:
        assert session.get(Fact, "d") is not None, "alone again"
    store.close()
