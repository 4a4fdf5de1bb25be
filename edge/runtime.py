"""The models of a device: the newest that proved itself, and the one before to fall back on.

A folder holds `<digest>.onnx` files and `slots.json`, which names the current and the previous model and changes in
one rename. A model goes live after its digest is right, a session loads and a self-test gives finite logits. One
process changes the folder, the agent; any other may follow it.
"""

import json
import threading
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, Self

from edge.files import write_atomic
from edge.session import ModelRefused, Pictures, Session, proven, session_of
from protocol import networks
from protocol.architecture import Architecture
from protocol.errors import ProtocolError
from protocol.precision import Float32, Precision

SLOTS_FILE: Final = "slots.json"
REFUSED_FILE: Final = "refused"
"""Holds the SHA-256 of the model that was last rolled back from."""


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
class Serving:
    """A model that answers: its name and its session."""

    slot: ModelSlot
    session: Session


class Runtime:
    """The models of one folder, and inference with the current one.

    Changing models is for one thread; `infer` is for any, and keeps the model it began with while another takes over.

    Args:
        folder: made by the first installation.
        batch: pictures in most calls of `infer`; a model has run that many before it serves.
        threads: that compute an inference.

    Attributes:
        inferred: pictures since this object was made.
    """

    def __init__(self, folder: Path, *, batch: int = 1, threads: int = 1) -> None:
        self.inferred = 0
        self._folder, self._batch, self._threads = folder, batch, threads
        self._counting = threading.Lock()
        self._serving: Serving | None = None
        self._previous: ModelSlot | None = None
        self._seen = _stamp(folder / SLOTS_FILE)

    @classmethod
    def restore(cls, folder: Path, *, batch: int = 1, threads: int = 1) -> tuple[Self, list[str]]:
        """The runtime as it was, and a note for people on each model that no longer loads.

        A damaged current model falls back to the previous one. Nothing is written.
        """
        runtime, notes = cls(folder, batch=batch, threads=threads), []
        slots, note = _read_slots(folder / SLOTS_FILE)
        if note:
            notes.append(note)
        for number, slot in enumerate(slots):
            try:
                runtime._serving = runtime._load(slot)
            except ModelRefused as error:
                notes.append(f"{error}; falling back to the model before")
            else:
                runtime._previous = next(iter(slots[number + 1 :]), None)
                break
        return runtime, notes

    @property
    def current(self) -> ModelSlot | None:
        """The model in use."""
        return None if self._serving is None else self._serving.slot

    def require_current(self) -> ModelSlot:
        """The model in use.

        Raises:
            NoModel: there is none.
        """
        return self.serving.slot

    @property
    def serving(self) -> Serving:
        """The model in use, to be asked itself; it goes on answering after another took over.

        Raises:
            NoModel: there is none.
        """
        if self._serving is None:
            raise NoModel(f"no model in {self._folder}: it arrives after the fleet's first round")
        return self._serving

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
        serving = self._proven(data, slot)
        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self._path(slot), data, mode=0o644)
        # A model offered again under a new version is the same model: keep the older one to roll back to.
        previous = self._previous if self.current and self.current.digest == slot.digest else self.current
        self._switch(serving, previous)

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

    @property
    def behind(self) -> bool:
        """Whether another process has changed the folder since."""
        return _stamp(self._folder / SLOTS_FILE) != self._seen

    def follow(self) -> str:
        """Take over what another process has made the current model since, if anything.

        Returns:
            A note for people if that does not load here, empty otherwise; the model in use stays then.
        """
        note = ""
        # Again where the folder changed meanwhile: a file it named may be gone because a newer one has come.
        while (stamp := _stamp(self._folder / SLOTS_FILE)) != self._seen:
            self._seen = stamp
            note = self._take_over()
        return note

    def _take_over(self) -> str:
        slots, note = _read_slots(self._folder / SLOTS_FILE)
        if not slots:
            return note
        slot = slots[0]
        try:
            same = self._serving is not None and self._serving.slot.digest == slot.digest
            self._serving = Serving(slot, self.serving.session) if same else self._load(slot)
        except ModelRefused as error:
            return f"{error}; {'no model' if self.current is None else f'version {self.current.version}'} stays in use"
        self._previous = next(iter(slots[1:]), None)
        return ""

    def _is_refused(self, digest: str) -> bool:
        path = self._folder / REFUSED_FILE
        return path.exists() and path.read_text() == digest

    def infer(self, pictures_NCHW: Pictures) -> Float32:
        """Logits float32[N, classes] of uint8 pictures in the model's (C, H, W).

        Raises:
            NoModel: none is installed.
            ValueError: the pictures have another shape or type.
            InferenceFailed: there was no memory for so many.
        """
        logits_NC = self.serving.session.infer(pictures_NCHW)
        with self._counting:
            self.inferred += len(pictures_NCHW)
        return logits_NC

    def _switch(self, serving: Serving, previous: ModelSlot | None) -> None:
        slots = [asdict(slot) for slot in (serving.slot, previous) if slot is not None]
        write_atomic(self._folder / SLOTS_FILE, json.dumps(slots, indent=1).encode())
        self._serving, self._previous = serving, previous
        self._seen = _stamp(self._folder / SLOTS_FILE)
        keep = {self._path(slot).name for slot in (serving.slot, previous) if slot is not None}
        for path in self._folder.glob("*.onnx"):
            if path.name not in keep:
                path.unlink()

    def _load(self, slot: ModelSlot) -> Serving:
        path = self._path(slot)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelRefused(f"model {path}: {error.strerror}") from error
        except MemoryError as error:
            raise ModelRefused(f"model {path}: not enough memory to read it") from error
        if sha256(data).hexdigest() != slot.digest:
            raise ModelRefused(f"model {path}: damaged, its SHA-256 is no longer its name")
        return self._proven(data, slot)

    def _proven(self, data: bytes, slot: ModelSlot) -> Serving:
        try:
            return Serving(slot, proven(session_of(data, self._threads), slot.network, self._batch))
        except ModelRefused as error:
            raise ModelRefused(f"model version {slot.version}: {error}") from error

    def _path(self, slot: ModelSlot) -> Path:
        return self._folder / f"{slot.digest}.onnx"


def _stamp(path: Path) -> tuple[int, int] | None:
    """Changes with every renaming onto `path`; None where there is nothing."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _read_slots(path: Path) -> tuple[list[ModelSlot], str]:
    try:
        return [ModelSlot(**slot) for slot in json.loads(path.read_bytes())], ""
    except FileNotFoundError:
        return [], ""
    except (OSError, ValueError, TypeError, ProtocolError) as error:
        return [], f"model list {path}: {error}; waiting for the next model"
