"""Programs the suite wants: a missing one skips the test by name; in CI the whole run refuses to begin."""

import shutil

import pytest

PROGRAMS = ("mosquitto", "chromium", "gcc", "aarch64-linux-gnu-gcc", "qemu-aarch64")


def find(program: str) -> str | None:
    """The path of `program`, also where only administrators usually look."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")


def needs(program: str) -> str:
    """The path of `program`, or skip."""
    path = find(program)
    if path is None:
        pytest.skip(f"the program {program} is not installed")
    return path


needs_mosquitto = pytest.mark.skipif(find("mosquitto") is None, reason="the program mosquitto is not installed")
