"""The short measurement after an installation: one picture at a time, for the next birth; `run` is the thorough one."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from edge.meters.base import Meter
from edge.meters.span import Span
from edge.runtime import Runtime
from edge.session import Pictures
from protocol.architecture import Shape
from protocol.energy import inference_energy
from protocol.messages import Cost
from protocol.precision import Float32, Precision

WARM_UP_RUNS: Final = 5
RUNS: Final = 50
PATIENCE_S: Final = 3.0
"""A slow board with a wide network stops earlier: its latency varies less, in proportion, than a fast one's."""
MIN_RUNS: Final = 5
_NS_PER_MS: Final = 1e6


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles over `runs` inferences of one picture, in milliseconds."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    runs: int


def measure_latency(infer: Callable[[Pictures], Float32], input_shape: Shape) -> Latency:
    """Time `infer` on one picture of noise at a time.

    Args:
        infer: takes uint8[1, C, H, W].
        input_shape: (C, H, W).
    """
    picture_1CHW = np.random.default_rng(0).integers(0, 256, (1, *input_shape), dtype=np.uint8)
    for _ in range(WARM_UP_RUNS):
        infer(picture_1CHW)
    durations_ns: list[int] = []
    give_up_at_ns = time.perf_counter_ns() + int(PATIENCE_S * 1e9)
    while len(durations_ns) < RUNS:
        started_ns = time.perf_counter_ns()
        if started_ns > give_up_at_ns and len(durations_ns) >= MIN_RUNS:
            break
        infer(picture_1CHW)
        durations_ns.append(time.perf_counter_ns() - started_ns)
    return _percentiles(np.array(durations_ns) / _NS_PER_MS)


def _percentiles(durations_ms: npt.NDArray[np.float64]) -> Latency:
    p50, p90, p99 = (float(value) for value in np.percentile(durations_ms, (50, 90, 99)))
    return Latency(p50, p90, p99, len(durations_ms))


def measure_cost(runtime: Runtime, meter: Meter) -> Cost:
    """What one inference with the current model costs here: latency measured, energy as good as the meter.

    Raises:
        NoModel: none is installed.
    """
    slot = runtime.require_current()
    network, precision = slot.network, Precision.parse(slot.precision)
    modelled_mj = inference_energy(network, precision).total_mj
    span = Span(meter)
    latency = measure_latency(runtime.infer, network.input_shape)
    inferences = latency.runs + WARM_UP_RUNS
    energy = span.end(modelled_mj * inferences)
    return Cost(slot.precision, latency.p50_ms, energy.mj / inferences, energy.source)
