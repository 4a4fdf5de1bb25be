"""What SPEC.md points to as data: layers and tensors of networks, messages with their bounds, refusal codes."""

from dataclasses import MISSING, fields
from enum import Enum
from functools import partial
from itertools import product
from typing import Any, Final

from protocol import networks
from protocol.architecture import Norm, TensorSpec
from protocol.errors import Refusal
from protocol.messages import GUARDED_BY_SESSION, TYPES
from protocol.networks import FAMILIES
from protocol.precision import Precision
from protocol.schema import Blob, Choice, Flag, Int, Kind, Real, Record, Sequence, Text
from vectors import Files, Vector
from vectors.envelopes import plain
from vectors.payloads import BINARY, GROUPED, NETWORK

USUAL: Final = ("fp32", "W8A8", "W4A8", "W4A4", "W1A1")
PRECISIONS: Final = ("fp32", "W8A8", "W6A8", "W4A8", "W4A4", "W2A4", "W2A8", "W1A8", "W1A1", "W16A8", "W8A32")
"""Of the kit's own payloads' networks; profiles differ by weights of one bit, few or none, and by activations."""
EXTRA: Final = (NETWORK.spec, GROUPED, BINARY.spec, "resnet18:width=0.0625,stem=3x3,input=1x8x8,classes=3")
"""Networks of the kit's own payloads, and of tests/golden."""


def table(spec: str) -> Vector:
    """One network: what its digest is of, and its tensors in the order of the wire."""
    network = networks.parse(spec)
    names = PRECISIONS if spec in EXTRA else USUAL
    found = {name: network.tensors(Precision.parse(name)) for name in names}
    shared = next(iter(found.values()))
    return {
        "architecture": spec,
        "digest": network.digest.hex(),
        "layers": network.description.split("\n"),
        "shared": [_row(each) for each in shared if not each.profile],
        "profiles": {name: [_row(each) for each in specs if each.profile] for name, specs in found.items()},
    }


def _row(spec: TensorSpec) -> list[Any]:
    return [spec.name, list(spec.shape), str(spec.role)]


def family(name: str) -> Vector:
    """A family with every option it has."""
    made = FAMILIES[name]
    specs = [
        made(width=0.25, stem=stem, input_shape=(3, 32, 32), norm=norm, nested=nested).spec
        for stem, norm, nested in product(made.stems or (None,), Norm, (False, True))
        if made.normalised or norm is Norm.BATCH
    ]
    specs += [made(input_shape=(1, 28, 28)).spec, *(spec for spec in EXTRA if spec.startswith(f"{name}:"))]
    return {"requirement": "BF-060, BF-061, BF-068", "vectors": [table(spec) for spec in specs]}


def zero() -> Vector:
    """A network whose pictures have another zero than black."""
    return {
        "requirement": "BF-060",
        "vectors": [table("resnet18:width=0.25,stem=3x3,input=3x32x32,classes=10,zero=115")],
    }


def messages() -> Vector:
    """Every message: its type number, and its fields with key, kind and bounds."""
    vectors = [
        {
            "message": cls.__name__,
            "type": number,
            "guarded by": "session" if cls in GUARDED_BY_SESSION else "stamp",
            "fields": _fields(cls),
        }
        for number, cls in TYPES.items()
    ]
    return {"requirement": "BF-015", "vectors": vectors}


def _fields(cls: type[Any]) -> list[Vector]:
    return [
        {"key": item.metadata["key"], "name": item.name}
        | _kind(item.metadata["kind"])
        | ({} if item.default is MISSING else {"default": plain(item.default)})
        for item in fields(cls)
    ]


def _kind(kind: Kind) -> Vector:  # noqa: PLR0911 (a row for each kind)
    match kind:
        case Text(limit):
            return {"kind": "text", "most characters": limit}
        case Blob(limit):
            return {"kind": "bytes", "most bytes": limit}
        case Int(low, high):
            return {"kind": "integer", "from": low, "to": high}
        case Real(low, high):
            return {"kind": "number", "from": low, "to": high}
        case Flag():
            return {"kind": "boolean"}
        case Choice(options):
            return {"kind": "one of", "values": [_value(option) for option in options]}
        case Sequence(inner, limit):
            return {"kind": "list", "most items": limit, "of": _kind(inner)}
        case Record(cls):
            return {"kind": "map", "fields": _fields(cls)}
    raise AssertionError(f"no name for {kind}")


def _value(option: Enum) -> Any:
    return option.value


def refusals() -> Vector:
    """Every code there is."""
    return {"vectors": [{"refusal": code.value} for code in Refusal]}


FILES: Final[Files] = {
    "tables/messages.json": messages,
    "tables/messages-3.json": messages,  # with Offer.job and RoundState.job
    "tables/messages-2.json": messages,  # with Birth.max_latency_ms
    "tables/refusals.json": refusals,
    "tables/refusals-2.json": refusals,  # with quarantined
    **{f"tables/networks/{name}.json": partial(family, name) for name in FAMILIES},
    "tables/networks/binary18-2.json": partial(family, "binary18"),  # with stem 3x3s2
    "tables/networks/zero.json": zero,
}
