"""Many exports at once: distinct ones once, in order, on every core; what fails or is killed takes nothing with it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import SMALL, random_tensors

from export.batch import ExportJob, export_all
from export.bundle import Export
from export.cache import DIGEST_BYTES, Cache
from export.errors import ExportError
from protocol.networks import resnet18
from protocol.precision import Precision

ROOT = Path(__file__).parents[2]
FIVE = ("fp32", "W8A8", "W4A8", "W2A8", "W1A8")
PICTURES = np.random.default_rng(0).integers(0, 256, (4, 1, 8, 8), dtype=np.uint8)


def job(precision: str, seed: int = 0, **changes: Any) -> ExportJob:
    parsed = Precision.parse(precision)
    made = ExportJob(SMALL, parsed, random_tensors(SMALL, parsed, seed=seed), PICTURES, None, {"round": "1"})
    return replace(made, **changes)


@dataclass(frozen=True, slots=True, eq=False)
class Deadly(ExportJob):
    """A job that kills its process, as the kernel does when memory ends."""

    def make(self) -> Export:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


@dataclass(frozen=True, slots=True, eq=False)
class Endless(ExportJob):
    """A job that nobody wants to wait for."""

    def make(self) -> Export:
        time.sleep(100)
        raise AssertionError


def exported(outcome: Export | ExportError) -> Export:
    assert isinstance(outcome, Export), outcome
    return outcome


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Precision]:
    """Every export that this process makes, as it is made."""
    made: list[Precision] = []
    real = ExportJob.make

    def count(self: ExportJob) -> Export:
        made.append(self.precision)
        return real(self)

    monkeypatch.setattr(ExportJob, "make", count)
    return made


def test_two_hundred_jobs_of_five_precisions_are_five_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    made = counted(monkeypatch)
    told: list[tuple[int, int]] = []
    jobs = [job(FIVE[number % 5]) for number in range(200)]
    outcomes = export_all(jobs, workers=1, progress=lambda done, total: told.append((done, total)))
    assert sorted(map(str, made)) == sorted(FIVE)
    assert told == [(done, 5) for done in range(6)]
    assert [exported(outcome).metadata["precision"] for outcome in outcomes] == [
        FIVE[number % 5] for number in range(200)
    ]


def test_processes_make_what_this_one_makes(tmp_path: Path) -> None:
    jobs = [job(name) for name in FIVE[1:]]
    alone, together = export_all(jobs, workers=1), export_all(jobs, workers=2, cache=Cache(tmp_path / "cache"))
    assert [exported(each).model for each in together] == [exported(each).model for each in alone]
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == sorted(each.key() for each in jobs)


def test_a_job_that_fails_names_its_precision_and_takes_no_other_with_it() -> None:
    broken = job("W4A8")
    broken.tensors["classifier.bias"][:] = np.nan
    first, failure, last = export_all([job("W8A8"), broken, job("W1A8")], workers=2)
    assert exported(first).metadata["precision"] == "W8A8"
    assert exported(last).metadata["precision"] == "W1A8"
    assert isinstance(failure, ExportError)
    assert str(failure) == "W4A8: tensor classifier.bias: 3 of 3 values are NaN or infinite"


def test_a_killed_process_costs_the_job_that_killed_it_and_no_other() -> None:
    parsed = Precision.parse("W4A8")
    deadly = Deadly(SMALL, parsed, random_tensors(SMALL, parsed), PICTURES, None, {})
    outcomes = export_all([job("W8A8"), deadly, job("W2A8"), job("W1A8")], workers=2)
    assert str(outcomes[1]) == "W4A8: the process that exported it was killed"
    assert [exported(outcomes[each]).metadata["precision"] for each in (0, 2, 3)] == ["W8A8", "W2A8", "W1A8"]


def test_who_is_interrupted_does_not_wait_for_what_is_under_way() -> None:
    def interrupt(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    parsed = Precision.parse("W4A8")
    endless = Endless(SMALL, parsed, random_tensors(SMALL, parsed), PICTURES, None, {})
    begun_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        export_all([endless, job("W8A8")], workers=2, progress=interrupt)
    assert time.monotonic() - begun_s < 60
    assert active_children() == []


@pytest.mark.parametrize(
    "change",
    [
        {"precision": Precision(2, 8)},
        {"metadata": {"round": "2"}},
        {"metadata": {}},
        {"pictures_NCHW": PICTURES[:3]},
        {"pictures_NCHW": PICTURES ^ 1},
        {"labels_N": np.zeros(4, np.int64)},
        {"tensors": random_tensors(SMALL, Precision(4, 8), seed=1)},
        {"architecture": resnet18(width=0.0625, input_shape=(1, 8, 8), classes=4)},
    ],
)
def test_whatever_decides_the_bytes_is_in_the_key(change: dict[str, Any]) -> None:
    assert job("W4A8").key() == job("W4A8").key()
    assert job("W4A8").key() != replace(job("W4A8"), **change).key()


def test_what_the_cache_holds_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled = job("W4A8", labels_N=np.array([0, 1, 2, 0]))
    made = counted(monkeypatch)
    (first,), (second,) = (export_all([labelled], cache=Cache(tmp_path)) for _ in range(2))
    assert len(made) == 1
    assert exported(second) == exported(first)
    assert np.array_equal(exported(second).report.predictions_N, exported(first).report.predictions_N)


def damages() -> list[tuple[str, Callable[[Path], object]]]:
    """What may have become of an entry, or been put in its place."""
    return [
        ("empty", lambda path: path.write_bytes(b"")),
        ("cut", lambda path: path.write_bytes(path.read_bytes()[:-1])),
        ("longer", lambda path: path.write_bytes(path.read_bytes() + b" ")),
        ("one bit", lambda path: path.write_bytes(path.read_bytes()[:-9] + b"\x80" + path.read_bytes()[-8:])),
        ("digest alone", lambda path: path.write_bytes(path.read_bytes()[:DIGEST_BYTES])),
        ("another's entry", lambda path: (path.parent / job("W2A8").key()).replace(path)),
        ("a pipe", lambda path: (path.unlink(), os.mkfifo(path))),
        ("longer than any model", lambda path: os.truncate(path, 1 << 40)),
        ("a link to nothing", lambda path: (path.unlink(), path.symlink_to("nowhere"))),
    ]


@pytest.mark.parametrize(("name", "damage"), damages(), ids=[name for name, _ in damages()])
def test_a_damaged_entry_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, damage: Callable[[Path], object]
) -> None:
    cache, wanted = Cache(tmp_path), job("W4A8")
    good, _ = export_all([wanted, job("W2A8")], cache=cache, workers=1)
    damage(tmp_path / wanted.key())
    assert cache.get(wanted.key()) is None
    made = counted(monkeypatch)
    (again,) = export_all([wanted], cache=cache)
    assert made == [wanted.precision]
    assert exported(again) == exported(good)
    assert cache.get(wanted.key()) == exported(good)


@given(st.binary(max_size=200))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_under_a_key_are_an_export_or_none(tmp_path: Path, body: bytes) -> None:
    key = "ab" * 32
    for entry in (body, sha256(key.encode() + body).digest() + body):
        (tmp_path / key).write_bytes(entry)
        assert Cache(tmp_path).get(key) is None


INTERRUPTED = """
import sys
from pathlib import Path
sys.path.insert(0, "tests/export")
sys.path.insert(0, "tests")
from test_batch import FIVE, job
from export.batch import export_all
from export.cache import Cache

if __name__ == "__main__":
    jobs = [job(FIVE[number % 5], seed=number) for number in range(200)]
    export_all(jobs, cache=Cache(Path(sys.argv[1])), workers=2, progress=lambda done, _: print(done, flush=True))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_batch_ends_at_once_and_leaves_whole_entries(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "program.py").write_text(INTERRUPTED)
    cache = tmp_path / "cache"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, tmp_path / "program.py", cache],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as program:
        assert program.stdout is not None
        while program.stdout.readline() != b"2\n":
            assert program.poll() is None
        os.kill(program.pid, number) if number == signal.SIGKILL else os.killpg(program.pid, number)
        program.wait(30)
    for _ in range(100):
        if not group_lives(program.pid):
            break
        time.sleep(0.1)
    assert not group_lives(program.pid)
    entries = [path for path in cache.iterdir() if not path.name.startswith(".")]
    assert 2 <= len(entries) < 200
    assert all(Cache(cache).get(path.name) is not None for path in entries)
    if number == signal.SIGINT:
        assert len(list(cache.iterdir())) == len(entries)


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
