"""The direction of imports, held by import-linter; a broken contract prints its reason."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LINT, "--no-cache", "--config", str(ROOT / "pyproject.toml")]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_imports_point_down() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("protocol", "edge"),
        ("export", "aggregator"),
        ("edge", "aggregator"),
        ("edge", "export"),
        ("aggregator", "edge"),
        ("protocol", "socket"),
        ("aggregator", "torch"),
    ],
)
def test_an_import_that_points_up_is_caught(tmp_path: Path, importer: str, imported: str) -> None:
    """The contracts themselves, on four bare packages with one wrong import planted."""
    for package in ("protocol", "export", "edge", "aggregator"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    for module in ("agent", "runtime", "session", "link", "outbox"):  # named by a contract
        (tmp_path / "edge" / f"{module}.py").write_text("")
    assert lint(tmp_path).returncode == 0
    (tmp_path / importer / "__init__.py").write_text(f"import {imported}\n")
    assert lint(tmp_path).returncode == 1
