"""Generated values that more than one test file draws: small networks, their tensors, messages."""

from dataclasses import fields
from typing import Any

import numpy as np
from hypothesis import strategies as st

from protocol.architecture import Architecture, Role, Tensors
from protocol.messages import TYPES
from protocol.networks import FAMILIES, resnet18
from protocol.precision import Precision
from protocol.schema import Blob, Choice, Flag, Int, Kind, Real, Record, Sequence, Text

SMALL = resnet18(width=0.0625, input_shape=(1, 8, 8), classes=3)
"""The smallest useful network: 11 k parameters, every kind of layer the 3×3 stem has."""

PRECISIONS = tuple(Precision.parse(name) for name in ("fp32", "W8A8", "W4A8", "W2A8", "W1A8"))


def usual_stem(family: str) -> str:
    """What a spec says of the first of a family's stems."""
    stem = next(iter(FAMILIES[family].stems), "")
    return f",stem={stem}" if stem else ""


def random_tensors(network: Architecture, *precisions: Precision, seed: int = 0, scale: float = 0.1) -> Tensors:
    """Normal values for every tensor, variances positive."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for spec in network.tensors(*precisions):
        values = rng.normal(scale=scale, size=spec.shape).astype(np.float32)
        tensors[spec.name] = np.abs(values) if spec.role is Role.VARIANCE else values
    return tensors


def _values(kind: Kind) -> st.SearchStrategy[Any]:
    match kind:
        case Text(limit):
            return st.text(max_size=min(limit, 12))
        case Int(low, high):
            return st.integers(low, high)
        case Real(low, high):
            return st.floats(low, high, allow_nan=False)
        case Blob(limit):
            return st.binary(max_size=min(limit, 40))
        case Flag():
            return st.booleans()
        case Choice(options):
            return st.sampled_from(list(options))
        case Sequence(inner, limit):
            return st.lists(_values(inner), max_size=min(limit, 3)).map(tuple)
        case Record(cls):
            return _instances(cls)
    raise AssertionError(f"no strategy for {kind}")


def _instances(cls: type[Any]) -> st.SearchStrategy[Any]:
    return st.builds(cls, **{item.name: _values(item.metadata["kind"]) for item in fields(cls)})


messages = st.sampled_from(list(TYPES.values())).flatmap(_instances)
"""Any message with any legal values."""
