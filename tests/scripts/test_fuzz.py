"""scripts/fuzz: every target takes its own seeds, a short run finds nothing, and what is wrong is found."""

import os
import platform
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from fuzzing.compare import Disagreement, require_same
from fuzzing.targets import TARGETS

from protocol.reader import Reader

ROOT = Path(__file__).parent.parent.parent
CI = os.environ.get("CI") == "true"
HAS_WHEELS = (sys.platform, platform.machine()) == ("linux", "x86_64")
SECONDS = 1
"""For each target, so that all of them take some twenty seconds, most of it for loading."""

needs_atheris = pytest.mark.skipif(
    find_spec("atheris") is None and not (CI and HAS_WHEELS), reason="the package atheris is not installed"
)


def fuzz(*arguments: str, root: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(root / "scripts" / "lib" / "fuzz.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(root), "COLUMNS": "120"}
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


@needs_atheris
def test_what_is_wrong_is_found_and_named(tmp_path: Path) -> None:
    """A copy of the repository whose numbers may be longer than they need to be, which BF-073 forbids."""
    for part in ("protocol", "scripts/lib", "tests/conformance", "tests/golden"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    broken = tmp_path / "protocol" / "codec" / "varint.py"
    rule = "if byte == 0 and shift:"
    assert rule in broken.read_text()
    broken.write_text(broken.read_text().replace(rule, "if False:"))
    findings = tmp_path / "findings"
    run = fuzz("--seconds", "30", "--target", "varint", "--findings", str(findings), root=tmp_path)
    assert run.returncode == 1, run.stdout + run.stderr
    (finding,) = findings.iterdir()
    assert finding.name in run.stdout.replace("\n", "")
    assert "Disagreement: varint" in run.stdout


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
