"""The chain of passes, in the order in which they run.

    float     build → float_weights → fold_float → float_arithmetic → attach_metadata
    integer   build → quantize_weights → fold_integer → integer_arithmetic → pack_weights → attach_metadata

Passes over numbers check what they read and what they made; after each pass over an ONNX model onnx's own checker
runs. `attach_metadata` comes last and apart, because it also tells how the check of the finished graph went.
"""

from onnx import ModelProto

from export.graph import FoldedFloat, FoldedInteger, Graph, build
from export.passes.float_arithmetic import float_arithmetic
from export.passes.fold_normalisation import fold_float, fold_integer
from export.passes.integer_arithmetic import integer_arithmetic
from export.passes.pack_weights import pack_weights
from export.passes.quantize_weights import float_weights, quantize_weights
from export.writer import check_valid
from protocol.architecture import Architecture, Tensors
from protocol.precision import Precision


def float_numbers(architecture: Architecture, precision: Precision, tensors: Tensors) -> Graph[FoldedFloat]:
    """The numbers of an fp32 network.

    Raises:
        ExportError: the tensors are not such a network's.
    """
    return fold_float(float_weights(build(architecture, precision, tensors), tensors))


def integer_numbers(architecture: Architecture, precision: Precision, tensors: Tensors) -> Graph[FoldedInteger]:
    """The numbers of an integer network, which the model and the reference share.

    Raises:
        ExportError: the tensors are not such a network's.
    """
    return fold_integer(quantize_weights(build(architecture, precision, tensors), tensors))


def to_onnx(architecture: Architecture, precision: Precision, tensors: Tensors) -> ModelProto:
    """The finished graph, weights at their width, without metadata.

    Raises:
        ExportError: the tensors are not such a network's, or a pass broke the model.
    """
    if precision.is_float:
        model = float_arithmetic(float_numbers(architecture, precision, tensors))
        check_valid(model)
        return model
    return integer_model(integer_numbers(architecture, precision, tensors))


def integer_model(graph: Graph[FoldedInteger]) -> ModelProto:
    """The second half of the chain, for numbers from wherever: a direct export or a nested file.

    Raises:
        ExportError: a pass broke the model.
    """
    model = integer_arithmetic(graph)
    check_valid(model)
    model = pack_weights(model, graph.architecture, graph.precision)
    check_valid(model)
    return model
