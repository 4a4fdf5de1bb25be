"""Weights files: the wire's own payload (`protocol.codec.payload`), for export at its own or another precision."""

from dataclasses import dataclass
from pathlib import Path

from export.arithmetic import require_supported
from export.errors import ExportError
from protocol.architecture import PROFILE, Architecture, Tensors
from protocol.codec import payload
from protocol.errors import RemoteProtocolError
from protocol.initial import derive_profile
from protocol.precision import Precision


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's tensors, the precision whose profile they carry, and the network they belong to."""

    architecture: Architecture
    precision: Precision
    tensors: Tensors

    def at(self, precision: Precision) -> Tensors:
        """The tensors for export at `precision`.

        At another precision than the file's own this is post-training quantization: moments and activation steps are
        the file's, weight steps follow from the weights instead of having been learned.

        Raises:
            ExportError: the file is fp32 and has no activation steps to lend.
        """
        require_supported(precision)
        if precision == self.precision:
            return self.tensors
        if self.precision.is_float:
            raise ExportError(f"weights are fp32 and hold no activation steps: expected a {precision} or WxA8 file")
        shared = {
            spec.name: self.tensors[spec.name]
            for spec in self.architecture.tensors(precision)
            if spec.role not in PROFILE
        }
        return shared | derive_profile(self.architecture, precision, shared, self.tensors)


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
    return Weights(content.header.network, Precision.parse(content.header.precision), content.tensors)
