"""scripts/fuzz: every target takes its own seeds, a short run finds nothing, and what is wrong is found."""

import os
import platform
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from fuzzing.targets import TARGETS, Disagreement, require_same

from protocol.reader import Reader

ROOT = Path(__file__).parent.parent.parent
FUZZ = ROOT / "scripts" / "lib" / "fuzz.py"
CI = os.environ.get("CI") == "true"
HAS_WHEELS = (sys.platform, platform.machine()) == ("linux", "x86_64")
SECONDS = 1
"""For each target, so that all of them take some twenty seconds, most of it for loading."""

needs_atheris = pytest.mark.skipif(
    find_spec("atheris") is None and not (CI and HAS_WHEELS), reason="the package atheris is not installed"
)


def fuzz(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(FUZZ), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=150, check=False)


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_takes_its_own_seeds(name: str) -> None:
    """BF-042: without atheris too."""
    seeds = list(TARGETS[name].seeds())
    assert len(seeds) > 5
    for seed in seeds:
        TARGETS[name].run(seed)


@needs_atheris
@pytest.mark.parametrize("name", TARGETS)
def test_a_short_run_finds_nothing(name: str, tmp_path: Path) -> None:
    """BF-014, BF-042."""
    run = fuzz("--seconds", str(SECONDS), "--target", name, "--findings", str(tmp_path), "--seed", "1")
    assert run.returncode == 0, run.stdout + run.stderr
    assert name in run.stdout
    assert not list(tmp_path.iterdir())


def test_an_input_is_run_again_by_name(tmp_path: Path) -> None:
    file = tmp_path / "input"
    file.write_bytes(b"\x81\x00")
    run = fuzz("--target", "varint", "--input", str(file))
    assert (run.returncode, run.stdout.strip()) == (0, f"{file}: nothing wrong")


def test_decoders_that_disagree_are_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that forgets to look for bytes left over, as a decoder might."""
    with pytest.raises(Disagreement):
        require_same(1, 2, "numbers")
    monkeypatch.setattr(Reader, "finish", lambda _: None)
    with pytest.raises(Disagreement, match="varint"):
        TARGETS["varint"].run(b"\x01\x00")
