"""Noise that stands in for rounding: APQN of K. Gupta et al., arXiv 2206.10844.

ŵ = w + (Δ/2)·u        u uniform on [−1, 1]        Δ = 2·max|w|/(2^b − 1) per output channel        ∂ŵ/∂w = 1
"""

import torch
from torch import Tensor


def noisy_weight(weight_OX: Tensor, bits: int, generator: torch.Generator) -> Tensor:
    """Weights with the noise that a grid of 2^bits levels makes.

    Args:
        weight_OX: float32[O, …] latents.
        bits: 1 to 16; above, weights stay as they are.
        generator: of the noise; the same state gives the same noise.
    """
    if bits > 16:
        return weight_OX
    reach_O = weight_OX.detach().abs().flatten(1).amax(1) / ((1 << bits) - 1)
    uniform = torch.rand(weight_OX.shape, generator=generator, device=generator.device).to(weight_OX.device)
    return weight_OX + reach_O.view(-1, *(1,) * (weight_OX.dim() - 1)) * (2 * uniform - 1)
