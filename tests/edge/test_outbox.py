"""What lies in the outbox is whole or not there, whatever happens to process, disk and file."""

import random
import signal
import subprocess
import sys
import textwrap
import time
from hashlib import sha256
from pathlib import Path

import pytest

from edge.outbox import Entry, Outbox, OutboxFull
from protocol.messages import EnergySource, Manifest

PAYLOAD = random.Random(0).randbytes(50_000)


def entry(task: str, payload: bytes = PAYLOAD) -> Entry:
    digest = sha256(payload).digest()
    source = EnergySource.MODELLED
    fields = (task, bytes(16), 1, bytes(32), digest, len(payload), 65536, 10, 0.5, 0.9, 1.0, 2.0, source)
    return Entry("s0", Manifest(*fields), payload)


def test_an_update_comes_back_as_it_was_even_in_another_process(tmp_path: Path) -> None:
    Outbox(tmp_path, 1 << 20).put(entry("a"))
    assert list(Outbox(tmp_path, 1 << 20).pending()) == [entry("a")]
    assert Outbox(tmp_path, 1 << 20).get("a") == entry("a")
    assert Outbox(tmp_path, 1 << 20).get("b") is None


def test_updates_come_oldest_first_and_leave_only_when_removed(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, 1 << 20)
    for task in ("b", "a", "c"):
        outbox.put(entry(task))
        time.sleep(0.01)  # file systems count in ticks
    outbox.remove("a")
    assert [found.task for found in outbox.pending()] == ["b", "c"]


def test_the_same_task_replaces_its_update_and_counts_once_for_the_quota(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, 60_000)
    outbox.put(entry("a"))
    outbox.put(entry("a", PAYLOAD[::-1]))
    assert [found.payload for found in outbox.pending()] == [PAYLOAD[::-1]]


def test_the_quota_is_kept_and_named(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, 60_000)
    outbox.put(entry("a"))
    with pytest.raises(OutboxFull, match="at most 60000 together"):
        outbox.put(entry("b"))
    assert [found.task for found in outbox.pending()] == ["a"]


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_update_is_set_aside_and_not_sent(tmp_path: Path, damage: str) -> None:
    notes: list[str] = []
    outbox = Outbox(tmp_path, 1 << 20, on_damaged=notes.append)
    outbox.put(entry("a"))
    outbox.put(entry("b"))
    path = tmp_path / "a.update"
    data = path.read_bytes()
    flipped = bytes([data[0] ^ 1]) + data[1:]
    path.write_bytes({"truncate": data[:-1], "flip": flipped, "empty": b""}[damage])
    assert [found.task for found in outbox.pending()] == ["b"]
    assert len(notes) == 1
    assert "a.update" in notes[0]
    assert (tmp_path / "a.update.damaged").exists()
    assert list(Outbox(tmp_path, 1 << 20).pending()) == [entry("b")]


WRITER = """
    import sys
    from pathlib import Path
    sys.path[:0] = sys.argv[2].split(":")
    from test_outbox import PAYLOAD, entry
    from edge.outbox import Outbox
    outbox = Outbox(Path(sys.argv[1]), 1 << 30)
    print("ready", flush=True)
    for number in range(10**9):
        outbox.put(entry(f"task-{number % 7}", PAYLOAD + number.to_bytes(4)))
        if number % 3 == 2:
            outbox.remove(f"task-{(number - 1) % 7}")
"""


def test_a_kill_at_any_instant_leaves_only_whole_updates(tmp_path: Path) -> None:
    rng = random.Random(1)
    here = Path(__file__).parent
    search = f"{here}:{here.parent.parent}"
    for _ in range(15):
        writer = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path), search], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        with writer.stdout as ready:
            ready.readline()
            time.sleep(rng.uniform(0, 0.05))
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        notes: list[str] = []
        for found in Outbox(tmp_path, 1 << 30, on_damaged=notes.append).pending():
            assert sha256(found.payload).digest() == found.manifest.digest
        assert notes == []


def test_a_full_disk_is_said_so_and_leaves_nothing_half_written(small_disk: Path) -> None:
    outbox = Outbox(small_disk, 1 << 30)
    outbox.put(entry("a", PAYLOAD[:20_000]))
    with pytest.raises(OutboxFull, match="no room on the disk"):
        outbox.put(entry("b", PAYLOAD * 2))
    assert [path.name for path in small_disk.iterdir()] == ["a.update"]
    outbox.put(entry("c", PAYLOAD[:1000]))
    assert [found.task for found in outbox.pending()] == ["a", "c"]
