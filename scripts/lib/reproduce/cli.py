"""The command line that all studies share: plan, run, examine, report."""

import argparse
import os
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from simulation.checkpoint import Shelf
from simulation.crew import Crew
from simulation.errors import SimulationError
from simulation.run import final_model
from simulation.run import run as play
from simulation.setup import Outcome

from aggregator.model import GlobalModel
from reproduce import report
from reproduce.results import Kept, Results, keep, load
from reproduce.run import Run, quick
from reproduce.study import SEEDS, Study

RESULTS: Final = Path("docs/results")
EXAMINING: Final = "interrupted while final models were examined; the same command goes on from there"
INTERRUPTED: Final = 130
"""What a shell expects of a program that Ctrl-C ended."""


def main(study: Study) -> int:
    """Do what the command line asks; the exit status is 1 if a figure misses its limit."""
    arguments = _arguments(study)
    console = Console()
    everything = _everything(study, arguments)
    path, folder = _places(study, arguments)
    try:
        chosen = _chosen(everything, arguments)
        if arguments.plan:
            console.print(_plan(chosen, folder, arguments.folder, arguments.workers))
            return 0
        if not arguments.report:
            console.print(_plan(chosen, folder, arguments.folder, arguments.workers))
            _run(study, chosen, folder, arguments)
        results = Results.read(folder, [run for run in everything if not run.faithful or load(folder, run)])
    except KeyboardInterrupt as error:
        console.print(str(error) or EXAMINING, style="yellow", markup=False)
        return INTERRUPTED
    except BrokenProcessPool:
        console.print("a worker ended, perhaps for want of memory; try again with fewer --workers", style="red")
        return 2
    except (SimulationError, ValueError) as error:
        console.print(str(error), style="red", markup=False)
        return 2
    made = report.write(study, results, path, quick=arguments.quick)
    report.show(made, results, console)
    console.print(f"written: {path}, {path.with_suffix('.md')} and the plots in {path.with_suffix('')}", markup=False)
    return 0 if made.is_met else 1


def _everything(study: Study, arguments: argparse.Namespace) -> list[Run]:
    """All runs of the study; of a short form only those that were asked for."""
    if arguments.quick:
        return [quick(run) for run in study.planned(arguments.tier, arguments.seeds[:1])]
    return study.planned(seeds=sorted({*SEEDS, *arguments.seeds}))


def _chosen(runs: Sequence[Run], arguments: argparse.Namespace) -> list[Run]:
    """The runs that the arguments mean.

    Raises:
        ValueError: a pattern of `--only` means none.
    """
    offered = [run for run in runs if run.tier in arguments.tier and run.seed in arguments.seeds]
    if not arguments.only:
        return [run for run in offered if arguments.faithful or not run.faithful]
    for pattern in arguments.only:
        if not any(_is_meant(run, pattern) for run in offered):
            names = ", ".join(dict.fromkeys(run.label for run in offered))
            raise ValueError(f"--only {pattern!r}: expected a label or name of a run of these tiers and seeds: {names}")
    return [run for run in offered if any(_is_meant(run, pattern) for pattern in arguments.only)]


def _is_meant(run: Run, pattern: str) -> bool:
    return fnmatchcase(run.label, pattern) or fnmatchcase(run.name, pattern)


def _places(study: Study, arguments: argparse.Namespace) -> tuple[Path, Path]:
    """The evidence document, and the folder of what is kept; a short form stays out of the repository."""
    usual: Path = arguments.folder / "quick" if arguments.quick else RESULTS
    return arguments.json or usual / f"{study.name}.json", arguments.runs or usual / "runs" / study.name


def _run(study: Study, runs: Sequence[Run], folder: Path, arguments: argparse.Namespace) -> None:
    """Play what is not kept yet, then examine it; what is finished is kept even if the rest is interrupted."""
    waiting = [run for run in runs if not _is_done(load(folder, run))]
    try:
        play([run.setup for run in waiting], arguments.folder, arguments.workers, arguments.device, show=True)
    finally:
        for run in waiting:
            outcome = _outcome(run, arguments.folder)
            if outcome is not None:
                keep(folder, run, Kept(outcome, None))
    with Crew(arguments.workers, "cpu") as crew:
        models = [final_model(run.setup, arguments.folder).to_bytes() for run in waiting]
        answers = [crew.submit(_examined, study, run, model) for run, model in zip(waiting, models, strict=True)]
        for run, answer in zip(waiting, answers, strict=True):
            kept = load(folder, run)
            if kept is not None:
                keep(folder, run, Kept(kept.outcome, answer.result()))


def _examined(study: Study, run: Run, model: bytes) -> dict[str, Any]:
    return study.examine(run, GlobalModel.from_bytes(model))


def _outcome(run: Run, folder: Path) -> Outcome | None:
    return Shelf(folder, run.setup).finished()


def _is_done(kept: Kept | None) -> bool:
    return kept is not None and kept.examined is not None


def _plan(runs: Sequence[Run], folder: Path, checkpoints: Path, workers: int) -> Table:
    table = Table("run", "network", "trained at", "method", "state", "minutes", title="Plan", title_justify="left")
    left_s = 0.0
    for run in runs:
        is_done = _is_done(load(folder, run))
        left_s += 0 if is_done else run.estimate_s
        setup = run.setup
        is_begun = Shelf(checkpoints, setup).checkpoint.exists()
        state = "kept" if is_done else "begun" if is_begun else "to do"
        table.add_row(run.name, setup.network, setup.precision, setup.method, state, f"{run.estimate_s / 60:.1f}")
    table.caption = f"about {left_s / 60 / min(workers, max(len(runs), 1)):.0f} minutes left on {workers} cores"
    return table


def _arguments(study: Study) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"scripts/reproduce/{study.name}",
        description=f"{study.title}. {study.published}",
        epilog="Interrupted runs go on where they were; finished ones are kept and not run again.",
    )
    tiers = ",".join(study.tiers)
    parser.add_argument("--tier", type=partial(_tiers, study), default=study.tiers, help=f"of {tiers} (default all)")
    parser.add_argument("--seeds", type=_seeds, default=list(SEEDS), help="numbers joined by commas (default 0,1,2)")
    parser.add_argument("--only", type=_names, metavar="RUNS", help="labels or names joined by commas, * allowed")
    parser.add_argument(
        "--faithful", action="store_true", help="also the scheme exactly as published, where ours differs"
    )
    parser.add_argument("--quick", action="store_true", help="digits, narrow networks, two rounds, one seed: no limits")
    parser.add_argument("--plan", action="store_true", help="show the runs and how long they may take, and stop")
    parser.add_argument("--report", action="store_true", help="tables, plots and JSON from what is kept, without a run")
    parser.add_argument("--json", type=Path, metavar="FILE", help=f"default {RESULTS}/{study.name}.json")
    parser.add_argument(
        "--runs", type=Path, metavar="DIR", help=f"of what is kept, default {RESULTS}/runs/{study.name}"
    )
    parser.add_argument("--folder", type=Path, default=Path("simulations"), help="of checkpoints and final models")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="what trains (default auto)")
    return parser.parse_args()


def _tiers(study: Study, text: str) -> list[str]:
    tiers = text.split(",")
    if not set(tiers) <= set(study.tiers):
        raise argparse.ArgumentTypeError(f"{text!r}: expected some of {','.join(study.tiers)}")
    return tiers


def _names(text: str) -> list[str]:
    return text.split(",")


def _seeds(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: expected numbers joined by commas") from error
