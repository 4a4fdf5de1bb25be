"""Weights files: the wire's own payload (`protocol.codec.payload`), for export at its own precisions or another."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.arithmetic import require_supported
from export.errors import ExportError
from protocol.architecture import PROFILE, Architecture, Tensors
from protocol.codec import payload
from protocol.errors import RemoteProtocolError
from protocol.initial import derive_profile
from protocol.precision import Precision, join


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's tensors under the names of `architecture.tensors(*precisions)`: shared ones and a profile each."""

    architecture: Architecture
    precisions: tuple[Precision, ...]
    tensors: Tensors

    @property
    def precision(self) -> Precision:
        """The precision that is exported when none is asked for."""
        return self.precisions[0]

    def at(self, precision: Precision) -> Tensors:
        """The tensors for export at `precision`, under their plain names.

        At a precision whose profile the file lacks this is post-training quantization: moments and activation steps
        are lent by `lender`, weight steps follow from the weights instead of having been learned.

        Raises:
            ExportError: the exporter does not write this precision, or no profile can lend to it.
        """
        require_supported(precision, nested=self.architecture.nested)
        lender = self.lender(precision)
        specs = self.architecture.tensors(*self.precisions)
        known = {spec.plain_name: self.tensors[spec.name] for spec in specs if spec.profile in {"", str(lender)}}
        if lender == precision:
            return known
        wanted = self.architecture.tensors(precision)
        shared = {spec.name: known[spec.name] for spec in wanted if spec.role not in PROFILE}
        return shared | derive_profile(self.architecture, precision, shared, known)

    def lender(self, precision: Precision) -> Precision:
        """Whose profile serves `precision`: its own, else the nearest width with equal activations, the wider of two.

        fp32 needs no activation steps and borrows from any.

        Raises:
            ExportError: the file holds no steps for activations of that many bits.
        """
        bits = precision.activation_bits
        lenders = [item for item in self.precisions if precision.is_float or item.activation_bits == bits]
        if not lenders:
            held = join(self.precisions)
            raise ExportError(
                f"weights are {held} and hold no steps of {bits}-bit activations: expected a WxA{bits} file,"
                " or pictures to --calibrate with"
            )

        def distance(item: Precision) -> tuple[bool, int, int]:
            return item != precision, abs(item.weight_bits - precision.weight_bits), -item.weight_bits

        return min(lenders, key=distance)


def weights_file(weights: Weights) -> bytes:
    """The bytes of a weights file; the same weights give the same bytes."""
    names = join(weights.precisions)
    header = payload.Header(weights.architecture.spec, "fp32", names, payload.Content.WEIGHTS, pictures=0)
    return payload.encode(header, weights.tensors, np.random.default_rng(0))


def load_weights(path: Path) -> Weights:
    """Read a weights file.

    Raises:
        ExportError: it holds no model's weights.
        OSError: it cannot be read.
    """
    try:
        content = payload.decode(path.read_bytes())
    except RemoteProtocolError as error:
        raise ExportError(f"{path} is no weights file: {error}") from error
    if content.header.content is not payload.Content.WEIGHTS:
        raise ExportError(f"{path} holds an update's differences: expected the weights of a whole model")
    return Weights(content.header.network, content.header.precisions, content.tensors)
