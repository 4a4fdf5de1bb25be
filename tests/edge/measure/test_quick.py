"""What one inference costs here: latency is measured, energy says that it is modelled."""

from pathlib import Path

import numpy as np
import pytest
from edge_support import NETWORK, export, slot_of

from edge.measure.quick import MIN_RUNS, measure_cost, measure_latency
from edge.meters.base import Accuracy
from edge.meters.modelled import ModelledMeter
from edge.runtime import Runtime
from edge.session import Pictures
from protocol.energy import inference_energy
from protocol.messages import EnergySource
from protocol.precision import Float32, Precision


def test_cost_is_a_measured_latency_and_a_modelled_energy(tmp_path: Path) -> None:
    runtime, meter = Runtime(tmp_path), ModelledMeter()
    data = export()
    runtime.install(data, slot_of(data))
    cost = measure_cost(runtime, meter)
    assert cost.precision == "W8A8"
    assert 0 < cost.latency_ms < 1000
    assert cost.source is EnergySource.MODELLED
    assert cost.energy_mj == pytest.approx(inference_energy(NETWORK, Precision.parse("W8A8")).total_mj)
    assert meter.description.accuracy is Accuracy.MODEL


def test_percentiles_are_in_order_and_of_single_pictures() -> None:
    shapes = []

    def infer(pictures_NCHW: Pictures) -> Float32:
        shapes.append(pictures_NCHW.shape)
        return np.zeros((1, 10), np.float32)

    latency = measure_latency(infer, (1, 8, 8))
    assert set(shapes) == {(1, 1, 8, 8)}
    assert latency.p50_ms <= latency.p90_ms <= latency.p99_ms
    assert latency.runs >= MIN_RUNS
