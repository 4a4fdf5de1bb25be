"""What runs of one setup and several seeds came to, as a table and as a curve."""

import io
from collections.abc import Sequence
from statistics import mean

import numpy as np
from rich import box
from rich.table import Table

from protocol import networks
from simulation.errors import SimulationError
from simulation.setup import Outcome, Setup


def table(outcomes: Sequence[Outcome], label: str) -> Table:
    """Accuracy at every precision, then what it took; means over the seeds, with their range."""
    setup = outcomes[0].setup
    seeds = ", ".join(str(outcome.setup.seed) for outcome in outcomes)
    title = f"{label}: {setup.network}\n{setup.method} {setup.precision}, updates {setup.recipe}, seeds {seeds}"
    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for header in ("", "mean", "least", "most", ""):
        shown.add_column(header, justify="left" if not header else "right", no_wrap=bool(header))

    def row(name: str, unit: str, values: Sequence[float], form: str) -> None:
        shown.add_row(name, *(format(pick(values), form) for pick in (mean, min, max)), unit)

    for name in setup.evaluate:
        unit = f"% of the test, {outcomes[0].arithmetic[name]}, mean of {setup.last} rounds"
        row(f"accuracy {name}", unit, [100 * outcome.mean(name) for outcome in outcomes], ".2f")
    for name in ("up", "down"):
        series = [outcome.up_bytes if name == "up" else outcome.down_bytes for outcome in outcomes]
        row(f"bytes {name}", "a round", [mean(values) for values in series], ",.0f")
        row("", "bits per parameter and device", [bits_per_parameter(setup, values) for values in series], ".3f")
    for name in ("up", "down"):
        spent = [outcome.up_mj if name == "up" else outcome.down_mj for outcome in outcomes]
        if all(spent):
            row(f"energy {name}", "mJ a round on the air, modelled", [mean(values) for values in spent], ",.2f")
    row("calibration", "bytes up, once", [outcome.calibration_bytes for outcome in outcomes], ",.0f")
    row("loss", "nats, last round", [outcome.loss[-1] for outcome in outcomes], ".3f")
    row("time", "s", [outcome.wall_s for outcome in outcomes], ",.0f")
    return shown


def bits_per_parameter(setup: Setup, round_bytes: Sequence[int]) -> float:
    """Mean bits on the wire for each of the model's parameters, everything included, per device and round."""
    return 8 * mean(round_bytes) / (setup.sampled * networks.parse(setup.network).parameters)


def plot(outcomes: Sequence[Outcome], label: str, form: str) -> bytes:
    """Accuracy over the judged rounds, the mean of the seeds as a line and their range as a band.

    Args:
        outcomes: of equal setups but for the seed.
        label: above the plot.
        form: `svg` or `png`.

    Raises:
        SimulationError: another form, or a single judged round, which makes no curve.
    """
    import matplotlib as mpl  # noqa: PLC0415 (half a second that a worker, which imports this file too, need not pay)
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    setup = outcomes[0].setup
    if form not in {"svg", "png"}:
        raise SimulationError(f"plot {form!r}: expected a file named .svg or .png")
    if setup.judged_rounds < 2:
        raise SimulationError("plot over 1 judged round: expected --judged 2 or more")
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    rounds_R = np.arange(setup.rounds - setup.judged_rounds + 1, setup.rounds + 1)
    for name in setup.evaluate:
        percent_SR = 100 * np.array([outcome.accuracy[name] for outcome in outcomes])
        axes.plot(rounds_R, percent_SR.mean(axis=0), label=f"{name} ({outcomes[0].arithmetic[name]})")
        axes.fill_between(rounds_R, percent_SR.min(axis=0), percent_SR.max(axis=0), alpha=0.2)
    axes.set(xlabel="round", ylabel="accuracy, %", title=f"{label}: {setup.method} {setup.precision}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    drawn = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": setup.digest}):
        figure.savefig(drawn, format=form, metadata={"Date": None} if form == "svg" else {})
    return drawn.getvalue()
