"""A picture of a run: windows' medians beside the percentiles of all calls. Needs matplotlib, which devices lack."""

from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import Any, Final

from edge.measure.document import Document
from edge.measure.subject import MeasureError

FORMATS: Final = (".svg", ".png", ".pdf")
COLOURS: Final = ("#5b6b7b", "#0b6e99", "#c8553d", "#2a9d8f", "#e09f3e", "#7b4b94")


def check_plot(path: Path) -> None:
    """Say before anything is measured that a plot cannot be drawn.

    Raises:
        MeasureError: of another format, or matplotlib is missing.
    """
    if path.suffix not in FORMATS:
        raise MeasureError(f"--plot {path}: expected a name that ends in {', '.join(FORMATS)}")
    if find_spec("matplotlib") is None:
        raise MeasureError(f"--plot {path} needs matplotlib, which is not installed: pip install matplotlib")


def write_plot(path: Path, document: Document) -> None:
    """Draw it.

    Raises:
        OSError: the file cannot be written.
    """
    import matplotlib as mpl  # noqa: PLC0415 (tens of megabytes, for this option alone)
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(8, 0.9 + 0.6 * len(document.subjects)), layout="constrained")
    axes = figure.subplots()
    _draw(axes, document)
    axes.set_xlim(left=0)  # a length is a time, to be compared by eye
    axes.set_xlabel("milliseconds of one call: windows' medians, bar p50 to p90, line to p99 (or the slowest)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(document.conditions.board, fontsize=9, loc="left")
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "bitfleet"}):
        figure.savefig(path)


def _draw(axes: Any, document: Document) -> None:
    for place, (subject, colour) in enumerate(zip(document.subjects, cycle(COLOURS))):
        latency = subject.latency
        if latency is None:
            continue
        medians = [window.p50_ms for window in subject.counted]
        axes.barh(place, latency.p90_ms - latency.p50_ms, 0.4, latency.p50_ms, color=colour, alpha=0.4)
        axes.hlines(place, latency.p90_ms, latency.p99_ms or latency.max_ms, color=colour, linewidth=1)
        axes.plot(medians, [place + 0.3] * len(medians), "|", color=colour, markersize=8)
        axes.annotate(f"{latency.p50_ms:.3g}", (latency.p50_ms, place), (-4, 0), textcoords="offset points", ha="right")
    axes.set_yticks(range(len(document.subjects)), [subject.label for subject in document.subjects])
    axes.invert_yaxis()
