"""A fleet in one file, and back; what is damaged is refused and leaves nothing."""

import tarfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fleet import JOB, Fleet, Opener

from aggregator import secret_files
from aggregator.backup import BackupError, back_up, put_back
from aggregator.store import BOOT, Fact


def nobody(*_: int) -> None:
    """Nobody watches the progress."""


@pytest.fixture
def trained(open_fleet: Opener) -> Fleet:
    """A fleet that has committed a round and collects the next."""
    fleet = open_fleet(replace(JOB, rounds=3))
    secret_files.server_key(fleet.folder)
    fleet.connected("a")
    fleet.complete()
    return fleet


@pytest.fixture
def archive(trained: Fleet, tmp_path: Path) -> Path:
    target = tmp_path / "fleet.tar.gz"
    back_up(trained.folder, target, nobody)
    return target


def test_a_fleet_goes_on_from_its_backup(trained: Fleet, archive: Path, tmp_path: Path) -> None:
    before = trained.model().to_bytes()
    trained.complete()
    assert trained.version() == 2
    restored = tmp_path / "restored"
    assert put_back(archive, restored, nobody) > 3
    assert secret_files.server_key(restored).public.raw == secret_files.server_key(trained.folder).public.raw
    assert (restored / "server-key").stat().st_mode & 0o777 == 0o600
    trained.room.store.close()
    trained.folder = restored
    trained.room = trained._open()
    assert (trained.version(), trained.model().to_bytes()) == (1, before)
    for device in trained.handsets.values():
        device.connect()
    trained.complete()
    assert trained.version() == 2


def test_devices_believe_a_restored_aggregator(archive: Path, trained: Fleet, tmp_path: Path) -> None:
    """What it signs must be newer than all that was signed after the backup."""
    put_back(archive, tmp_path / "restored", nobody)
    trained.room.store.close()
    trained.folder = tmp_path / "restored"
    trained.room = trained._open()
    with trained.room.store.reading() as session:
        assert abs(int(session.get_one(Fact, BOOT).value) - time.time()) < 60


def test_a_backup_is_for_its_owner_alone_and_replaces_the_last(archive: Path, trained: Fleet) -> None:
    first = archive.read_bytes()
    trained.complete()
    back_up(trained.folder, archive, nobody)
    assert archive.read_bytes() != first
    assert archive.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in archive.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("spoil", ["cut", "changed", "foreign", "less"])
def test_what_is_no_whole_backup_is_refused_and_leaves_nothing(archive: Path, tmp_path: Path, spoil: str) -> None:
    plain = tmp_path / "plain.tar"
    with tarfile.open(archive) as source:
        source.extractall(tmp_path / "out", filter="data")
    blob = next(path for path in (tmp_path / "out" / "blobs").rglob("*") if path.is_file())
    if spoil == "changed":
        blob.write_bytes(blob.read_bytes() + b"!")
    if spoil == "less":
        blob.unlink()
    with tarfile.open(plain, "w") as target:
        for path in sorted((tmp_path / "out").rglob("*"), key=lambda path: path.name == "backup.json"):
            if path.is_file() and not (spoil == "foreign" and path.name == "backup.json"):
                target.add(path, str(path.relative_to(tmp_path / "out")))
    if spoil == "cut":
        plain.write_bytes(plain.read_bytes()[: plain.stat().st_size // 2])
    with pytest.raises(BackupError, match=r"plain\.tar: (not a whole archive|.* is missing or damaged|no readable)"):
        put_back(plain, tmp_path / "restored", nobody)
    assert not (tmp_path / "restored").exists()
    assert not (tmp_path / ".restored.restoring").exists()


def test_nothing_is_restored_over_a_fleet(archive: Path, trained: Fleet) -> None:
    with pytest.raises(BackupError, match="is not empty"):
        put_back(archive, trained.folder, nobody)


def test_a_folder_without_a_fleet_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match=f"{tmp_path} holds no bitfleet.db"):
        back_up(tmp_path, tmp_path / "x.tar", nobody)
    assert not (tmp_path / "x.tar").exists()
