"""A network with nested codes as what all its precisions share and what each of them adds.

One 8-bit code per weight holds the codes of every narrower width in its leading bits (`protocol.weights`). What a
precision adds is folded: per channel the effect on the codes, a scale and a bias, and the steps of its activations.
From these numbers on a slice takes the same passes as a direct export, so both give the same bytes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto

from export.arithmetic import require_supported
from export.errors import ExportError
from export.graph import After, FoldedInteger, Graph, GroupNorm, Prelu, build, codings, zeroed
from export.grids import grid_of
from export.passes import integer_model
from export.passes.fold_normalisation import Folding, apply_folding, fold
from export.passes.quantize_weights import quantize_weights
from protocol.architecture import PROFILE, Architecture, Tensors
from protocol.precision import Float32, Int8, Precision, join
from protocol.weights import coded_weight, leading_bits

WIDEST = Precision(8, 8)


@dataclass(frozen=True, slots=True)
class Shared:
    """What is the same at every precision: 8-bit codes as trained, GroupNorms and PReLUs, by layer name."""

    codes_OX: Mapping[str, Int8]
    norms: Mapping[str, GroupNorm]
    prelus: Mapping[str, Prelu]


@dataclass(frozen=True, slots=True)
class Profile:
    """What one precision adds.

    Attributes:
        foldings: by the name of every layer with weights.
        steps: of every scale group.
        zeros: of the rows that narrow a signed stream to 2 bits or more.
        thresholds_C: of the rows that narrow one to 1 bit, float32[C].
    """

    foldings: Mapping[str, Folding]
    steps: Mapping[str, np.float32]
    zeros: Mapping[str, int]
    thresholds_C: Mapping[str, Float32]


@dataclass(frozen=True)
class NestedModel:
    """A network at several precisions."""

    architecture: Architecture
    shared: Shared = field(repr=False)
    profiles: Mapping[Precision, Profile] = field(repr=False)

    def graph(self, precision: Precision) -> Graph[FoldedInteger]:
        """The numbers of one precision.

        Raises:
            ExportError: the model does not hold it.
        """
        profile = self.profiles.get(precision)
        if profile is None:
            raise ExportError(f"precision {precision}: the nested model holds {join(self.profiles)}")
        rows = self.architecture.at(precision)
        frame = Graph(
            rows,
            precision,
            profile.foldings,
            codings(rows, precision, profile.steps, profile.zeros),
            self.shared.prelus,
            profile.thresholds_C,
        )
        return frame.map(
            lambda layer, folding: apply_folding(
                leading_bits(self.shared.codes_OX[layer.name], precision.bits_of(pinned=layer.pinned)),
                folding,
                grid_of(rows, layer, precision),
                self.shared.norms.get(layer.name),
            )
        )

    def slice(self, precision: Precision) -> ModelProto:
        """The ONNX model of one precision, the very one that `export.passes.to_onnx` makes of its tensors.

        Raises:
            ExportError: the model does not hold it.
        """
        return integer_model(self.graph(precision))


def nest(
    architecture: Architecture, precisions: Sequence[Precision], tensors_of: Callable[[Precision], Tensors]
) -> NestedModel:
    """Gather several precisions of one network.

    Args:
        architecture: with nested codes.
        precisions: at least one, each once.
        tensors_of: gives those of `architecture.tensors(precision)`; all but the profiles must be equal.

    Raises:
        ExportError: the codes are not nested, a precision cannot be written, or tensors are unusable or differ.
    """
    require_nestable(architecture, precisions)
    first = tensors_of(precisions[0])
    profiles = {}
    for precision in precisions:
        tensors = tensors_of(precision)
        graph = build(architecture, precision, tensors)
        _require_shared(architecture, precision, tensors, first)
        profiles[precision] = _profile(graph, tensors)
    return NestedModel(architecture, _shared(build(architecture, precisions[0], first), first), profiles)


def require_nestable(architecture: Architecture, precisions: Sequence[Precision]) -> None:
    """Check that a nested model can hold these precisions of this network.

    Raises:
        ExportError: it cannot.
    """
    if not architecture.nested:
        raise ExportError(f"architecture {architecture.spec}: expected one with codes=nested")
    if not precisions or len(set(precisions)) < len(precisions):
        raise ExportError(f"precisions {join(precisions)!r}: expected at least one, each once")
    for precision in precisions:
        if precision.is_float:
            raise ExportError("precision fp32: a nested model holds integer precisions")
        require_supported(precision, nested=True)


def _shared(graph: Graph[After], tensors: Tensors) -> Shared:
    rows = graph.architecture
    codes = graph.map(lambda layer, _: coded_weight(rows, layer, WIDEST, tensors).codes_OX)
    norms = {name: after for name, after in graph.nodes.items() if isinstance(after, GroupNorm)}
    return Shared(codes.nodes, norms, graph.prelus)


def _profile(graph: Graph[After], tensors: Tensors) -> Profile:
    rows, coded = graph.architecture, quantize_weights(graph, tensors)
    return Profile(
        foldings=coded.map(lambda layer, node: fold(coded, layer, node)).nodes,
        steps={layer.scale: graph.codings[layer.name].step for layer in rows.layers if layer.scale},
        zeros={row.name: graph.codings[row.name].zero for row in zeroed(rows, graph.precision)},
        thresholds_C=graph.thresholds_C,
    )


def _require_shared(architecture: Architecture, precision: Precision, tensors: Tensors, first: Tensors) -> None:
    for spec in architecture.tensors(precision):
        if spec.role not in PROFILE and not np.array_equal(tensors[spec.name], first[spec.name]):
            raise ExportError(
                f"tensor {spec.name} at {precision} is not that of the first precision: expected one model"
            )
