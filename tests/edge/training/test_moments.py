"""Moments over batches are those of all values at once."""

import numpy as np
import torch

from edge.data import Dataset
from edge.training.moments import MomentPool
from edge.training.network import Network
from protocol.architecture import Architecture, Layer, Norm
from protocol.initial import initial_tensors
from protocol.networks import resnet18
from protocol.precision import Precision

FP32 = Precision.parse("fp32")


def test_moments_over_batches_are_those_of_all_values_at_once(network: Architecture, digits: Dataset) -> None:
    model = Network(network, FP32, initial_tensors(network, FP32, seed=1))
    whole: dict[str, list[np.ndarray]] = {}

    def record(layer: Layer, x: torch.Tensor) -> torch.Tensor:
        whole.setdefault(layer.name, []).append(x.double().numpy())
        return model.by_batch(layer, x)

    pool = MomentPool(model)
    with torch.no_grad():
        for part in (slice(0, 50), slice(50, 64), slice(64, 65)):
            pictures = torch.from_numpy(digits.pictures_NCHW[part])
            model(pictures, record)
            model(pictures, pool)
    moments = pool.tensors()
    assert {f"{name}.mean" for name in whole} | {f"{name}.variance" for name in whole} == set(moments)
    for name, parts in whole.items():
        values = np.concatenate(parts)
        np.testing.assert_allclose(moments[f"{name}.mean"], values.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(moments[f"{name}.variance"], values.var((0, 2, 3)), rtol=1e-4, atol=1e-6)


def test_group_normalisation_has_none(digits: Dataset) -> None:
    architecture = resnet18(width=0.125, input_shape=(1, 16, 16), norm=Norm.GROUP)
    model = Network(architecture, FP32, initial_tensors(architecture, FP32, seed=1))
    pool = MomentPool(model)
    with torch.no_grad():
        model(torch.from_numpy(digits.pictures_NCHW[:4]), pool)
    assert pool.tensors() == {}
