"""The demo's report: one HTML file without scripts, links or fonts from elsewhere. Plots are inline SVG."""

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
from jinja2 import Environment
from matplotlib.figure import Figure

PAGE = Path(__file__).with_name("report.html.j2")
INK, MUTED, GRID = "#1c2733", "#5b6b7b", "#dde3ea"
SHADES = {"fp32": "#5b6b7b", "W8A8": "#0b6e99", "W4A8": "#2a9d8f", "W2A8": "#e09f3e", "W1A8": "#c8553d"}


def render(result: dict[str, Any]) -> str:
    """The report as HTML."""
    plots = {
        "accuracy": _accuracy(result),
        "bytes": _bytes(result),
        "energy": _energy(result),
        "size": _size(result),
    }
    return Environment(autoescape=True).from_string(PAGE.read_text()).render(plots=plots, shades=SHADES, **result)


def _accuracy(result: dict[str, Any]) -> str:
    figure, axes = _axes("model version", "accuracy on held-out pictures")
    for precision in result["precisions"]:
        points = [
            (model["version"], export["accuracy"])
            for model in result["models"]
            for export in model["exports"]
            if export["precision"] == precision and export["accuracy"] is not None
        ]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=precision, color=SHADES[precision])
    axes.set_ylim(0, 1.02)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False)
    return _svg(figure)


def _bytes(result: dict[str, Any]) -> str:
    figure, axes = _axes("", "bytes per device and round")
    names = ("sent", "sent, fp32", "received", "received, fp32")
    values = [result["per_round"][key] for key in ("up", "up_fp32", "down", "down_fp32")]
    bars = axes.bar(names, values, color=[SHADES["W8A8"], GRID, SHADES["W4A8"], GRID])
    axes.bar_label(bars, [_human(value) for value in values], color=MUTED)
    axes.set_yscale("log")
    return _svg(figure)


def _energy(result: dict[str, Any]) -> str:
    figure, axes = _axes("", "J per day (modelled)")
    devices = [device for device in result["devices"] if device["needs_j_per_day"] is not None]
    names = [device["name"] for device in devices]
    axes.bar(
        names,
        [device["needs_j_per_day"] for device in devices],
        color=[SHADES[device["precision"]] for device in devices],
        label="inference at the precision chosen",
    )
    for index, device in enumerate(devices):
        if device["budget_j_per_day"]:
            axes.hlines(device["budget_j_per_day"], index - 0.45, index + 0.45, color=INK, linewidth=2)
    axes.hlines([], 0, 0, color=INK, linewidth=2, label="budget")
    axes.tick_params(axis="x", rotation=30)
    axes.set_ylim(0, 1.35 * axes.get_ylim()[1])
    axes.legend(frameon=False, loc="upper left", ncols=2)
    return _svg(figure)


def _size(result: dict[str, Any]) -> str:
    figure, axes = _axes("ONNX file, kB", "accuracy on held-out pictures")
    for export in result["exports"]:
        axes.scatter(export["model_bytes"] / 1000, export["accuracy"], s=60, color=SHADES[export["precision"]])
        axes.annotate(
            export["precision"],
            (export["model_bytes"] / 1000, export["accuracy"]),
            textcoords="offset points",
            xytext=(8, -4),
            color=INK,
        )
    axes.set_xlim(0, 1.2 * max(export["model_bytes"] / 1000 for export in result["exports"]))
    axes.margins(y=0.3)
    return _svg(figure)


def _axes(x: str, y: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(5.4, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x, color=MUTED)
    axes.set_ylabel(y, color=MUTED)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Figure) -> str:
    """The figure as an inline element; text stays text, so that it can be searched and read aloud."""
    out = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(
            out, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    text = out.getvalue()
    return text[text.index("<svg") :]


def _human(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
