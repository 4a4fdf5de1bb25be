"""Pass: the weights join the graph, as floats or as the integers they were trained as.

The rule is `protocol.weights.coded_weight`, which the trainer's fake quantization mirrors: what was trained is what
is shipped. Nothing is calibrated or adjusted here.
"""

from export.errors import ExportError
from export.graph import After, Coded, Graph, Latent
from export.grids import grid_of
from protocol.architecture import Layer, Tensors
from protocol.weights import coded_weight, latent_weight


def float_weights(graph: Graph[After], tensors: Tensors) -> Graph[Latent]:
    """Every weight as float32, standardized where the table says so."""
    network = graph.architecture
    return graph.map(lambda layer, after: Latent(latent_weight(network, layer, tensors), after))


def quantize_weights(graph: Graph[After], tensors: Tensors) -> Graph[Coded]:
    """Every weight as int8 codes and a step per output channel.

    Raises:
        ExportError: the graph is float, or a code lies outside its grid.
    """
    if graph.precision.is_float:
        raise ExportError("quantize_weights: fp32 weights stay float, expected an integer precision")

    def change(layer: Layer, after: After) -> Coded:
        coded = coded_weight(graph.architecture, layer, graph.precision, tensors)
        grid = grid_of(graph.architecture, layer, graph.precision)
        if not grid.holds(coded.codes_OX):
            raise ExportError(f"layer {layer.name}: codes outside the grid of {grid.bits} bits")
        return Coded(coded.codes_OX, coded.step_O, after)

    return graph.map(change)
