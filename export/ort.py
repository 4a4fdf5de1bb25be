"""ONNX Runtime, in the one way this package uses it: quiet, on one thread, never phoning home.

`ORT_DISABLE_TELEMETRY` must be set before the library loads, so every import of onnxruntime in this package goes
through this file.
"""

import os
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from export.errors import ExportError
from protocol import operators

# Before the imports below, or it is too late.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as native

_LOG_FATAL_ONLY: Final = 4
"""Every error is raised as well; the caller decides what is printed."""

_REFUSALS: Final = (
    native.Fail,
    native.InvalidArgument,
    native.InvalidGraph,
    native.InvalidProtobuf,
    native.NoModel,
    native.NotImplemented,
    native.RuntimeException,
    ValueError,
)
"""ONNX Runtime's exceptions have no base class; ValueError stands for damaged names and unknown types."""


def session(model: bytes, *, optimized_path: str | None = None, standard: bool = False) -> Any:
    """An `onnxruntime.InferenceSession` on one CPU thread that does not spin while it waits.

    Spinning workers on a shared device cost three times the latency they save.

    Args:
        model: the ONNX file's bytes.
        optimized_path: where to write the graph as the session will run it.
        standard: do without our own operators, as a device does on which they could not be compiled.

    Raises:
        ExportError: the runtime refuses the model.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = _LOG_FATAL_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    library = None if standard else operators.operators(onnxruntime.__version__).library
    if library is not None:
        options.register_custom_ops_library(library)
    if optimized_path is not None:
        options.optimized_model_filepath = optimized_path
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except _REFUSALS as error:
        raise ExportError(f"ONNX Runtime refuses the model: {_first_line(error)}") from error


def run(session: Any, pictures_NCHW: npt.NDArray[np.uint8], outputs: Sequence[str]) -> list[npt.NDArray[Any]]:
    """The named outputs for a batch of pictures.

    Raises:
        ExportError: the runtime fails on them.
    """
    try:
        return list(session.run(list(outputs), {session.get_inputs()[0].name: pictures_NCHW}))
    except _REFUSALS as error:
        raise ExportError(f"ONNX Runtime cannot run the model: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0]
