"""Inference with ONNX Runtime: the newest model that proved itself, and the one before to fall back on.

A folder holds `<digest>.onnx` files and `slots.json`, which names the current and the previous model and changes in
one rename. A model goes live after its digest is right, a session loads and a self-test gives finite logits.
"""

import json
import os
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from edge.files import write_atomic
from protocol import networks, operators
from protocol.architecture import Architecture
from protocol.errors import ProtocolError
from protocol.precision import Float32, Precision

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when the library loads: a privacy product phones nobody

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as native

Pictures = npt.NDArray[np.uint8]

SLOTS_FILE: Final = "slots.json"
REFUSED_FILE: Final = "refused"
"""Holds the SHA-256 of the model that was last rolled back from."""
SELF_TEST_PICTURES: Final = 2
INPUT_NAME: Final = "pictures"
OUTPUT_NAME: Final = "logits"
_LOG_ERRORS_ONLY: Final = 3
_REFUSALS: Final = (
    native.Fail,
    native.InvalidArgument,
    native.InvalidGraph,
    native.InvalidProtobuf,
    native.NoModel,
    native.NotImplemented,
    native.RuntimeException,
)
"""ONNX Runtime's exceptions have no base class of their own."""


class ModelRefused(Exception):
    """A model is not what was promised or does not run; whichever ran before still does."""


class NoModel(Exception):
    """There is nothing to infer with."""


@dataclass(frozen=True, slots=True)
class ModelSlot:
    """A model by name: SHA-256 of its file in hex, version, and what it is.

    Raises:
        ProtocolError: architecture or precision are none.
    """

    digest: str
    version: int
    architecture: str
    precision: str

    def __post_init__(self) -> None:
        Precision.parse(self.precision)
        networks.parse(self.architecture)

    @property
    def network(self) -> Architecture:
        """The table of its network."""
        return networks.parse(self.architecture)


@dataclass(frozen=True, slots=True)
class _Live:
    slot: ModelSlot
    session: Any


