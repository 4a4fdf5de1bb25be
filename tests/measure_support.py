"""Documents made by hand, for what real runs show too rarely: noise of a known law, meters, past."""

from collections.abc import Sequence
from dataclasses import replace

from edge.measure.conditions import Conditions, Moment
from edge.measure.document import SCHEMA, Document, Measured, Plan, Window
from edge.measure.energy import CallEnergy
from edge.measure.latency import Latency, WarmUp
from edge.measure.subject import Facts, Kind
from edge.meters.modelled import DESCRIPTION
from protocol.messages import EnergySource

MOMENT = Moment(1500.0, 50.0, 0.1, None)
CONDITIONS = Conditions("Pi 4", "aarch64", "Linux 6", 4, 1, "performance", 0, {"python": "3.13"}, MOMENT, MOMENT)
FACTS = Facts(Kind.INFERENCE, "resnet18:width=0.0625,stem=3x3,input=1x32x32,classes=10", "W8A8", 1, "0" * 64, None, 0.5)


def measured(
    p50s_ms: Sequence[float], label: str = "W8A8, batch 1", cpu: Sequence[float] | None = None, **facts: object
) -> Measured:
    """A subject whose windows have these medians; processor time is the same where it is not given."""
    windows = tuple(
        Window(turn, 100, 1.0, p50_ms, cpu_ms, 50.0, EnergySource.MODELLED, "")
        for turn, (p50_ms, cpu_ms) in enumerate(zip(p50s_ms, p50s_ms if cpu is None else cpu, strict=True))
    )
    latency = Latency(500, p50s_ms[0], p50s_ms[0], None, p50s_ms[0], p50s_ms[0]) if len(p50s_ms) else None
    energy = CallEnergy(EnergySource.MODELLED, 0.5, 0.5, 0.5, 0.5, "")
    return Measured(label, replace(FACTS, **facts), 1.0, 1.0, WarmUp(9, 1.0, steady=True), latency, energy, windows)


def document(*subjects: Measured, yardstick_ms: Sequence[float] = (), **changes: object) -> Document:
    """A run of them."""
    made = Document(
        SCHEMA, "2026-01-01T00:00:00+00:00", True, Plan(), CONDITIONS, DESCRIPTION, None, tuple(yardstick_ms), subjects
    )
    return replace(made, **changes)
