"""What devices should run, as files: each precision once, the fleet's own file where there is one, nothing changed."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from fleet import Fleet, trained
from sqlalchemy.exc import OperationalError

from aggregator import exports
from aggregator.blobs import BlobReader
from aggregator.handout import Handout, HandoutError, Selection, hand_out
from aggregator.room import noise
from aggregator.store import MAIN, Device, Export, Model, Round, RoundState, StoreError, StoreReader
from export.batch import ExportJob
from export.cache import Cache
from protocol.precision import Precision

ROOT = Path(__file__).parents[2]
FIVE = ("fp32", "W8A8", "W4A8", "W2A8", "W1A8")


def no_bar(done: int, total: int) -> None:
    pass


def handed(
    fleet: Fleet, /, *names: str, groups: tuple[str, ...] = (), everyone: bool = False, **options: Any
) -> Handout:
    reader = StoreReader(fleet.room.store.path).of(MAIN)
    selection = Selection(names, groups, everyone)
    options = {"progress": no_bar} | options
    return hand_out(reader, BlobReader(fleet.room.blobs.folder), selection, **options)


def populate(fleet: Fleet, count: int, *precisions: str) -> None:
    """A version 1 with these profiles, and devices given them in turn, which say of themselves what pi-0 does."""
    fleet.connected("pi-0")
    model = fleet.model()
    for name in precisions:
        model = model.with_profile(Precision.parse(name))
    digest = fleet.room.blobs.put(model.to_bytes())
    with fleet.room.store.transaction() as session:
        session.add(Model(version=1, digest=digest, made_at=0.0, precisions=sorted(model.profiles)))
        first = session.get_one(Device, "pi-0")
        first.precision = precisions[0]
        for number in range(1, count):
            given = precisions[number % len(precisions)]
            row = Device(id=f"pi-{number}", public_key=bytes(32), joined_at=0.0, birth=first.birth, precision=given)
            session.add(row)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Precision of every export that is made."""
    made: list[str] = []
    real = ExportJob.make

    def count(job: ExportJob) -> Any:
        made.append(str(job.precision))
        return real(job)

    monkeypatch.setattr(ExportJob, "make", count)
    monkeypatch.setattr("export.batch.cores", lambda: 1)
    return made


