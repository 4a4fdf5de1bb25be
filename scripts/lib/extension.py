"""How the compiled operators are built, as pyproject.toml has it: for whoever builds them for another processor."""

import tomllib
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
NATIVE: Final = ROOT / "protocol" / "operators" / "native"
_MODULE: Final = "protocol.operators._binary"


def flags() -> list[str]:
    """What the compiler is told."""
    return list(_extension()["extra-compile-args"])


def sources() -> list[Path]:
    """Every file of it."""
    return [ROOT / name for name in _extension()["sources"]]


def _extension() -> dict[str, Any]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["ext-modules"]
    found: dict[str, Any] = next(each for each in settings if each["name"] == _MODULE)
    return found
