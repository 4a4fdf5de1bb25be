"""The journal survives what a disk and a clock do to it."""

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.lifecycle import MEMBER, IllegalMove, Lifecycle
from edge.state import Journal, JournalError, Record, Task, dump, load
from protocol.envelope import Stamp
from protocol.messages import Cost, EnergySource, Offer, Step

STEPS = (Step(b"", b"\3" * 32, 5), Step(b"\4" * 32, b"\5" * 32, 6))
OFFER = Offer("t", 1, "a", "W8A8", "ef+sign", b"\1" * 32, 10, "s0", b"\2" * 16, 60.0, 1, 8, 0.1, 7, steps=STEPS)
RECORD = Record(
    lifecycle=Lifecycle.TRAINING,
    boot=9,
    session=12,
    task=Task(OFFER, 1000.0),
    seen={6: Stamp(3, 4), 10: Stamp(3, 9)},
    server_boot=3,
    costs=(Cost("W8A8", 1.5, 0.25, EnergySource.MODELLED),),
    architecture="a",
    done="t0",
    sent_bytes=5,
    received_bytes=6,
    starts=(1.0, 2.0),
)


def test_a_record_comes_back_as_it_was() -> None:
    assert load(dump(RECORD)) == RECORD


def test_every_truncation_is_noticed() -> None:
    data = dump(RECORD)
    for length in range(len(data)):
        with pytest.raises(JournalError):
            load(data[:length])


@given(st.integers(0, len(dump(RECORD)) - 1), st.integers(1, 255))
def test_every_altered_byte_is_noticed(position: int, change: int) -> None:
    data = bytearray(dump(RECORD))
    data[position] ^= change
    with pytest.raises(JournalError):
        load(bytes(data))


@given(st.binary())
def test_no_bytes_at_all_crash_the_reader(data: bytes) -> None:
    with pytest.raises(JournalError):
        load(data)


def test_a_field_of_a_later_version_is_passed_over() -> None:
    body = json.dumps(json.loads(dump(RECORD).partition(b"\n")[2]) | {"later": 1}).encode()
    assert load(sha256(body).hexdigest().encode() + b"\n" + body) == RECORD


def test_a_member_continues_in_idle_and_others_where_they_were(tmp_path: Path) -> None:
    for state in Lifecycle:
        (tmp_path / "journal").write_bytes(dump(replace(RECORD, lifecycle=state)))
        journal, note = Journal.open(tmp_path / "journal")
        assert journal.record.lifecycle is (Lifecycle.IDLE if state in MEMBER else state)
        assert journal.record.task == RECORD.task
        assert note == ""


def test_a_damaged_journal_is_kept_aside_and_a_fresh_one_begun(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    data = dump(RECORD)
    for length in range(0, len(data), 37):
        path.write_bytes(data[:length])
        journal, note = Journal.open(path, now=lambda: 1.8e9)
        assert "journal.damaged" in note
        assert (tmp_path / "journal.damaged").read_bytes() == data[:length]
        assert load(path.read_bytes()) == journal.record
        assert journal.record.task is None


def test_boot_and_session_rise_even_when_the_journal_is_lost(tmp_path: Path) -> None:
    path, boots, sessions = tmp_path / "journal", [], []
    for now in (1000.0, 1005.0, 1010.0, 1030.0):
        journal, _ = Journal.open(path, now=lambda now=now: now)
        boots.append(journal.record.boot)
        sessions.append(journal.next_session())
        if now == 1010.0:
            path.unlink()
    assert boots == sorted(set(boots))
    assert sessions == sorted(set(sessions))


def test_a_move_is_on_the_disk_before_the_listener_hears_of_it(tmp_path: Path) -> None:
    path, heard = tmp_path / "journal", []

    def listen(state: Lifecycle) -> None:
        heard.append((state, load(path.read_bytes()).lifecycle))

    journal, _ = Journal.open(path, on_state=listen)
    journal.move(Lifecycle.JOINING)
    journal.move(Lifecycle.IDLE, done="x")
    assert heard == [(Lifecycle.JOINING, Lifecycle.JOINING), (Lifecycle.IDLE, Lifecycle.IDLE)]
    assert load(path.read_bytes()).done == "x"


def test_a_full_disk_leaves_the_journal_as_it_was(small_disk: Path) -> None:
    journal, _ = Journal.open(small_disk / "journal")
    before = (small_disk / "journal").read_bytes()
    with pytest.raises(OSError, match=r"space|large"):
        journal.change(architecture="x" * 100_000)
    assert (small_disk / "journal").read_bytes() == before
    assert journal.record == load(before)
    assert [path.name for path in small_disk.iterdir()] == ["journal"]


def test_an_illegal_move_changes_nothing(tmp_path: Path) -> None:
    journal, _ = Journal.open(tmp_path / "journal")
    with pytest.raises(IllegalMove):
        journal.move(Lifecycle.TRAINING)
    assert load((tmp_path / "journal").read_bytes()).lifecycle is Lifecycle.UNPROVISIONED


@pytest.mark.parametrize(("now", "left_s"), [(1000.0, 60.0), (1020.0, 40.0), (1100.0, -40.0), (0.0, 60.0)])
def test_a_clock_that_jumped_back_gives_the_whole_deadline(now: float, left_s: float) -> None:
    assert Task(OFFER, 1000.0).left_s(now) == left_s
