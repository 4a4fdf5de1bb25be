"""Tables of what is kept, as Markdown and for the terminal."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from evidence import Figure
from rich.table import Table as RichTable
from simulation.report import bits_per_parameter

from reproduce.results import Cell, Results

NONE = "–"


@dataclass(frozen=True)
class Table:
    """A table with a title; the first column names the row."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def markdown(self) -> str:
        """The table in a section of its own."""
        lines = [_line(self.header), _line(["---", *["---:"] * (len(self.header) - 1)]), *map(_line, self.rows)]
        return "\n".join([f"## {self.title}", "", *lines, *(["", self.note] if self.note else []), ""])

    def rich(self) -> RichTable:
        """The table for the terminal."""
        table = RichTable(title=self.title, title_justify="left", caption=self.note or None, caption_justify="left")
        for number, name in enumerate(self.header):
            table.add_column(name, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*row)
        return table


def listing(
    title: str,
    results: Results,
    cells: Iterable[Cell],
    baseline: Callable[[Cell], Cell],
    published: Mapping[Cell, str] | None = None,
    note: str = "",
) -> Table:
    """One row for each cell there are runs for.

    Args:
        title: of the table.
        results: what is kept.
        cells: in the order of the rows.
        baseline: what a cell's gap is taken to.
        published: figures to print beside them; None for no such column.
        note: below the table.
    """
    header = ["run", "judged at", "arithmetic", "accuracy %", "range", "gap", "bits up", "min", "seeds"]
    rows = []
    for cell in cells:
        values = results.accuracies(cell)
        if values:
            row = [cell.label, cell.judged, _arithmetic(results, cell), f"{fmean(values.values()):.2f}", _range(values)]
            row += [_gap(values, results.accuracies(baseline(cell))), f"{_bits_up(results, cell):.2f}"]
            row += [f"{_minutes(results, cell):.1f}", str(len(values))]
            rows.append(row if published is None else [*row, published.get(cell, NONE)])
    return Table(title, header if published is None else [*header, "published"], rows, note)


def matrix(
    title: str,
    results: Results,
    tier: str,
    labels: Sequence[str],
    judged: Mapping[str, str],
    baseline: Cell,
    note: str = "",
) -> Table:
    """One row for each label, one column for each way of judging: accuracy, and its gap to the baseline.

    Args:
        title: of the table.
        results: what is kept.
        tier: of the runs.
        labels: of the rows.
        judged: what a `Cell` calls it, by the column's header.
        baseline: what gaps are taken to.
        note: below the table.
    """
    against = results.accuracies(baseline)
    rows = []
    for label in labels:
        cells = [results.accuracies(Cell(tier, label, name)) for name in judged.values()]
        if any(cells):
            spelled = [f"{fmean(cell.values()):.2f} ({_gap(cell, against)})" if cell else NONE for cell in cells]
            rows.append([label, *spelled])
    return Table(title, ["run", *judged], rows, note)


def figure_table(figures: Sequence[Figure]) -> Table:
    """Every figure with its limit."""
    rows = [
        [
            figure.name,
            f"{figure.value:g} {figure.unit}",
            figure.limit or NONE,
            NONE if figure.met is None else "yes" if figure.met else "NO",
            str(figure.of),
            NONE if figure.spread is None else f"{figure.spread[0]:g} … {figure.spread[1]:g}",
        ]
        for figure in figures
    ]
    return Table("Figures", ["figure", "value", "limit", "met", "of", "spread"], rows)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _range(values: Mapping[int, float]) -> str:
    return f"{min(values.values()):.2f}–{max(values.values()):.2f}"


def _gap(values: Mapping[int, float], against: Mapping[int, float]) -> str:
    seeds = values.keys() & against.keys()
    return f"{fmean(values[seed] - against[seed] for seed in seeds):+.2f}" if seeds else NONE


def _arithmetic(results: Results, cell: Cell) -> str:
    return ", ".join(
        sorted({kept.outcome.arithmetic.get(cell.judged, "float") for _, kept in results.of(cell.tier, cell.label)})
    )


def _bits_up(results: Results, cell: Cell) -> float:
    outcomes = [kept.outcome for _, kept in results.of(cell.tier, cell.label)]
    return fmean(bits_per_parameter(outcome.setup, outcome.up_bytes) for outcome in outcomes)


def _minutes(results: Results, cell: Cell) -> float:
    return fmean(kept.outcome.wall_s / 60 for _, kept in results.of(cell.tier, cell.label))
