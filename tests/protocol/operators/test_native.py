"""The kernels in C against their definition in C: as built, under sanitizers, and on the devices' processors."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from extension import NATIVE, flags, sources
from programs import needs

HERE = Path(__file__).parent
BINDINGS = {"module.c", "runtime.c"}
"""To Python and ONNX Runtime; the rest is plain C."""
SOURCES = [HERE / "check_binary.c", *(path for path in sources() if path.name not in BINDINGS)]
FLAGS = [*flags(), "-Wall", "-Wextra"]
SANITIZED = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
WHOLE = 60
"""Layers of a run at full speed; a fourth of them are wide."""

Build = Callable[..., Path]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    def compile_with(compiler: str, *flags: str) -> Path:
        program = tmp_path / "check"
        command = [needs(compiler), *FLAGS, "-Werror", *flags, f"-I{NATIVE}", "-o", program, *SOURCES, "-lm"]
        subprocess.run(command, check=True, timeout=120)
        return program

    return compile_with


def said(command: list[str | Path], layers: int, seed: int) -> str:
    result = subprocess.run(
        [*command, str(layers), str(seed)], capture_output=True, text=True, timeout=150, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_every_path_computes_what_is_defined(build: Build) -> None:
    assert f"portable: {WHOLE} layers as defined" in said([build("gcc")], WHOLE, 1)


def test_no_path_reads_or_writes_beyond_its_memory(build: Build) -> None:
    assert "portable: 20 layers as defined" in said([build("gcc", *SANITIZED)], 20, 2)


def test_the_devices_processors_compute_the_same(build: Build) -> None:
    """The oldest of them; `scripts/boards` has more."""
    program = build("aarch64-linux-gnu-gcc", "-static")
    spoken = said([needs("qemu-aarch64"), "-cpu", "cortex-a53", program], 8, 3)
    assert spoken.startswith("neon: 8 layers as defined\n")