def command(fleet: Fleet, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """`bitfleet-aggregator export` as a process of its own, on the folder of a fleet."""
    line = [
        sys.executable,
        "-c",
        "from aggregator.cli import main; main()",
        "export",
        "--state",
        fleet.folder,
        *arguments,
    ]
    environment = {**os.environ, "COLUMNS": "200"}
    ran = subprocess.run(
        [*map(str, line)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert ran.returncode == code, ran.stderr
    return ran


def test_two_hundred_devices_of_five_precisions_wait_for_five_exports(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    populate(fleet, 200, *FIVE)
    made = counted(monkeypatch)
    found = handed(fleet, everyone=True, fleet="test")
    assert sorted(made) == sorted(FIVE)
    assert len(found.precisions) == 200
    assert sorted(found.files) == sorted(FIVE)
    assert not any(each.kept for each in found.files.values())


def test_what_is_made_here_is_what_the_fleet_would_have_made(fleet: Fleet) -> None:
    populate(fleet, 1, "W4A8")
    found = handed(fleet, "pi-0", fleet="test")
    kept = exports.keep(fleet.room, fleet.model(), 1, "W4A8")
    assert found.files["W4A8"].digest == kept.digest


def test_the_fleets_own_file_is_handed_out_and_nothing_made(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(fleet)
    made = counted(monkeypatch)
    found = handed(fleet, "a")
    (row,) = fleet.rows(Export)
    assert (found.files["W8A8"].digest, found.files["W8A8"].kept, made) == (row.digest, True, [])
    assert found.version == 1


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"onnx")])
def test_a_lost_or_damaged_file_is_made_again_with_its_fleets_name(
    fleet: Fleet, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    trained(fleet)
    (row,) = fleet.rows(Export)
    damage(fleet.room.blobs.path(row.digest))
    with pytest.raises(HandoutError, match="no export tells the fleet's name, which its files carry: give --fleet"):
        handed(fleet, "a")
    cache = Cache(tmp_path / "cache")
    found = handed(fleet, "a", fleet="test", cache=cache)
    assert (found.files["W8A8"].digest, found.files["W8A8"].kept) == (row.digest, False)
    assert len(list(cache.folder.iterdir())) == 1


def test_an_older_round_is_exported_at_todays_precision_under_the_name_older_exports_tell(fleet: Fleet) -> None:
    trained(fleet)
    with fleet.room.store.transaction() as session:
        model = session.get_one(Model, 1)
        session.add(Model(version=2, digest=model.digest, made_at=0.0, precisions=model.precisions))
    found = handed(fleet, "a")
    assert (found.version, found.files["W8A8"].kept) == (2, False)
    older = handed(fleet, "a", number=1)
    assert (older.version, older.files["W8A8"].kept) == (1, True)
    job = exports.job(fleet.model(), 2, "W8A8", shown=noise(fleet.job.network), fleet="test")
    assert found.files["W8A8"].model == job.make().model


def test_a_precision_that_nobody_trained_is_no_file_and_the_others_are(fleet: Fleet) -> None:
    populate(fleet, 2, "W8A8", "W4A8")
    with fleet.room.store.transaction() as session:
        session.get_one(Device, "pi-1").precision = "W2A8"
    found = handed(fleet, everyone=True, fleet="test")
    assert list(found.files) == ["W8A8"]
    assert found.failed == {"W2A8": "W2A8: no profile of it, version 1 was trained at W4A8, W8A8"}


def test_names_groups_and_rounds_that_are_not_there_are_named(fleet: Fleet) -> None:
    populate(fleet, 12, "W8A8")
    with fleet.room.store.transaction() as session:
        session.get_one(Device, "pi-2").revoked = True
        session.get_one(Device, "pi-3").precision = ""
        session.add(Round(number=2, state=RoundState.ABORTED, base_version=1, opened_at=0.0))
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "no device is chosen"),
        (
            {"groups": ("attic",)},
            "group 'attic': no device of the fleet is in it; groups are: none; a pattern of names has a *",
        ),
        ({"groups": ("jetson-*",)}, "group 'jetson-*': no device of the fleet has such a name"),
        ({"everyone": True, "number": 2}, "round 2 made no model: it is aborted"),
        ({"everyone": True, "number": 7}, "round 7 is not known: expected one from 0 to 1"),
    ]
    for options, expected in cases:
        with pytest.raises(HandoutError) as refused:
            handed(fleet, fleet="test", **options)
        assert str(refused.value) == expected
    for name, expected in (
        ("pi-44", "device 'pi-44' is not known; did you mean pi-4?"),
        ("pi-2", "device 'pi-2' is revoked"),
        ("pi-3", "device 'pi-3' has no precision yet: that is decided when a round opens"),
    ):
        with pytest.raises(HandoutError) as refused:
            handed(fleet, name, fleet="test")
        assert str(refused.value) == expected
    found = handed(fleet, "pi-5", groups=("pi-1*",), fleet="test")
    assert list(found.precisions) == ["pi-1", "pi-10", "pi-11", "pi-5"]


def test_a_plain_word_is_a_group_and_a_pattern_is_of_names(fleet: Fleet) -> None:
    populate(fleet, 4, "W8A8")
    with fleet.room.store.transaction() as session:
        for name, group in (("pi-1", "kitchen"), ("pi-3", "kitchen"), ("pi-2", "pi-3")):
            session.get_one(Device, name).group = group
    for wanted, expected in (("kitchen", ["pi-1", "pi-3"]), ("pi-3", ["pi-2"]), ("pi-[01]", ["pi-0", "pi-1"])):
        assert list(handed(fleet, groups=(wanted,), fleet="test").precisions) == expected
    with pytest.raises(HandoutError, match="groups are: kitchen, pi-3; a pattern of names has a"):
        handed(fleet, groups=("attic",), fleet="test")


def test_the_command_writes_files_and_an_index_while_the_aggregator_runs(fleet: Fleet, tmp_path: Path) -> None:
    populate(fleet, 7, *FIVE)
    out = tmp_path / "out"
    ran = command(fleet, "--all", "--fleet", "test", "--out", out, "--json")
    index = json.loads(ran.stdout)
    assert json.loads((out / "devices.json").read_text()) == index
    assert sorted(path.name for path in out.iterdir()) == sorted([*(f"{name}.onnx" for name in FIVE), "devices.json"])
    assert (index["round"], len(index["devices"]), index["failed"]) == (1, 7, {})
    for number, row in enumerate(index["devices"]):
        data = (out / row["file"]).read_bytes()
        assert (row["device"], row["precision"]) == (f"pi-{number}", FIVE[number % 5])
        assert (row["bytes"], row["sha256"], row["made"]) == (len(data), sha256(data).hexdigest(), "now")
    with fleet.room.store.transaction() as session:
        session.get_one(Device, "pi-0").budget_j_per_day = 1.0
    text = command(fleet, "--device", "pi-0", "--fleet", "test", "--out", out).stdout
    assert "fp32.onnx" in text
    assert "devices: 1; files: 1" in text


def test_the_command_fails_in_one_line_and_writes_the_rest(fleet: Fleet, tmp_path: Path) -> None:
    populate(fleet, 2, "W8A8", "W4A8")
    with fleet.room.store.transaction() as session:
        session.get_one(Device, "pi-1").precision = "W2A8"
    out = tmp_path / "out"
    ran = command(fleet, "--all", "--fleet", "test", "--out", out, code=1)
    assert ran.stderr == "error: W2A8: no profile of it, version 1 was trained at W4A8, W8A8\n"
    assert sorted(path.name for path in out.iterdir()) == ["W8A8.onnx", "devices.json"]
    ran = command(fleet, "--device", "who", "--out", out, code=1)
    assert (ran.stdout, ran.stderr) == ("", "error: device 'who' is not known\n")
    ran = command(fleet, "--state", tmp_path / "nowhere", "--all", "--out", out, code=1)
    assert ran.stderr == (
        f"error: database {tmp_path / 'nowhere' / 'bitfleet.db'}: no such file;"
        " expected the state directory of an aggregator\n"
    )


def test_a_reader_changes_nothing_and_sees_what_a_writer_commits(fleet: Fleet) -> None:
    reader = StoreReader(fleet.room.store.path).of(MAIN)
    populate(fleet, 1, "W8A8")
    with reader.reading() as session:
        assert session.get(Device, "pi-0") is not None
        session.get_one(Device, "pi-0").precision = "W1A8"
        with pytest.raises(OperationalError, match="readonly"):
            session.commit()
    assert fleet.device("pi-0").precision == "W8A8"
    reader.close()


def test_a_reader_leaves_a_writers_half_written_blob_alone(fleet: Fleet) -> None:
    half = fleet.room.blobs.folder / "ab" / ".half"
    half.parent.mkdir(exist_ok=True)
    half.write_bytes(b"half")
    trained(fleet)
    handed(fleet, "a")
    assert half.exists()


@pytest.mark.parametrize("content", [b"", b"this is no database" * 1000])
def test_a_file_that_is_no_database_of_ours_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bitfleet.db"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"bitfleet\.db"):
        StoreReader(path)
    assert path.read_bytes() == content


def test_it_reads_while_the_aggregator_writes(fleet: Fleet) -> None:
    populate(fleet, 5, "W8A8")
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            with fleet.room.store.transaction() as session:
                session.get_one(Device, "pi-0").seen_at = float(number)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(5):
            assert list(handed(fleet, everyone=True, fleet="test").files) == ["W8A8"]
    finally:
        stop.set()
        writer.join()
