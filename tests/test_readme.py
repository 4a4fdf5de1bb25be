"""The README's commands exist, with the options it gives them."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text().replace("\\\n", " ")
GROUPS = {"user"}
"""Commands with commands of their own."""
COMMANDS = sorted({line.strip() for line in re.findall(r"^ {4}(?:bitfleet-|scripts/).*$", TEXT, re.MULTILINE)})


def test_the_readme_shows_all_three_commands_and_the_two_scripts() -> None:
    first_words = {command.split()[0] for command in COMMANDS}
    assert first_words >= {"bitfleet-aggregator", "bitfleet-edge", "bitfleet-export", "scripts/demo"}
    assert "scripts/test" in TEXT


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("bitfleet-")])
def test_a_command_has_the_options_the_readme_gives_it(command: str) -> None:
    program, subcommand, *rest = shlex.split(command, comments=True)
    words = [subcommand, *rest[:1]] if subcommand in GROUPS else [subcommand]
    run = [str(Path(sys.executable).with_name(program)), *words, "--help"]
    shown = subprocess.run(run, capture_output=True, text=True, check=False, env={"COLUMNS": "200", "PATH": "/bin"})
    assert shown.returncode == 0, shown.stderr
    for option in (word for word in rest if word.startswith("--")):
        assert option in shown.stdout, f"{program} {subcommand} has no {option}"


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("scripts/")])
def test_a_script_is_there_and_knows_its_options(command: str) -> None:
    script, *rest = re.split(r" {2,}", command)[0].split()
    assert (ROOT / script).stat().st_mode & 0o111
    library = ROOT / "scripts" / "lib"
    studies = Path(script).parent.name == "reproduce"
    source = (library / "reproduce" / "cli.py" if studies else library / f"{Path(script).name}.py").read_text()
    for option in (word for word in rest if word.startswith("--") and word != "--help"):
        assert option in source or f"{option.removeprefix('--')}:" in source


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "DECISIONS.md"])
def test_every_file_a_document_names_is_there(document: str) -> None:
    text = (ROOT / document).read_text()
    named = re.findall(r"`((?:protocol|edge|export|aggregator|tests|scripts|docs)/[\w./-]+)`", text)
    missing = [name for name in named if not (ROOT / name).exists()]
    assert missing == []
