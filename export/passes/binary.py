"""Finds what runs on bits: convolutions of 1-bit activations with 1-bit weights, and what goes with them.

    recode → conv                  one `BinaryConv`, if nothing else reads what the recode row stores
    recode → conv → add → prelu    one `BinaryResidual`, if all three store one stream at 8 bits

The rows in between are stored nowhere. A convolution that reads 1-bit activations from elsewhere is a `BinaryConv` too.
Depthwise ones and those with a GroupNorm stay what they are.
"""

from collections import defaultdict
from dataclasses import dataclass
from math import prod
from typing import Final

import numpy as np

from export.arithmetic import MAX_STORED, Coding, Int32, recode
from export.graph import FoldedInteger, Graph
from protocol.architecture import INPUT, Kind, Layer

LARGEST_KERNEL: Final = 7
LARGEST_WINDOW: Final = 65_535
"""Bits of a window whose differences the kernels count, in 16 bits."""


@dataclass(frozen=True, slots=True)
class Binary:
    """Rows that are one operator.

    Attributes:
        conv: the convolution.
        x: the row whose stored values are compared.
        threshold_C: a bit is 1 where the stored value reaches it, int32[C].
        shortcut: the row that is added, None for a `BinaryConv`.
        prelu: the row that ends a `BinaryResidual`.
    """

    conv: Layer
    x: str
    threshold_C: Int32
    shortcut: str | None = None
    prelu: Layer | None = None

    @property
    def last(self) -> Layer:
        """The row whose values come out."""
        return self.prelu or self.conv


@dataclass(frozen=True, slots=True)
class Plan:
    """Every `Binary` by its last row, and the rows that are part of one and come out nowhere."""

    operators: dict[str, Binary]
    absorbed: frozenset[str]


def plan(graph: Graph[FoldedInteger]) -> Plan:
    """What of a network runs on bits."""
    readers = defaultdict[str, list[Layer]](list)
    for row in graph.architecture.layers:
        for name in row.inputs:
            readers[name].append(row)
    binary = {row.name for row in graph.architecture.layers if _is_binary(graph, row)}
    absorbed = {
        row.name
        for row in graph.architecture.layers
        if row.kind is Kind.RECODE and all(reader.name in binary for reader in readers[row.name])
    }
    operators = {}
    for name in binary:
        operator = _operator(graph, readers, graph.architecture.by_name[name], absorbed)
        operators[operator.last.name] = operator
        if operator.prelu is not None:
            absorbed |= {name, operator.prelu.inputs[0]}
    return Plan(operators, frozenset(absorbed))


def _is_binary(graph: Graph[FoldedInteger], row: Layer) -> bool:
    if row.kind is not Kind.CONV or graph.precision.bits_of(pinned=row.pinned) > 1 or row.groups > 1:
        return False
    bits = row.in_shape[0] * row.kernel**2
    return (
        row.inputs[0] != INPUT
        and graph.nodes[row.name].norm is None
        and _levels(graph.coding_in(row)) is not None
        and row.in_shape[0] % 4 == 0
        and prod(row.weight_shape or ()) % 8 == 0
        and row.kernel <= LARGEST_KERNEL
        and row.padding < row.kernel
        and bits <= LARGEST_WINDOW
    )


def _levels(coding: Coding) -> int | None:
    """2 where bits are −1 and 1, 1 where they are 0 and 1, None where there are more than bits."""
    stored = (coding.zero, coding.low, coding.high, coding.pad)
    return {(1, 0, 2, 0): 2, (0, 0, 1, 0): 1}.get(stored)


def levels(coding: Coding) -> int:
    """Of activations that are bits: the largest stored value, in units of the step from the smallest."""
    found = _levels(coding)
    assert found is not None, coding
    return found


def _operator(graph: Graph[FoldedInteger], readers: dict[str, list[Layer]], conv: Layer, absorbed: set[str]) -> Binary:
    source = conv.inputs[0]
    if source in absorbed:
        row = graph.architecture.by_name[source]
        x, threshold_C = row.inputs[0], thresholds(graph, row)
    else:
        x, threshold_C = source, np.full(conv.in_shape[0], graph.codings[source].high, np.int32)
    if len(readers[conv.name]) == 1 and (add := readers[conv.name][0]).kind is Kind.ADD:
        shortcut = next((name for name in add.inputs if name != conv.name), None)
        if len(readers[add.name]) == 1 and (prelu := readers[add.name][0]).kind is Kind.PRELU:
            stored = {_stored(graph, name) for name in (conv.name, shortcut, add.name, prelu.name) if name is not None}
            if shortcut is not None and len(stored) == 1 and not graph.codings[conv.name].is_narrow:
                return Binary(conv, x, threshold_C, shortcut, prelu)
    return Binary(conv, x, threshold_C)


def _stored(graph: Graph[FoldedInteger], name: str) -> tuple[float, int, int, int]:
    coding = graph.codings[name]
    return float(coding.step), coding.zero, coding.low, coding.high


def thresholds(graph: Graph[FoldedInteger], row: Layer) -> Int32:
    """The smallest stored value of every channel that a recode row makes a one, int32[C]; 256 where there is none.

    By doing to every value what the reference does.
    """
    coding, threshold_C = graph.codings[row.name], graph.thresholds_C.get(row.name)
    every_VC = np.arange(MAX_STORED + 1, dtype=np.uint8)[:, None].repeat(row.out_shape[0], axis=1)
    ones_VC = recode(every_VC, graph.coding_in(row), coding, threshold_C) == coding.high
    return (MAX_STORED + 1 - ones_VC.sum(axis=0)).astype(np.int32)