class Runtime:
    """The models of one folder, and inference with the current one.

    Changing models is for one thread; `infer` is for any.

    Args:
        folder: made if it is not there.

    Attributes:
        inferred: pictures since this object was made.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.inferred = 0
        self._folder = folder
        self._live: _Live | None = None
        self._previous: ModelSlot | None = None

    @classmethod
    def restore(cls, folder: Path) -> tuple[Self, list[str]]:
        """The runtime as it was, and a note for people on each model that no longer loads.

        A damaged current model falls back to the previous one.
        """
        runtime, notes = cls(folder), []
        slots, note = _read_slots(folder / SLOTS_FILE)
        if note:
            notes.append(note)
        for number, slot in enumerate(slots):
            try:
                runtime._live = runtime._load(slot)
            except ModelRefused as error:
                notes.append(f"{error}; falling back to the model before")
            else:
                runtime._previous = next(iter(slots[number + 1 :]), None)
                break
        return runtime, notes

    @property
    def current(self) -> ModelSlot | None:
        """The model in use."""
        return None if self._live is None else self._live.slot

    def require_current(self) -> ModelSlot:
        """The model in use.

        Raises:
            NoModel: there is none.
        """
        return self._require().slot

    @property
    def previous(self) -> ModelSlot | None:
        """The model to roll back to."""
        return self._previous

    def install(self, data: bytes, slot: ModelSlot) -> None:
        """Make `data` the current model, after it has proved itself.

        Raises:
            ModelRefused: wrong digest, rolled back from before, does not load, or fails the self-test. Nothing has
                changed then.
            OSError: no room; nothing has changed either.
        """
        if self._is_refused(slot.digest):
            raise ModelRefused(
                f"model version {slot.version}: was rolled back from on this device; the next one will do"
            )
        found = sha256(data).hexdigest()
        if found != slot.digest:
            raise ModelRefused(f"model version {slot.version}: SHA-256 {found}, expected {slot.digest}")
        live = _Live(slot, _proven_session(data, slot))
        write_atomic(self._path(slot), data, mode=0o644)
        # A model offered again under a new version is the same model: keep the older one to roll back to.
        previous = self._previous if self.current and self.current.digest == slot.digest else self.current
        self._switch(live, previous)

    def rollback(self) -> ModelSlot:
        """Go back to the previous model, and refuse the one left behind from now on.

        Raises:
            NoModel: there is no previous one.
            ModelRefused: it no longer loads.
        """
        if self._previous is None:
            raise NoModel(f"rollback in {self._folder}: there is no previous model")
        previous = self._load(self._previous)
        write_atomic(self._folder / REFUSED_FILE, self.require_current().digest.encode())
        self._switch(previous, None)
        return self.require_current()

    def _is_refused(self, digest: str) -> bool:
        path = self._folder / REFUSED_FILE
        return path.exists() and path.read_text() == digest

    def infer(self, pictures_NCHW: Pictures) -> Float32:
        """Logits float32[N, classes] of uint8 pictures in the model's (C, H, W).

        Raises:
            NoModel: none is installed.
            ValueError: the pictures have another shape or type.
        """
        live = self._require()
        expected = live.slot.network.input_shape
        if pictures_NCHW.dtype != np.uint8 or pictures_NCHW.shape[1:] != expected:
            found = f"{pictures_NCHW.dtype}{list(pictures_NCHW.shape)}"
            raise ValueError(f"pictures {found}: expected uint8[N, {', '.join(map(str, expected))}]")
        self.inferred += len(pictures_NCHW)
        return _run(live.session, pictures_NCHW)

    def _require(self) -> _Live:
        if self._live is None:
            raise NoModel(f"no model in {self._folder}: it arrives after the fleet's first round")
        return self._live

    def _switch(self, live: _Live, previous: ModelSlot | None) -> None:
        slots = [asdict(slot) for slot in (live.slot, previous) if slot is not None]
        write_atomic(self._folder / SLOTS_FILE, json.dumps(slots, indent=1).encode())
        self._live, self._previous = live, previous
        keep = {self._path(slot).name for slot in (live.slot, previous) if slot is not None}
        for path in self._folder.glob("*.onnx"):
            if path.name not in keep:
                path.unlink()

    def _load(self, slot: ModelSlot) -> _Live:
        path = self._path(slot)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelRefused(f"model {path}: {error.strerror}") from error
        if sha256(data).hexdigest() != slot.digest:
            raise ModelRefused(f"model {path}: damaged, its SHA-256 is no longer its name")
        return _Live(slot, _proven_session(data, slot))

    def _path(self, slot: ModelSlot) -> Path:
        return self._folder / f"{slot.digest}.onnx"


def session_of(data: bytes, threads: int = 1) -> Any:
    """An `onnxruntime.InferenceSession` whose threads do not spin while they wait.

    Spinning workers on a shared device cost three times the latency they save.

    Args:
        data: the ONNX file.
        threads: that compute, the calling one among them; the agent uses no other.

    Raises:
        ModelRefused: ONNX Runtime does not take the model.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = _LOG_ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    library = operators.operators(onnxruntime.__version__).library
    if library is not None:
        options.register_custom_ops_library(library)
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except _REFUSALS as error:
        raise ModelRefused(f"ONNX Runtime {onnxruntime.__version__} refuses the model: {_first_line(error)}") from error


def _proven_session(data: bytes, slot: ModelSlot) -> Any:
    """A session that gives finite logits of the right shape for pictures of noise."""
    network = slot.network
    session = session_of(data)
    pictures_NCHW = np.random.default_rng(0).integers(
        0, 256, (SELF_TEST_PICTURES, *network.input_shape), dtype=np.uint8
    )
    try:
        logits_NC = _run(session, pictures_NCHW)
    except (*_REFUSALS, ValueError) as error:
        raise ModelRefused(f"model version {slot.version}: fails its self-test: {_first_line(error)}") from error
    if logits_NC.shape != (SELF_TEST_PICTURES, network.classes) or not np.isfinite(logits_NC).all():
        raise ModelRefused(
            f"model version {slot.version}: self-test gave logits of shape {logits_NC.shape}, finite:"
            f" {bool(np.isfinite(logits_NC).all())}; expected {(SELF_TEST_PICTURES, network.classes)}, all finite"
        )
    return session


def _run(session: Any, pictures_NCHW: Pictures) -> Float32:
    logits_NC: Float32 = session.run([OUTPUT_NAME], {INPUT_NAME: pictures_NCHW})[0]
    return logits_NC


def _read_slots(path: Path) -> tuple[list[ModelSlot], str]:
    if not path.exists():
        return [], ""
    try:
        return [ModelSlot(**slot) for slot in json.loads(path.read_bytes())], ""
    except (ValueError, TypeError, ProtocolError) as error:
        return [], f"model list {path}: {error}; waiting for the next model"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0]
