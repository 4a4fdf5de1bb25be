"""Bits of every layer, where all of them at one width is not the best: the same program, with layers for devices.

Z. Dong, Z. Yao et al., "HAWQ-V2: Hessian Aware trace-Weighted Quantization of Neural Networks", NeurIPS 2020, arXiv
1911.03852, and Z. Yao et al., "HAWQ-V3", ICML 2021, arXiv 2011.10680, section 3.4, which poses it as an integer
program: what a layer loses at each width, and what it takes there, are known apart, and their sums are what counts.

This plans. Exported files have one width, and eight bits in the first convolution and the classifier.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite, prod
from typing import Final

from aggregator.allocate.choices import Choice
from aggregator.allocate.program import solve
from protocol import networks
from protocol.architecture import Architecture, Layer
from protocol.energy import layer_bops
from protocol.precision import Precision

BYTES: Final = "bytes of weights"
BOPS: Final = "bit operations of an inference"
STEPS: Final = 1_000_000
"""The largest loss in whole units."""

Sensitivities = Mapping[str, Mapping[int, float]]
"""By layer and by bits of its weights, what the loss rises by."""


class SensitivityError(ValueError):
    """Sensitivities from which no plan can be made; the message names the layer or the key."""


@dataclass(frozen=True)
class Plan:
    """Bits by layer.

    Attributes:
        bits: of the weights of every layer that was asked for.
        loss: the sum of what they lose.
        weight_bytes: of the whole network.
        bops: of an inference with the whole network.
        proven: whether no other plan within the limits loses less.
    """

    bits: Mapping[str, int]
    loss: float
    weight_bytes: float
    bops: float
    proven: bool


def plan(
    network: Architecture,
    sensitivities: Sensitivities,
    *,
    activation_bits: int = 8,
    weight_bytes: float = inf,
    bops: float = inf,
) -> Plan:
    """The bits that lose least.

    Args:
        network: all of its layers with weights, but for those that stay at eight bits, must have sensitivities.
        sensitivities: finite, not negative.
        activation_bits: of every layer.
        weight_bytes: limit for the weights of the whole network.
        bops: limit for an inference with it (`protocol.energy.bops`).

    Raises:
        SensitivityError: a layer is missing or unknown, or a loss is no loss.
        Infeasible: not even the narrowest widths given keep the limits.
        Unsupported: there is no such width.
    """
    layers = _free(network)
    _check(layers, sensitivities)
    rest_bytes, rest_bops = _rest(network, activation_bits)
    largest = max((loss for losses in sensitivities.values() for loss in losses.values()), default=0.0) or 1.0
    widths = {name: sorted(sensitivities[name], reverse=True) for name in layers}
    groups = [
        [
            Choice(
                -round(sensitivities[name][bits] / largest * STEPS),
                {BYTES: _bytes(layer, bits), BOPS: _bops(network, name, bits, activation_bits)},
            )
            for bits in widths[name]
        ]
        for name, layer in layers.items()
    ]
    at_most = {BYTES: max(0.0, weight_bytes - rest_bytes), BOPS: max(0.0, bops - rest_bops)}
    solution = solve(groups, at_most)
    bits = {name: widths[name][pick] for name, pick in zip(layers, solution.picks, strict=True)}
    taken = [group[pick].uses for group, pick in zip(groups, solution.picks, strict=True)]
    return Plan(
        bits=bits,
        loss=sum(sensitivities[name][width] for name, width in bits.items()),
        weight_bytes=rest_bytes + sum(use[BYTES] for use in taken),
        bops=rest_bops + sum(use[BOPS] for use in taken),
        proven=solution.proven,
    )


def _free(network: Architecture) -> dict[str, Layer]:
    return {layer.name: layer for layer in network.layers if layer.weight_shape is not None and not layer.pinned}


def _check(layers: Mapping[str, Layer], sensitivities: Sensitivities) -> None:
    missing, unknown = sorted(layers.keys() - sensitivities.keys()), sorted(sensitivities.keys() - layers.keys())
    if missing or unknown:
        raise SensitivityError(
            f"sensitivities: missing {', '.join(missing) or 'none'}; unknown {', '.join(unknown) or 'none'}; expected"
            " every layer with weights but the first convolution and the classifier"
        )
    for name, losses in sensitivities.items():
        if not losses or not all(isfinite(loss) and loss >= 0 for loss in losses.values()):
            raise SensitivityError(
                f"sensitivities of {name} = {dict(losses)}: expected a loss of 0 or more for each width"
            )


def _rest(network: Architecture, activation_bits: int) -> tuple[float, float]:
    """What the layers at eight bits take."""
    at_eight = Precision(8, activation_bits)
    rows = network.at(at_eight)
    pinned = [layer for layer in network.layers if layer.weight_shape is not None and layer.pinned]
    bops = sum(layer_bops(rows, rows.by_name[layer.name], at_eight) for layer in pinned)
    return sum(_bytes(layer, 8) for layer in pinned), float(bops)


def _bytes(layer: Layer, bits: int) -> float:
    assert layer.weight_shape is not None
    return prod(layer.weight_shape) * bits / 8


def _bops(network: Architecture, name: str, bits: int, activation_bits: int) -> float:
    precision = Precision(bits, activation_bits)
    rows = network.at(precision)
    return float(layer_bops(rows, rows.by_name[name], precision))


def read(text: str) -> tuple[Architecture, Sensitivities, int]:
    """Network, sensitivities and activation bits of a JSON document, all for `plan`.

        {"architecture": "cnn4:…", "activation_bits": 8, "loss": {"conv2": {"8": 0.001, "4": 0.01, "2": 0.2}, …}}

    Raises:
        SensitivityError: it is no such document.
        ProtocolError: there is no such network.
    """
    try:
        document = json.loads(text)
        losses = {name: {int(bits): float(loss) for bits, loss in by.items()} for name, by in document["loss"].items()}
        return networks.parse(str(document["architecture"])), losses, int(document.get("activation_bits", 8))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        expected = '{"architecture": …, "loss": {layer: {bits: loss}}}'
        raise SensitivityError(f"sensitivities: {error!r}; expected {expected}") from error
