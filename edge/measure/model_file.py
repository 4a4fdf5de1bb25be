"""A model file as it runs here: the bytes, the session and the options that the agent's own runtime uses."""

import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from edge.measure.calls import NS_PER_MS, Calls, repeat
from edge.measure.subject import Facts, Kind, MeasureError
from edge.session import INPUT_NAME, OUTPUT_NAME, ModelRefused, Pictures, identify, metadata, session_of
from protocol.architecture import Architecture
from protocol.energy import inference_energy
from protocol.precision import Precision


class ModelFile:
    """Inference of one batch with one file.

    Args:
        data: the file's bytes.
        name: of the file, for messages.
        batch: pictures in a call.
        threads: of ONNX Runtime, which does not spin on them.

    Raises:
        MeasureError: the file is no model, or does not say what it is.
    """

    def __init__(self, data: bytes, name: str, batch: int, threads: int = 1) -> None:
        self._data, self._name, self._threads = data, name, threads
        network, precision, accuracy = _identify(self._session(), name)
        modelled_mj = batch * inference_energy(network, precision).total_mj
        digest = sha256(data).hexdigest()
        self.facts = Facts(Kind.INFERENCE, network.spec, str(precision), batch, digest, accuracy, modelled_mj)
        self.load_ms = self.first_call_ms = 0.0
        self._pictures_NCHW: Pictures = np.random.default_rng(0).integers(
            0, 256, (batch, *network.input_shape), dtype=np.uint8
        )
        self._call: Callable[[], object] | None = None

    def __enter__(self) -> Self:
        began_ns = time.perf_counter_ns()
        session = self._session()
        self.load_ms = (time.perf_counter_ns() - began_ns) / NS_PER_MS
        self._call = lambda: session.run([OUTPUT_NAME], {INPUT_NAME: self._pictures_NCHW})
        self.first_call_ms = self.run(0, 1).p50_ms
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call = None

    def run(self, for_s: float, at_least: int) -> Calls:
        """See `Subject.run`."""
        assert self._call is not None, "a subject runs inside its block"
        return repeat(self._call, for_s, at_least, self._threads)

    def _session(self) -> Any:
        try:
            return session_of(self._data, self._threads)
        except ModelRefused as error:
            raise MeasureError(f"model {self._name}: {error}") from error


def read_model(path: Path) -> bytes:
    """The bytes of a model file.

    Raises:
        MeasureError: it is not there or cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise MeasureError(f"model {path}: {error.strerror}; expected a file that bitfleet-export wrote") from error


def _identify(session: Any, name: str) -> tuple[Architecture, Precision, float | None]:
    """Network, precision and accuracy as the file states them."""
    said = metadata(session)
    try:
        accuracy = said.get("accuracy")
        return *identify(said), None if accuracy is None else float(accuracy)
    except ModelRefused as error:
        raise MeasureError(f"model {name}: {error}") from error
    except ValueError as error:
        raise MeasureError(f"model {name}: its metadata: {error}") from error
