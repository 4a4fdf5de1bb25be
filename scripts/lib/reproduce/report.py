"""The report of a study, from what is kept alone: terminal, Markdown, SVG and the evidence document."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import evidence
from evidence import Figure
from rich.console import Console

from reproduce.figures import evaluate
from reproduce.results import Results
from reproduce.study import Study
from reproduce.tables import Table, figure_table

PACKAGES = ("numpy", "onnxruntime", "torch")


@dataclass(frozen=True)
class Report:
    """What the kept runs come to."""

    figures: Sequence[Figure]
    omitted: Sequence[str]
    tables: Sequence[Table]

    @property
    def is_met(self) -> bool:
        """Whether no figure misses its limit; those that were omitted miss none."""
        return all(figure.met is not False for figure in self.figures)


def write(study: Study, results: Results, path: Path, *, quick: bool) -> Report:
    """Write the report of a study.

    Args:
        study: which.
        results: what is kept of its runs.
        path: of the evidence document; Markdown lies beside it, plots in a folder of the same name.
        quick: whether these are short runs, which are held to no limit.
    """
    figures, omitted = evaluate(study.specs(), results, limits=not quick)
    tables = [table for table in [*study.tables(results), figure_table(figures)] if table.rows]
    if quick:
        tables = [replace(table, title=f"Quick form of: {table.title}") for table in tables]
    report = Report(figures, omitted, tables)
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    plots = dict(study.plots(results))
    for name, drawn in plots.items():
        (folder / f"{name}.svg").write_text(drawn)
    path.with_suffix(".md").write_text(_markdown(study, results, report, folder.name, list(plots), quick=quick))
    wall_s = sum(kept.outcome.wall_s for kept in results.kept.values())
    evidence.write(path, f"reproduce/{study.name}", figures, wall_s=wall_s, packages=PACKAGES)
    return report


def show(report: Report, results: Results, console: Console) -> None:
    """Print the tables, and what is missing."""
    for table in report.tables:
        console.print(table.rich())
        console.print()
    for line in _gaps(report, results):
        console.print(line, style="yellow", markup=False)


def _markdown(study: Study, results: Results, report: Report, folder: str, plots: Sequence[str], *, quick: bool) -> str:
    parts = [f"# {study.title}", "", study.published, ""]
    if quick:
        parts += [
            "**Quick run**: digits, narrow networks, two rounds. It shows that everything works, nothing more.",
            "",
        ]
    parts += [f"- {line}" for line in _gaps(report, results)]
    parts += ["", *(table.markdown() for table in report.tables)]
    parts += [f"![{name}]({folder}/{name}.svg)\n" for name in plots]
    return "\n".join(parts)


def _gaps(report: Report, results: Results) -> list[str]:
    """What is not there, in words."""
    lines = []
    if results.missing:
        lines.append(f"not run yet: {', '.join(run.name for run in results.missing)}")
    if report.omitted:
        lines.append(f"figures omitted for want of runs: {', '.join(report.omitted)}")
    return lines
