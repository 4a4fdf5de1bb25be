"""Pass: say inside the file what it is: architecture, precision, round, base model, accuracy, what it was checked on.

Keys start with `bitfleet.`; values are strings, as ONNX wants them. The graph is not touched, so a check made before
this pass holds after it.
"""

from collections.abc import Mapping
from typing import Final

from onnx import ModelProto, helper

from export.errors import ExportError

PREFIX: Final = "bitfleet."


def attach_metadata(model: ModelProto, metadata: Mapping[str, str]) -> ModelProto:
    """The model with `metadata` in its properties, in alphabetical order so that equal models give equal bytes.

    Raises:
        ExportError: a value is not a string.
    """
    for key, value in metadata.items():
        if not isinstance(value, str):
            raise ExportError(f"metadata {key} = {value!r}: expected a string")
    labelled = ModelProto()
    labelled.CopyFrom(model)
    helper.set_model_props(labelled, {f"{PREFIX}{key}": metadata[key] for key in sorted(metadata)})
    return labelled


def read_metadata(model: ModelProto) -> dict[str, str]:
    """What `attach_metadata` wrote, empty for a file from elsewhere."""
    return {item.key.removeprefix(PREFIX): item.value for item in model.metadata_props if item.key.startswith(PREFIX)}
