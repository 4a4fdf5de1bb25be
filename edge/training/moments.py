"""Means and variances of each normalised layer over many batches, exact up to float32 rounding within a batch.

With n_b values, mean μ_b and variance σ²_b in batch b, per channel and in float64:

    n = Σ n_b        μ = Σ n_b·μ_b / n        σ² = Σ n_b·(σ²_b + μ_b²) / n − μ²
"""

from collections import defaultdict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edge.training.network import Network
from protocol.architecture import Layer, Role, Tensors

Float64 = npt.NDArray[np.float64]


class MomentPool:
    """Sums of counts, values and squares per layer; also the normaliser that fills them.

    Normalises each batch by its own statistics, as the training that follows or preceded does.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._count: dict[str, int] = defaultdict(int)
        self._sum_C: dict[str, Float64 | float] = defaultdict(float)
        self._square_C: dict[str, Float64 | float] = defaultdict(float)

    def __call__(self, layer: Layer, x: Tensor) -> Tensor:
        """Add the batch float32[N, C, H, W] to the sums and normalise it."""
        variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
        mean_C, variance_C = mean.double().cpu().numpy(), variance.double().cpu().numpy()
        count = x.numel() // x.shape[1]
        self._count[layer.name] += count
        self._sum_C[layer.name] += count * mean_C
        self._square_C[layer.name] += count * (variance_C + mean_C**2)
        return self._network.by_batch(layer, x)

    def tensors(self) -> Tensors:
        """float32 `<layer>.mean` and `<layer>.variance` of every layer seen."""
        moments: Tensors = {}
        for name, count in self._count.items():
            mean_C = np.asarray(self._sum_C[name] / count)
            variance_C = np.asarray(self._square_C[name] / count) - mean_C**2
            moments[f"{name}.{Role.MEAN}"] = mean_C.astype(np.float32)
            moments[f"{name}.{Role.VARIANCE}"] = np.maximum(variance_C, 0).astype(np.float32)
        return moments
