"""`bitfleet-edge infer` as a process: files, streams, swaps, signals, readers that leave, models that do not run."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_command import COMMAND, ENVIRONMENT, ROOT, edge
from edge_support import DEVICE, HandAggregator, broker, export, slot_of, write_digits
from foreign_models import linear_model
from mqtt_client import eventually
from PIL import Image

from edge.runtime import Runtime
from edge.session import Pictures
from protocol.messages import Birth

FRAMES = ("--frames", "32x32:gray", "-")
SHORT_OF_MEMORY = Path(__file__).with_name("short_of_memory.py")


@pytest.fixture(scope="module")
def models() -> list[bytes]:
    return [export(seed) for seed in range(3)]


@pytest.fixture
def digits(tmp_path: Path) -> Pictures:
    """Real ones, uint8[60, 1, 32, 32], also in digits.npz."""
    write_digits(tmp_path / "digits.npz")
    pictures_NCHW: Pictures = np.load(tmp_path / "digits.npz")["pictures"]
    return pictures_NCHW


@pytest.fixture
def state(tmp_path: Path, models: list[bytes]) -> Path:
    """A device's folder with version 3 installed."""
    Runtime(tmp_path / "state" / "models").install(models[0], slot_of(models[0], 3))
    return tmp_path / "state"


def best(state: Path, pictures_NCHW: Pictures) -> list[int]:
    """What the installed model says."""
    classes: list[int] = Runtime.restore(state / "models")[0].infer(pictures_NCHW).argmax(axis=1).tolist()
    return classes


