"""Pass: latent float32 weights become the integers they were trained as.

The rule is `protocol.precision.quantize_weight`, which the trainer's fake quantization mirrors: what was trained is
what is shipped. Nothing is calibrated or adjusted here.
"""

import numpy as np

from export.errors import ExportError
from export.graph import Coded, Graph, Latent
from protocol.architecture import Layer
from protocol.precision import code_book, quantize_weight


def quantize_weights(graph: Graph[Latent]) -> Graph[Coded]:
    """Every weight as int8 codes and a step per output channel.

    Raises:
        ExportError: the graph is float, or a code lies outside its code book.
    """
    if graph.precision.is_float:
        raise ExportError("quantize_weights: fp32 weights stay float, expected an integer precision")

    def change(layer: Layer, node: Latent) -> Coded:
        assert node.step_O is not None  # every node of an integer graph has one
        bits = graph.precision.bits_of(pinned=layer.pinned)
        codes_OX = quantize_weight(node.weight_OX, node.step_O, bits)
        if not np.isin(codes_OX, code_book(bits)).all():
            raise ExportError(f"layer {layer.name}: codes outside the code book of {bits} bits")
        return Coded(codes_OX, node.step_O, node.norm, node.bias_O)

    return graph.map(change)
