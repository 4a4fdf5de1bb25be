"""Record what this board's energy meter says into a trace: once here, replayed in tests for ever.

Takes a minute of the board's own meter unless told otherwise.

Examples:
    scripts/record_meter

    scripts/record_meter --seconds 600 --out idle.jsonl --note "idle, HDMI off, 5 V 5 A supply"

    scripts/record_meter --meter ina226:bus=1,shunt=0.01

    bitfleet-edge meters --meter replay:idle.jsonl

Ctrl-C ends the recording and keeps what there is. The file is whole or not there at all. RAPL counts joules by itself
and says no power, so it has no trace.
"""

import platform
import sys
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from edge.birth import agent_version, processor
from edge.files import write_atomic
from edge.meters.base import MeterError
from edge.meters.choose import AUTO
from edge.meters.record import power_sensor, record
from edge.meters.sensor import Sensor
from edge.meters.trace import Header, Sample, to_lines


def record_meter(
    meter: Annotated[str, typer.Option(help="As for bitfleet-edge meters; auto is the board's own.")] = AUTO,
    seconds: Annotated[float, typer.Option(min=1.0, help="How long.")] = 60.0,
    out: Annotated[Path, typer.Option(help="The trace to write.")] = Path("meter.jsonl"),
    note: Annotated[str, typer.Option(help="What a reader should know: load, supply, what is plugged in.")] = "",
) -> None:
    console = Console(stderr=True)
    try:
        sensor = power_sensor(meter)
        samples = _recorded(sensor, seconds, console)
        header = Header(
            meter=sensor.description,
            max_mw=sensor.max_mw,
            board=processor(),
            recorded=datetime.now(UTC).isoformat(timespec="seconds"),
            versions={"bitfleet": agent_version(), "kernel": platform.release(), "python": platform.python_version()},
            note=note,
        )
        write_atomic(out, *(f"{line}\n".encode() for line in to_lines(header, samples)), mode=0o644)
    except (MeterError, ValueError, OSError) as error:
        console.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)
    console.print(f"{out}: {_summary(samples)}", soft_wrap=True)


def _recorded(sensor: Sensor[float], seconds: float, console: Console) -> list[Sample]:
    """Samples until time is up, or until Ctrl-C."""
    samples: list[Sample] = []
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"recording {sensor.description.name}", total=seconds)
        try:
            for sample in record(sensor):
                samples.append(sample)
                watts = f"{sample.mw / 1000:.3f} W" if sample.mw is not None else "fails"
                described = f"recording {sensor.description.name}, {watts}"
                progress.update(task, completed=min(sample.t_s, seconds), description=described)
                if sample.t_s >= seconds:
                    break
        except KeyboardInterrupt:
            if not samples:
                raise
    return samples


def _summary(samples: list[Sample]) -> str:
    powers_mw = [sample.mw for sample in samples if sample.mw is not None]
    longest_s = max((after.t_s - before.t_s for before, after in pairwise(samples)), default=0.0)
    low, high, mean = min(powers_mw), max(powers_mw), sum(powers_mw) / len(powers_mw)
    return (
        f"{len(powers_mw)} samples over {samples[-1].t_s:.1f} s, {len(samples) - len(powers_mw)} failures, longest gap"
        f" {longest_s:.3f} s; {mean / 1000:.3f} W on average, {low / 1000:.3f} to {high / 1000:.3f} W"
    )


def main() -> None:
    record_meter.__doc__ = __doc__
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(record_meter)
    app()


if __name__ == "__main__":
    main()
