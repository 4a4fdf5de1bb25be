"""Fuzzes every decoder of the protocol, guided by what each input reaches (atheris, libFuzzer).

    scripts/fuzz                                  every target for a minute each
    scripts/fuzz --seconds 600 --target payload   one of them, longer
    scripts/fuzz --corpus corpus                  keeps what was found to reach something new, and goes on from it
    scripts/fuzz --target rc --input FILE         runs one input again and shows what it raises

It begins from the vectors of tests/conformance and tests/golden. A finding is an input that raises anything but the
protocol's errors, on which two decoders disagree, that takes longer than ten seconds or more than two gigabytes; it is
written to --findings, and the exit status is 1.
"""

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from fuzzing.targets import TARGETS
from rich.console import Console
from rich.table import Table

CHILD: Final = Path(__file__).parent / "fuzzing" / "child.py"
ROOT: Final = Path(__file__).parent.parent.parent
TIMEOUT_S: Final = 10
MEMORY_MB: Final = 2048
GRACE_S: Final = 60
"""For loading the seeds and the last input of a run."""
PROGRESS: Final = re.compile(r"^#\d+\s.*?cov: (\d+).*?corp: (\d+)", re.MULTILINE)
EXECUTED: Final = re.compile(r"^stat::number_of_executed_units: (\d+)", re.MULTILINE)
FINDING: Final = re.compile(r"Test unit written to (\S+)")
REASON: Final = re.compile(r"^(?:\S*(?:Exception|Error|Disagreement)\b.*|SUMMARY: .*)$", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """What a run of one target came to."""

    target: str
    executions: int
    coverage: int
    corpus: int
    findings: tuple[Path, ...]
    reason: str


def main() -> None:
    options = _arguments()
    if options.input:
        TARGETS[options.target[0]].run(options.input.read_bytes())
        print(f"{options.input}: nothing wrong")
        return
    if find_spec("atheris") is None:
        sys.exit("[fuzz] the package atheris is not installed: it has wheels for Linux on x86-64, Python 3.11 to 3.14")
    with TemporaryDirectory() as folder:
        corpus = options.corpus or Path(folder)
        outcomes = [fuzz(name, options, corpus / name) for name in options.target or TARGETS]
    show(outcomes, options.seconds)
    sys.exit(any(each.findings for each in outcomes))


def fuzz(target: str, options: argparse.Namespace, corpus: Path) -> Outcome:
    """Run one target in a child until its time is over, or it finds something."""
    corpus.mkdir(parents=True, exist_ok=True)
    options.findings.mkdir(parents=True, exist_ok=True)
    seeds = sow(target, corpus)
    command = [sys.executable, str(CHILD), target, str(corpus), f"-max_total_time={options.seconds}"]
    command += [
        f"-artifact_prefix={options.findings.resolve()}/{target}-",
        f"-seed={options.seed}",
        "-print_final_stats=1",
    ]
    command += [f"-timeout={TIMEOUT_S}", f"-rss_limit_mb={MEMORY_MB}", f"-max_len={2 * max(seeds, 512)}"]
    print(f"[fuzz] {target}: {options.seconds} s", file=sys.stderr, flush=True)
    run = subprocess.run(
        command,
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{CHILD.parent.parent}", "OMP_NUM_THREADS": "1", "PATH": ""},
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
        timeout=options.seconds + GRACE_S,
        check=False,
    )
    return _outcome(target, run)


def sow(target: str, corpus: Path) -> int:
    """Write the seeds that are not there yet; the length of the longest."""
    longest = 0
    for seed in TARGETS[target].seeds():
        (corpus / sha256(seed).hexdigest()[:20]).write_bytes(seed)
        longest = max(longest, len(seed))
    return longest


def _outcome(target: str, run: "subprocess.CompletedProcess[str]") -> Outcome:
    progress, findings = PROGRESS.findall(run.stdout), tuple(map(Path, FINDING.findall(run.stdout)))
    executed = EXECUTED.search(run.stdout)
    if executed is None or (run.returncode and not findings):
        sys.exit(f"{run.stdout[-4000:]}\n[fuzz] {target} ended with status {run.returncode} and found nothing")
    coverage, corpus = map(int, progress[-1] if progress else (0, 0))  # a seed itself may be a finding
    reasons = REASON.findall(run.stdout)
    return Outcome(target, int(executed[1]), coverage, corpus, findings, reasons[0] if reasons and findings else "")


def show(outcomes: list[Outcome], seconds: int) -> None:
    """A row a target, and what was found."""
    table = Table("target", *("executions", "per second", "coverage", "corpus", "findings"))
    for each in outcomes:
        rate = each.executions / max(seconds, 1)
        table.add_row(
            *(each.target, f"{each.executions:,}", f"{rate:,.0f}", str(each.coverage), str(each.corpus)),
            str(len(each.findings)),
        )
    console = Console()
    console.print(table)
    for each in outcomes:
        for file in each.findings:
            console.print(f"{each.target}: {each.reason}", markup=False, soft_wrap=True)
            console.print(f"  again: scripts/fuzz --target {each.target} --input {file}", markup=False, soft_wrap=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="may be repeated; all without it")
    parser.add_argument("--corpus", type=Path, help="a folder that keeps inputs from run to run")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"), help="a folder for what fails")
    parser.add_argument("--input", type=Path, help="run this file once, with one --target")
    parser.add_argument("--seed", type=int, default=0, help="of the fuzzer; 0 takes another each time")
    options = parser.parse_args()
    if options.input and len(options.target or ()) != 1:
        parser.error("--input needs one --target")
    return options


if __name__ == "__main__":
    main()
