"""The one document that benchmarks write, for others to check without reading prose (DESIGN section 10)."""

import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from os import cpu_count
from pathlib import Path
from typing import Any

FAST_INTEGERS = frozenset({"avx2", "avx512_vnni", "avx_vnni", "asimddp", "i8mm"})


@dataclass(frozen=True)
class Figure:
    """One measured figure; `limit` and `met` where a limit was set for it, `of` the number of runs behind it."""

    name: str
    value: float
    unit: str
    limit: str | None
    met: bool | None
    of: int
    spread: list[float] | None
    note: str


def write(path: Path, name: str, figures: Sequence[Figure], *, wall_s: float, packages: Sequence[str]) -> None:
    """Write the document of one run."""
    document = {
        "name": name,
        "commit": commit(),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(packages),
        "command": shlex.join([f"scripts/{name}", *sys.argv[1:]]),
        "wall_s": round(wall_s, 1),
        "figures": [asdict(figure) for figure in figures],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """What a result was made with: processor, cores, and the versions of Python and `packages`."""
    return {
        "cpu": _processor(),
        "cores": cpu_count(),
        "versions": {"python": platform.python_version()} | {package: version(package) for package in packages},
    }


def commit() -> str:
    """The commit of the working tree."""
    folder = Path(__file__).resolve().parent
    ran = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=False)  # noqa: S607
    return ran.stdout.strip() or "unknown"


def _processor() -> str:
    """The model name as Linux tells it, with the extensions that decide integer speed."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    facts = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    return " ".join([facts.get("model name", platform.machine()), *sorted(flags & FAST_INTEGERS)])
