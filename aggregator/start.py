"""Where a federation starts when it does not start from nothing: the tensors of a weights file.

Such a file is what `bitfleet-export adopt` makes of a network trained elsewhere, or what another fleet trained. The
profiles it holds count as trained, so a fleet's first moments are the file's; activation steps of precisions that it
lacks are measured by the devices of the first round, as ever.
"""

from pathlib import Path

from aggregator.model import GlobalModel, profile_specs, shared_specs
from export.errors import ExportError
from export.weights import Weights, load_weights
from protocol.architecture import Tensors
from protocol.precision import Precision


class StartError(Exception):
    """A file that no federation can start from; the message names it and says why."""


def starting_model(path: Path) -> GlobalModel:
    """The model in a weights file, every profile included.

    Raises:
        StartError: it cannot be read, or holds no weights.
    """
    weights = _load(path)
    plain = {precision: _under_plain_names(weights, precision) for precision in weights.precisions}
    any_profile = plain[weights.precision]
    return GlobalModel(
        weights.architecture.spec,
        {spec.name: any_profile[spec.name] for spec in shared_specs(weights.architecture)},
        {
            str(precision): {spec.name: tensors[spec.name] for spec in profile_specs(weights.architecture, precision)}
            for precision, tensors in plain.items()
        },
    )


def architecture_of(path: Path) -> str:
    """The spec of the network in a weights file.

    Raises:
        StartError: it cannot be read, or holds no weights.
    """
    return _load(path).architecture.spec


def _load(path: Path) -> Weights:
    try:
        return load_weights(path)
    except ExportError as error:
        raise StartError(f"start: {error}") from error
    except OSError as error:
        raise StartError(f"start = {str(path)!r}: {error.strerror}") from error


def _under_plain_names(weights: Weights, precision: Precision) -> Tensors:
    specs = weights.architecture.tensors(*weights.precisions)
    return {spec.plain_name: weights.tensors[spec.name] for spec in specs if spec.profile in {"", str(precision)}}
