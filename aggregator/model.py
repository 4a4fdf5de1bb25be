"""The fleet's model: tensors that all precisions share, and one profile (moments, steps) for each precision.

File layout, deterministic: `BFGM`, version byte 1, little-endian uint32 header length, msgpack header
[architecture, [precision, …]] with precisions sorted, then float32 tensors without names, in the order of
`Architecture.tensors`: the shared ones, then each profile's.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Self

import msgpack
import numpy as np

from protocol import networks
from protocol.architecture import PROFILE, Architecture, Tensors, TensorSpec
from protocol.codec.payload import Content, Header, encode, header_seed
from protocol.codec.recipe import Recipe
from protocol.errors import RemoteProtocolError
from protocol.initial import derive_profile, initial_tensors
from protocol.precision import FP32, Precision, join
from protocol.reader import Reader

MAGIC: Final = b"BFGM"
VERSION: Final = 1


class ModelError(Exception):
    """Bytes that are no global model of this version; the message says what is wrong."""


@dataclass(frozen=True)
class GlobalModel:
    """One version of the fleet's model.

    Attributes:
        architecture: spec string.
        shared: weights, gains, offsets and biases by name, float32, at full precision.
        profiles: what belongs to one precision, by the precision's name; only precisions that were trained.
    """

    architecture: str
    shared: Tensors
    profiles: Mapping[str, Tensors]

    @classmethod
    def fresh(cls, architecture: str, seed: int) -> Self:
        """An untrained model: first weights, no profile."""
        network = networks.parse(architecture)
        tensors = initial_tensors(network, FP32, seed)
        return cls(architecture, {spec.name: tensors[spec.name] for spec in shared_specs(network)}, {})

    @cached_property
    def network(self) -> Architecture:
        """The table the spec names."""
        return networks.parse(self.architecture)

    def with_profile(self, precision: Precision) -> Self:
        """This model with a profile for `precision`, derived from the nearest one if it has none."""
        if str(precision) in self.profiles:
            return self
        profile = derive_profile(self.network, precision, self.shared, self._nearest(precision))
        return replace(self, profiles={**self.profiles, str(precision): profile})

    def tensors(self, *precisions: Precision) -> Tensors:
        """Every tensor of the model with the profiles of `precisions`, as `Architecture.tensors` names them."""
        profiles = {str(precision): self.with_profile(precision).profiles[str(precision)] for precision in precisions}
        specs = self.network.tensors(*precisions)
        return {spec.name: (profiles[spec.profile] if spec.profile else self.shared)[spec.plain_name] for spec in specs}

    def _nearest(self, precision: Precision) -> Tensors | None:
        """The profile nearest in weight bits, then in activation bits, then with more bits."""

        def distance(name: str) -> tuple[int, int, int]:
            other = Precision.parse(name)
            weight = other.weight_bits - precision.weight_bits
            return abs(weight), abs(other.activation_bits - precision.activation_bits), -weight

        return self.profiles[min(self.profiles, key=distance)] if self.profiles else None

    def to_bytes(self) -> bytes:
        """The model as a file; equal models give equal bytes."""
        header = msgpack.packb([self.architecture, sorted(self.profiles)])
        start = MAGIC + struct.pack("<BI", VERSION, len(header)) + header
        body = (group[spec.name].astype("<f4", copy=False).tobytes() for group, spec in self._layout())
        return b"".join([start, *body])

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a file of `to_bytes`.

        Raises:
            ModelError: it is none, or holds a value that is not finite.
        """
        try:
            return cls._read(Reader(data))
        except (RemoteProtocolError, ValueError, TypeError, msgpack.UnpackException) as error:
            raise ModelError(f"global model of {len(data)} bytes: {error}") from error

    @classmethod
    def _read(cls, reader: Reader) -> Self:
        magic, version = bytes(reader.take(4, "magic")), reader.byte("version")
        if (magic, version) != (MAGIC, VERSION):
            raise ModelError(
                f"global model starts with {magic.hex()} version {version}: expected {MAGIC.hex()} {VERSION}"
            )
        (length,) = struct.unpack("<I", reader.take(4, "header length"))
        architecture, precisions = msgpack.unpackb(reader.take(length, "header"))
        model = cls(architecture, {}, {str(Precision.parse(name)): {} for name in precisions})
        for group, spec in model._layout():
            group[spec.name] = reader.floats(spec.size, spec.name).reshape(spec.shape)
        reader.finish()
        return model

    def _layout(self) -> Iterator[tuple[Tensors, TensorSpec]]:
        """Which tensor of which group stands where in a file."""
        for spec in shared_specs(self.network):
            yield self.shared, spec
        for name in sorted(self.profiles):
            for spec in profile_specs(self.network, Precision.parse(name)):
                yield self.profiles[name], spec


def shared_specs(network: Architecture) -> list[TensorSpec]:
    """The tensors that every precision shares, in wire order."""
    return [spec for spec in network.tensors(FP32) if spec.role not in PROFILE]


def profile_specs(network: Architecture, precision: Precision) -> list[TensorSpec]:
    """The tensors that belong to one precision, in wire order."""
    return [spec for spec in network.tensors(precision) if spec.role in PROFILE]


def base_payload(model: GlobalModel, precisions: Sequence[Precision], recipe: str, seed: int) -> bytes:
    """The model with the profiles of `precisions` as devices download it; the same arguments give the same bytes.

    Under a lossy recipe devices train from the decoded base and send deltas against it. The aggregator adds them to
    its exact master, so coding errors of the way down do not pile up over the rounds.
    """
    drawn = header_seed(Recipe.parse(recipe), seed)
    header = Header(model.architecture, recipe, join(precisions), Content.WEIGHTS, pictures=0, seed=drawn)
    return encode(header, model.tensors(*precisions), np.random.default_rng(seed))
