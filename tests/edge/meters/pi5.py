"""A program called vcgencmd, first on the PATH, that prints a file as the Pi 5's does."""

import os
from pathlib import Path
from typing import Final

import pytest

PMIC: Final = (Path(__file__).parent / "pmic.txt").read_text(encoding="utf-8")


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put it into `folder`, and say which file it prints."""
    said = folder / "pmic.txt"
    said.write_text(PMIC, encoding="utf-8")
    program = folder / "vcgencmd"
    program.write_text(f'#!/bin/sh\n[ "$1" = pmic_read_adc ] && exec cat "{said}"\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return said
