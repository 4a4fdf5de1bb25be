"""One model file as ONNX Runtime runs it: a session that proved itself before it is asked, and is warm by then."""

import os
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from protocol import networks, operators
from protocol.architecture import Architecture
from protocol.errors import ProtocolError
from protocol.precision import Float32, Precision

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when the library loads: a privacy product phones nobody

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as native

Pictures = npt.NDArray[np.uint8]

SELF_TEST_PICTURES: Final = 2
INPUT_NAME: Final = "pictures"
OUTPUT_NAME: Final = "logits"
INPUT_TYPE: Final = "tensor(uint8)"
OUTPUT_TYPE: Final = "tensor(float)"
_PREFIX: Final = "bitfleet."
"""Of the metadata that the exporter attaches."""
_LOG_NOTHING: Final = 4
"""Errors come as exceptions and are told once, by whoever catches them."""
_REFUSALS: Final = (
    native.EPFail,
    native.Fail,
    native.InvalidArgument,
    native.InvalidGraph,
    native.InvalidProtobuf,
    native.NoModel,
    native.NotImplemented,
    native.RuntimeException,
    MemoryError,
    RuntimeError,  # a C++ exception on its way through the binding, such as a thread that could not be started
)
"""ONNX Runtime's exceptions have no base class of their own."""
_NO_MEMORY: Final = ("bad_alloc", "Failed to allocate memory")
"""How ONNX Runtime words it where it does not raise MemoryError."""


class ModelRefused(Exception):
    """A model is not what was promised or does not run; whichever ran before still does."""


class InferenceFailed(Exception):
    """A model that proved itself could not answer for these pictures; it may for fewer."""


@dataclass(frozen=True, slots=True)
class Session:
    """Inference with one model; for any thread."""

    network: Architecture
    native: Any

    def infer(self, pictures_NCHW: Pictures) -> Float32:
        """Logits float32[N, classes] of uint8 pictures in the network's (C, H, W).

        Raises:
            ValueError: the pictures have another shape or type.
            InferenceFailed: ONNX Runtime gave up, as a rule for want of memory.
        """
        expected = self.network.input_shape
        if pictures_NCHW.dtype != np.uint8 or pictures_NCHW.shape[1:] != expected:
            found = f"{pictures_NCHW.dtype}{list(pictures_NCHW.shape)}"
            raise ValueError(f"pictures {found}: expected uint8[N, {', '.join(map(str, expected))}]")
        try:
            logits_NC: Float32 = self.native.run([OUTPUT_NAME], {INPUT_NAME: pictures_NCHW})[0]
        except _REFUSALS as error:
            raise InferenceFailed(f"inference of {len(pictures_NCHW)} pictures at once: {_why(error)}") from error
        return logits_NC


def proven(session: Any, network: Architecture, batch: int = 1) -> Session:
    """A session of `session_of` once it gave finite logits of the right shape for pictures of noise.

    The first run of a size plans its memory, so the test includes the size to be served: afterwards no caller waits.

    Args:
        session: of ONNX Runtime.
        network: what it must compute.
        batch: pictures in most of the inferences to come.

    Raises:
        ModelRefused: it takes or gives something else, or fails the test.
    """
    _check_signature(session, network)
    found = Session(network, session)
    for pictures in dict.fromkeys((SELF_TEST_PICTURES, batch)):
        _self_test(found, pictures)
    return found


def session_of(data: bytes, threads: int = 1) -> Any:
    """An `onnxruntime.InferenceSession` whose threads do not spin while they wait.

    Spinning workers on a shared device cost three times the latency they save.

    Args:
        data: the ONNX file.
        threads: that compute, the calling one among them.

    Raises:
        ModelRefused: ONNX Runtime does not take the model.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = _LOG_NOTHING
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    library = operators.operators(onnxruntime.__version__).library
    try:
        if library is not None:
            options.register_custom_ops_library(library)
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except _REFUSALS as error:
        raise ModelRefused(f"ONNX Runtime {onnxruntime.__version__} refuses the model: {_why(error)}") from error


def metadata(session: Any) -> dict[str, str]:
    """What the exporter wrote into the file, by its short names; empty for a file of somebody else's."""
    said = session.get_modelmeta().custom_metadata_map
    return {name.removeprefix(_PREFIX): value for name, value in said.items() if name.startswith(_PREFIX)}


def identify(said: dict[str, str]) -> tuple[Architecture, Precision]:
    """Network and precision as a file's `metadata` states them.

    Raises:
        ModelRefused: it does not, or they are none.
    """
    try:
        return networks.parse(said["architecture"]), Precision.parse(said["precision"])
    except KeyError as error:
        raise ModelRefused(f"its metadata has no {error}; expected a file that bitfleet-export wrote") from error
    except ProtocolError as error:
        raise ModelRefused(f"its metadata: {error}") from error


def _check_signature(session: Any, network: Architecture) -> None:
    wanted = (INPUT_NAME, INPUT_TYPE, list(network.input_shape))
    inputs = [(one.name, one.type, list(one.shape[1:])) for one in session.get_inputs()]
    if inputs != [wanted]:
        raise ModelRefused(f"the model takes {_listed(inputs)}; expected {_listed([wanted])}")
    outputs = [(one.name, one.type) for one in session.get_outputs()]
    if (OUTPUT_NAME, OUTPUT_TYPE) not in outputs:
        shown = ", ".join(f"{name} {kind}" for name, kind in outputs) or "nothing"
        raise ModelRefused(f"the model gives {shown}; expected {OUTPUT_NAME} {OUTPUT_TYPE}")


def _listed(inputs: list[tuple[str, str, list[Any]]]) -> str:
    return ", ".join(f"{name} {kind}[N, {', '.join(map(str, shape))}]" for name, kind, shape in inputs) or "nothing"


def _self_test(session: Session, pictures: int) -> None:
    network = session.network
    pictures_NCHW = np.random.default_rng(0).integers(0, 256, (pictures, *network.input_shape), dtype=np.uint8)
    try:
        logits_NC = session.infer(pictures_NCHW)
    except InferenceFailed as error:
        raise ModelRefused(f"fails its self-test: {error}") from error
    finite = bool(np.isfinite(logits_NC).all())
    if logits_NC.shape != (pictures, network.classes) or not finite:
        raise ModelRefused(
            f"self-test gave logits of shape {logits_NC.shape}, finite: {finite}; expected"
            f" {(pictures, network.classes)}, all finite"
        )


def _why(error: Exception) -> str:
    text = str(error).strip().split("\n", maxsplit=1)[0]
    if isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY):
        return "not enough memory"
    return text
