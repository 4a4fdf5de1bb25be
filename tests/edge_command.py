"""`bitfleet-edge` as a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "edge.cli"]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("BITFLEET")} | {
    "COLUMNS": "200"
}


def edge(*arguments: str | Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run it to its end, which must be `expect` and no traceback."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == expect, done.stderr
    assert "Traceback" not in done.stderr
    return done
