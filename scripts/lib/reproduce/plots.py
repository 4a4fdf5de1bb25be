"""Plots as SVG text: curves with the spread over seeds, small multiples of histograms, bars by layer."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from statistics import fmean
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from report import GRID, INK, MUTED

COLOURS: Final = ("#5b6b7b", "#0b6e99", "#c8553d", "#2a9d8f", "#e09f3e", "#7b4b94")
STYLE: Final[dict[Any, Any]] = {"svg.fonttype": "none", "svg.hashsalt": "bitfleet", "font.family": "sans-serif"}
"""Text stays text, so that it can be searched; the salt makes equal plots equal bytes."""
BAR: Final = 0.8
"""Width of the bars of one layer together, in units of the distance between layers."""


@dataclass(frozen=True)
class Series:
    """One line: for each tick the values of all seeds; ticks without any are left out.

    Attributes:
        label: in the legend.
        points: values by tick.
        dashed: for what we compare with.
    """

    label: str
    points: Mapping[str, Sequence[float]]
    dashed: bool = False


def curves(series: Sequence[Series], ticks: Sequence[str], x: str, y: str) -> str:
    """A line through the means, and a band from the smallest to the largest, over ticks at equal distances."""
    figure, axes = _page(x, y)
    _curves(axes, series, ticks)
    axes.legend(frameon=False)
    return svg(figure)


def curves_beside(sides: Mapping[str, Sequence[Series]], ticks: Sequence[str], x: str, y: str) -> str:
    """The same beside one another, each under its title, on one scale with one legend."""
    figure = Figure(figsize=(2.6 * len(sides) + 1.2, 3.4), layout="constrained")
    for axes, (title, series) in zip(figure.subplots(1, len(sides), sharey=True), sides.items(), strict=True):
        _dress(axes, x, y if title == next(iter(sides)) else "")
        axes.set_title(title, fontsize=9, color=INK)
        _curves(axes, series, ticks)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8)
    return svg(figure)


def scatter(places: Mapping[str, tuple[float, Sequence[float]]], x: str, y: str) -> str:
    """A point for each label at its x, on a logarithmic scale, and the mean of its y; whiskers to least and most."""
    figure, axes = _page(x, y)
    for (label, (place, values)), colour in zip(places.items(), cycle(COLOURS)):
        mean = fmean(values)
        whiskers = [[mean - min(values)], [max(values) - mean]]
        axes.errorbar([place], [mean], yerr=whiskers, fmt="o", color=colour, capsize=2)
        axes.annotate(label, (place, mean), (4, 4), textcoords="offset points", color=INK, fontsize=8)
    axes.set_xscale("log")
    return svg(figure)


def lines(curves: Mapping[str, Sequence[tuple[float, float]]], x: str, y: str) -> str:
    """A line through points for each label, x on a logarithmic scale."""
    figure, axes = _page(x, y)
    for (label, points), colour in zip(curves.items(), cycle(COLOURS)):
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, label=label)
    axes.set_xscale("log")
    axes.legend(frameon=False, fontsize=8)
    return svg(figure)


def bars(series: Sequence[Series], ticks: Sequence[str], y: str, line: float) -> str:
    """Bars side by side for each tick, whiskers from the smallest to the largest, and a line to reach."""
    figure, axes = _page("", y)
    width = BAR / len(series)
    for number, (bar, colour) in enumerate(zip(series, cycle(COLOURS))):
        places = [place for place, tick in enumerate(ticks) if bar.points.get(tick)]
        values = [bar.points[ticks[place]] for place in places]
        means = np.array([fmean(value) for value in values])
        whiskers = np.abs(np.array([[min(value), max(value)] for value in values]).reshape(-1, 2).T - means)
        at = [place + (number - (len(series) - 1) / 2) * width for place in places]
        axes.bar(at, means, width, yerr=whiskers, color=colour, ecolor=INK, capsize=2, label=bar.label)
    axes.axhline(line, color=INK, linewidth=1)
    axes.set_xticks(range(len(ticks)), ticks)
    axes.legend(frameon=False)
    return svg(figure)


def histograms(grid: Mapping[str, Mapping[str, Mapping[float, int]]], x: str) -> str:
    """Small multiples: a row for each layer, a column for each width, in it the share of weights at each level.

    Args:
        grid: counts by level, by width, by layer; levels are drawn from −1 to 1.
        x: what a level is.
    """
    columns = list(dict.fromkeys(width for widths in grid.values() for width in widths))
    size = (1.2 * max(len(columns), 3) + 0.8, 0.9 * len(grid) + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    cells = figure.subplots(len(grid), len(columns), squeeze=False, sharex=True)
    for row, (layer, widths) in zip(cells, grid.items(), strict=True):
        row[0].set_ylabel(layer, color=MUTED, fontsize=7)
        for axes, width in zip(row, columns, strict=True):
            _levels(axes, widths.get(width, {}))
            if row is cells[0]:
                axes.set_title(width, fontsize=8, color=INK)
    figure.supxlabel(x, color=MUTED, fontsize=8)
    return svg(figure)


def svg(figure: Figure) -> str:
    """The figure as an SVG document."""
    out = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(out, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return out.getvalue()


def _levels(axes: Any, counts: Mapping[float, int]) -> None:
    total = sum(counts.values())
    if total:
        axes.vlines(list(counts), 0, [count / total for count in counts.values()], color=COLOURS[1], linewidth=1.2)
    axes.set_xlim(-1.1, 1.1)
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=5, length=2)
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)


def _curves(axes: Any, series: Sequence[Series], ticks: Sequence[str]) -> None:
    for line, colour in zip(series, cycle(COLOURS)):
        places = [place for place, tick in enumerate(ticks) if line.points.get(tick)]
        values = [line.points[ticks[place]] for place in places]
        style = "--" if line.dashed else "-"
        axes.plot(places, list(map(fmean, values)), style, marker="o", markersize=4, color=colour, label=line.label)
        axes.fill_between(places, list(map(min, values)), list(map(max, values)), color=colour, alpha=0.15, linewidth=0)
    axes.set_xticks(range(len(ticks)), ticks)


def _page(x: str, y: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    _dress(axes, x, y)
    return figure, axes


def _dress(axes: Any, x: str, y: str) -> None:
    axes.set_xlabel(x, color=MUTED)
    axes.set_ylabel(y, color=MUTED)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
