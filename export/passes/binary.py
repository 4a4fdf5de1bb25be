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

from export.arithmetic import MAX_STORED, Int32, recode
from export.graph import FoldedInteger, Graph
from protocol.architecture import INPUT, Kind, Layer

LARGEST_KERNEL: Final = 7
LARGEST_WINDOW: Final = 65_535
"""Bits of a window whose differences the kernels count, in 16 bits."""

_LEVELS: Final = {(1, 0, 2, 0): 2, (0, 0, 1, 0): 1}
"""By zero, lowest, highest and padding of activations that are bits."""


@dataclass(frozen=True, slots=True)
class Binary:
    """Rows that are one operator.

    Attributes:
        conv: the convolution.
        levels: 2 where its bits are −1 and 1, 1 where they are 0 and 1.
        x: the row whose stored values are compared.
        threshold_C: a bit is 1 where the stored value reaches it, int32[C].
        shortcut: the row that is added, None for a `BinaryConv`.
        prelu: the row that ends a `BinaryResidual`.
    """

    conv: Layer
    levels: int
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
    levels = {row.name: found for row in graph.architecture.layers if (found := _levels(graph, row)) is not None}
    absorbed = {
        row.name
        for row in graph.architecture.layers
        if row.kind is Kind.RECODE and all(reader.name in levels for reader in readers[row.name])
    }
    operators = {}
    for name, found in levels.items():
        conv = graph.architecture.by_name[name]
        operator = Binary(conv, found, *_compared(graph, conv, absorbed), *_residual(graph, readers, conv, absorbed))
        operators[operator.last.name] = operator
        if operator.prelu is not None:
            absorbed |= {name, operator.prelu.inputs[0]}
    return Plan(operators, frozenset(absorbed))


def _levels(graph: Graph[FoldedInteger], row: Layer) -> int | None:
    """Of a convolution that runs on bits, None for every other row."""
    if row.kind is not Kind.CONV or graph.precision.bits_of(pinned=row.pinned) > 1 or row.groups > 1:
        return None
    fits = (
        row.inputs[0] != INPUT
        and graph.nodes[row.name].norm is None
        and row.in_shape[0] % 4 == 0
        and prod(row.weight_shape or ()) % 8 == 0
        and row.kernel <= LARGEST_KERNEL
        and row.padding < row.kernel
        and row.in_shape[0] * row.kernel**2 <= LARGEST_WINDOW
    )
    coding = graph.coding_in(row)
    return _LEVELS.get((coding.zero, coding.low, coding.high, coding.pad)) if fits else None


def _compared(graph: Graph[FoldedInteger], conv: Layer, absorbed: set[str]) -> tuple[str, Int32]:
    """The row that a convolution's bits are made of, and from which stored value on they are 1."""
    source = conv.inputs[0]
    if source not in absorbed:
        return source, np.full(conv.in_shape[0], graph.codings[source].high, np.int32)
    row = graph.architecture.by_name[source]
    return row.inputs[0], thresholds(graph, row)


def _residual(
    graph: Graph[FoldedInteger], readers: dict[str, list[Layer]], conv: Layer, absorbed: set[str]
) -> tuple[str, Layer] | tuple[None, None]:
    """What is added and the PReLU behind it, if nothing else reads what lies between and all store one stream.

    Of two binary convolutions that are added the first takes the other as its shortcut.
    """
    add = _only_reader(readers, conv, Kind.ADD)
    prelu = add and _only_reader(readers, add, Kind.PRELU)
    if add is None or prelu is None or add.name in absorbed:
        return None, None
    shortcut = next(name for name in add.inputs if name != conv.name)
    stored = {_stored(graph, name) for name in (conv.name, shortcut, add.name, prelu.name)}
    return (shortcut, prelu) if len(stored) == 1 and not graph.codings[conv.name].is_narrow else (None, None)


def _only_reader(readers: dict[str, list[Layer]], row: Layer, kind: Kind) -> Layer | None:
    """Whoever reads a row, if it is one and of this kind."""
    found = readers[row.name]
    return found[0] if len(found) == 1 and found[0].kind is kind else None


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