def lines(text: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The pictures and the summary of --json."""
    *answers, last = map(json.loads, text.splitlines())
    summary: dict[str, Any] = last["summary"]
    return answers, summary


def start(*arguments: str | Path) -> subprocess.Popen[bytes]:
    """In the background, with pipes on all sides."""
    command = [*COMMAND, "infer", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdin=pipe, stdout=pipe, stderr=pipe)


def write_folder(folder: Path, digits: Pictures) -> None:
    for number, picture_CHW in enumerate(digits):
        path = folder / "deep" / f"shelf{number % 3}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture_CHW[0]).save(path)


def test_a_folder_gives_a_line_for_each_picture_and_names_what_it_skipped(
    tmp_path: Path, state: Path, digits: Pictures
) -> None:
    write_folder(tmp_path / "pictures", digits[:9])
    (tmp_path / "pictures" / "deep" / ".hidden.png").write_bytes(b"no picture")
    os.mkfifo(tmp_path / "pictures" / "deep" / "pipe")
    (tmp_path / "pictures" / "notes\n\x1b[31m.txt").write_bytes(b"no picture")
    done = edge("infer", tmp_path / "pictures", tmp_path / "nothing.png", "--state", state, "--top", "3", expect=1)
    shown = [line.split("\t") for line in done.stdout.splitlines()]
    order = [*range(0, 9, 3), *range(1, 9, 3), *range(2, 9, 3)]
    assert [Path(name).name for name, *_ in shown] == [f"{number:03}.png" for number in order]
    assert [int(guesses.split()[0]) for _, guesses, _ in shown] == best(state, digits[order])
    assert all(re.fullmatch(r"(\d \d+\.\d%(, )?){3}", guesses) for _, guesses, _ in shown)
    assert all(re.fullmatch(r"\d+\.\d\d ms", latency) for *_, latency in shown)
    assert r"notes\n\x1b[31m.txt: not a picture" in done.stderr
    assert "pipe: not a file; raw frames need --frames" in done.stderr
    assert "nothing.png: No such file or directory" in done.stderr
    assert re.search(
        r"9 pictures, 3 skipped, .* a second; inference p50 .* ms, p99 .* ms; model version 3", done.stderr
    )
    assert re.search(r"peak memory \d+ MB", done.stderr)


def test_batches_answer_as_single_pictures_do_and_the_last_line_sums_up(
    tmp_path: Path, state: Path, digits: Pictures
) -> None:
    done = edge("infer", tmp_path / "digits.npz", "--state", state, "--batch", "7", "--json")
    answers, summary = lines(done.stdout)
    assert [answer["picture"] for answer in answers] == [f"{tmp_path / 'digits.npz'}[{at}]" for at in range(60)]
    assert [answer["class"] for answer in answers] == best(state, digits)
    assert all(answer["top"] == [{"class": answer["class"], "confidence": answer["confidence"]}] for answer in answers)
    assert all(0.1 <= answer["confidence"] <= 1 and answer["version"] == 3 for answer in answers)
    assert (summary["pictures"], summary["skipped"]) == (60, 0)
    assert 0 < summary["p50_ms"] <= summary["p99_ms"]
    assert summary["peak_memory_bytes"] >= summary["memory_bytes"] > 10 << 20
    assert [(one["version"], one["precision"], one["pictures"]) for one in summary["models"]] == [(3, "W8A8", 60)]


def test_an_archive_needs_no_labels_and_a_damaged_one_is_skipped(tmp_path: Path, state: Path, digits: Pictures) -> None:
    np.savez(tmp_path / "bare.npz", pictures=digits[:2])
    (tmp_path / "bad.npz").write_bytes(b"no archive")
    done = edge("infer", tmp_path / "bad.npz", tmp_path / "bare.npz", "--state", state, "--json", expect=1)
    answers, _ = lines(done.stdout)
    assert "not an .npz archive" in answers[0]["skipped"]
    assert [answer["class"] for answer in answers[1:]] == best(state, digits[:2])


def test_classes_have_the_names_of_the_settings_or_of_the_folders_trained_on(
    tmp_path: Path, state: Path, digits: Pictures
) -> None:
    names = [f"digit {letter}" for letter in "abcdefghij"]
    (tmp_path / "one.toml").write_text(f"classes = {names}")
    for name in names:
        (tmp_path / "trained" / name).mkdir(parents=True)
        (tmp_path / "trained" / name / "a.png").write_bytes(b"")
    (tmp_path / "two.toml").write_text(f'data = "{tmp_path / "trained"}"')
    (tmp_path / "other.toml").write_text('classes = ["cat", "dog"]')
    Image.fromarray(digits[0, 0]).save(tmp_path / "a.png")
    (index,) = best(state, digits[:1])
    for config, expected in (("one.toml", names[index]), ("two.toml", names[index]), ("other.toml", index)):
        done = edge("infer", tmp_path / "a.png", "--state", state, "--config", tmp_path / config, "--json")
        assert lines(done.stdout)[0][0]["class"] == expected


def test_frames_come_through_a_pipe_and_a_truncated_one_is_reported(state: Path, digits: Pictures) -> None:
    process = start("--state", state, *FRAMES)
    out, errors = process.communicate(digits.tobytes()[:-100])
    shown = [line.split("\t") for line in out.decode().splitlines()]
    assert [name for name, *_ in shown] == [f"frame {number}" for number in range(59)]
    assert [int(guess.split()[0]) for _, guess, _ in shown] == best(state, digits[:59])
    assert b"frame 59: the stream ends after 924 of its 1024 bytes" in errors
    assert process.returncode == 1


def test_an_answer_does_not_wait_for_the_next_frame(state: Path, digits: Pictures) -> None:
    with start("--state", state, "--json", *FRAMES) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(3):
            process.stdin.write(digits[number].tobytes())
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["picture"] == f"frame {number}"
        process.stdin.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_the_summary(state: Path, digits: Pictures, number: signal.Signals) -> None:
    with start("--state", state, *FRAMES) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(digits[0].tobytes())
        process.stdin.flush()
        assert process.stdout.readline().startswith(b"frame 0\t")
        process.send_signal(number)
        assert process.wait(20) == 130
        errors = process.stderr.read().decode()
    assert errors.startswith("1 pictures, 0 skipped")
    assert errors.count("\n") == 1


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["lines", "json"])
def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path, state: Path, form: list[str]) -> None:
    write_digits(tmp_path / "many.npz", 1797)
    with start(tmp_path / "many.npz", "--state", state, *form) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"many.npz[0]" in process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read().decode()
        assert process.wait(20) == 0
    assert errors.count("\n") == (0 if form else 1), errors


def test_a_terminal_gets_a_bar_and_the_file_beside_it_only_lines(tmp_path: Path, state: Path, digits: Pictures) -> None:
    ours, theirs = pty.openpty()
    command = [*COMMAND, "infer", str(tmp_path / "digits.npz"), "--state", str(state)]
    terminal = ENVIRONMENT | {"TERM": "xterm"}
    done = subprocess.run(command, cwd=ROOT, env=terminal, stdout=subprocess.PIPE, stderr=theirs, text=True, check=True)
    os.close(theirs)
    assert b"/60" in os.read(ours, 1 << 16)
    os.close(ours)
    assert len(done.stdout.splitlines()) == 60
    assert "\x1b" not in done.stdout


@pytest.fixture
def hand(tmp_path: Path) -> Iterator[HandAggregator]:
    """With a real agent at work in the folder `device`."""
    with broker("auto", tmp_path / "broker") as url, HandAggregator.running(url) as hand:
        arguments = ["--state", tmp_path / "device", "--device", DEVICE, "--aggregator", hand.url, "--token", "secret"]
        command = [*COMMAND, "run", *map(str, arguments)]
        with subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.DEVNULL) as agent:
            try:
                hand.wait_for(Birth)
                yield hand
            finally:
                agent.terminate()
        assert agent.returncode == 0


def test_watching_takes_over_what_a_real_agent_installs_and_loses_no_frame(
    tmp_path: Path, hand: HandAggregator, models: list[bytes], digits: Pictures
) -> None:
    state = tmp_path / "device"
    install_through(hand, state, models[0], 1)
    with start("--state", state, "--watch", "--json", *FRAMES) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        out: list[bytes] = []
        reader = threading.Thread(target=lambda: out.extend(process.stdout or []))
        reader.start()
        sent = 0
        for version in (1, 2, 3):
            if version > 1:
                install_through(hand, state, models[version - 1], version)

            def answered_by(version: int = version) -> bool:
                nonlocal sent
                assert process.stdin is not None
                process.stdin.write(digits[sent % 60].tobytes())
                process.stdin.flush()
                sent += 1
                return any(f'"version": {version}' in line.decode() for line in list(out))

            eventually(answered_by, f"an answer of version {version}", within_s=60)
        process.stdin.close()
        reader.join()
        assert process.wait(20) == 0
    answers, summary = lines(b"".join(out).decode())
    assert [answer["picture"] for answer in answers] == [f"frame {number}" for number in range(sent)]
    versions = [answer["version"] for answer in answers]
    assert versions == sorted(versions)
    assert set(versions) == {1, 2, 3}
    for version, data in enumerate(models, 1):
        Runtime(tmp_path / f"alone{version}" / "models").install(data, slot_of(data, version))
        expected = best(tmp_path / f"alone{version}", digits)
        assert all(one["class"] == expected[at % 60] for at, one in enumerate(answers) if one["version"] == version)
    assert [one["version"] for one in summary["models"]] == [1, 2, 3]


def install_through(hand: HandAggregator, state: Path, model: bytes, version: int) -> None:
    """Offer a model until the agent has it."""
    hand.offer_model(model, version)

    def installed() -> bool:
        current = Runtime.restore(state / "models")[0].current
        return current is not None and current.version == version

    eventually(installed, f"version {version} on the device", within_s=60)


def test_a_file_answers_without_anything_installed(tmp_path: Path, models: list[bytes], digits: Pictures) -> None:
    (tmp_path / "w8.onnx").write_bytes(models[1])
    done = edge(
        "infer", tmp_path / "digits.npz", "--model", tmp_path / "w8.onnx", "--state", tmp_path / "new", "--json"
    )
    answers, summary = lines(done.stdout)
    Runtime(tmp_path / "alone" / "models").install(models[1], slot_of(models[1]))
    assert [answer["class"] for answer in answers] == best(tmp_path / "alone", digits)
    assert summary["models"][0]["digest"] == slot_of(models[1]).digest
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "No such file or directory; expected a file that bitfleet-export wrote"),
        (b"text", "refuses the model"),
        (linear_model()[:-1000], "refuses the model"),
        (linear_model(takes="image"), "takes image"),
        (linear_model(domain="com.example", weight="Mystery"), "com.example:Mystery"),
        (linear_model().replace(b"bitfleet.precision", b"stranger.precision"), "its metadata has no 'precision'"),
        (linear_model().replace(b"fp32", b"W9A9"), "its metadata: precision W9A9"),
    ],
    ids=["missing", "text", "truncated", "other input", "other operator", "no metadata", "unknown precision"],
)
def test_a_file_that_does_not_run_here_is_one_line(
    tmp_path: Path, digits: Pictures, data: bytes | None, reason: str
) -> None:
    path = tmp_path / "m.onnx"
    if data is not None:
        path.write_bytes(data)
    done = edge("infer", tmp_path / "digits.npz", "--model", path, expect=1)
    assert done.stderr.startswith(f"error: model {path}: ")
    assert reason in done.stderr
    assert done.stderr.strip().count("\n") == 0
    assert done.stdout == ""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on memory that holds")
@pytest.mark.parametrize(("batch", "megabytes"), [(1, 100), (4096, 400)], ids=["model", "batch"])
def test_a_file_or_a_batch_too_large_for_memory_is_one_line(
    tmp_path: Path, digits: Pictures, batch: int, megabytes: int
) -> None:
    path = tmp_path / "large.onnx"
    path.write_bytes(linear_model(16384))
    arguments = ["infer", str(tmp_path / "digits.npz"), "--model", str(path), "--batch", str(batch)]
    command = [sys.executable, str(SHORT_OF_MEMORY), str(megabytes), *arguments]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: model {path}: ")
    assert done.stderr.endswith("not enough memory\n")
    assert done.stderr.count("\n") == 1
    assert ("4096 pictures at once" in done.stderr) == (batch == 4096)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "no pictures: expected files"),
        (("-",), "for example --frames 640x480:rgb24"),
        (("--frames", "32x32:bgr8", "-"), "expected a format of rgb24"),
        (("--frames", "32x32:gray", "-", "more"), "2 streams; expected one"),
        (("a.png", "--model", "m.onnx", "--watch"), "expected one of the two"),
        (("a.png",), "no model in"),
    ],
)
def test_what_cannot_be_asked_is_said_before_anything_is_read(
    tmp_path: Path, arguments: tuple[str, ...], reason: str
) -> None:
    done = edge("infer", *arguments, "--state", tmp_path, expect=1)
    assert reason in done.stderr
    assert done.stderr.strip().count("\n") == 0
