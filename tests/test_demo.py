"""scripts/demo as a user runs it: separate processes, a broker, real pictures; and what it leaves behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

DEMO = Path(__file__).parent.parent / "scripts" / "lib" / "demo.py"

pytestmark = [pytest.mark.demo, pytest.mark.timeout(300)]


def demo(folder: Path, *arguments: str) -> list[str]:
    keep = ["--keep", str(folder / "kept"), "--json", str(folder / "result.json")]
    return [sys.executable, str(DEMO), "--data", "digits", "--width", "0.0625", *keep, *arguments]


def children_of(folder: Path) -> list[str]:
    """Processes that were started for a demo in `folder`."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(str(folder) in part for part in process.cmdline()):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def test_the_demo_tells_its_story_and_leaves_no_process(tmp_path: Path) -> None:
    """With the broker that everybody has; tests/chaos and the service's tests have Mosquitto too."""
    command = demo(tmp_path, "--devices", "3", "--rounds", "3", "--broker", "embedded")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["failures"] == []
    assert [device["precision"] for device in result["devices"]] == ["W8A8", "W4A8", "W1A8"]
    assert all(export["agree"] == export["pictures"] == 359 for export in result["exports"])
    assert (result["killed"]["device"], result["killed"]["counted"]) == ("device-1", 1)
    assert len(list((tmp_path / "kept").glob("*.onnx"))) == 3
    report = (tmp_path / "kept" / "demo-report.html").read_text()
    assert report.count("<svg") == 4
    assert re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!#)[^"')\s]+""", report) == [], "it loads nothing"
    assert children_of(tmp_path) == []


def obey_control_c() -> None:
    """A shell lets its background jobs ignore the signal, and so would the demo when the suite is one of them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_control_c_leaves_no_process(tmp_path: Path) -> None:
    running = subprocess.Popen(
        demo(tmp_path, "--devices", "2", "--rounds", "50"),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=obey_control_c,  # noqa: PLW1509 (no thread of this process is in the way)
    )
    logs = tmp_path / "kept" / "logs" / "aggregator.log"
    give_up_at = time.monotonic() + 90
    while not (logs.exists() and "collecting" in logs.read_text()):
        assert time.monotonic() < give_up_at
        assert running.poll() is None
        time.sleep(0.2)
    assert children_of(tmp_path)
    os.kill(running.pid, signal.SIGINT)
    assert running.wait(60) == 130
    assert children_of(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--data", "no-such-folder"], "no-such-folder"),
        (["--devices", "0"], "devices"),
        (["--width", "9"], "width 9"),
        (["--broker", "ftp://x"], "broker = 'ftp://x'"),
    ],
)
def test_a_wrong_option_is_named(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    done = subprocess.run([*demo(tmp_path), *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert complaint in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert children_of(tmp_path) == []
