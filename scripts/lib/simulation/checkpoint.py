"""A run on disk: after every round the state, at the end the outcome and the model. Each file is whole or absent.

    <digest>.checkpoint   everything that round n + 1 needs, to the bit; gone when the run is finished
    <digest>.model        the final calibrated model, a `GlobalModel` file
    <digest>.json         the outcome; a run that has one is finished

A checkpoint is an uncompressed `.npz` archive, whose CRC of every member tells damage apart.
"""

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import numpy as np

from aggregator.model import GlobalModel, ModelError
from edge.files import remove, write_atomic
from protocol.architecture import Tensors
from simulation.downlink import Chain
from simulation.errors import SimulationError
from simulation.rates import Past
from simulation.setup import Outcome, Setup

_MODEL: Final = "model"
_STATE: Final = "state"
_HISTORY: Final = "history"
"""Residuals are named `<device>/<tensor>`, so none of these can be one."""

_DAMAGED: Final = (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error, ModelError)


class Residual(NamedTuple):
    """What a device's last update left out, and in which round."""

    number: int
    tensors: Tensors


@dataclass(frozen=True)
class State:
    """A run between two rounds.

    Attributes:
        model: global, as trained.
        residuals: by device, of those that keep one.
        accuracy: by precision, one for each judged round so far.
        loss: mean training loss of every round.
        up_bytes: of all updates, every round.
        down_bytes: of all base models, every round.
        calibration_bytes: of all updates of one calibration.
        wall_s: spent so far.
        chain: what the devices hold, where the base model comes down by steps.
        steps: announced for the next round, where the recipe takes any.
        past: what rounds decided and spent.
    """

    model: GlobalModel
    residuals: Mapping[int, Residual] = field(default_factory=dict)
    accuracy: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    loss: tuple[float, ...] = ()
    up_bytes: tuple[int, ...] = ()
    down_bytes: tuple[int, ...] = ()
    calibration_bytes: int = 0
    wall_s: float = 0.0
    chain: Chain = field(default_factory=Chain)
    steps: tuple[float, ...] = ()
    past: Past = field(default_factory=Past)

    @property
    def number(self) -> int:
        """Rounds done."""
        return len(self.loss)

    def to_bytes(self) -> bytes:
        """As a checkpoint."""
        history = {
            "accuracy": self.accuracy,
            "loss": self.loss,
            "up_bytes": self.up_bytes,
            "down_bytes": self.down_bytes,
            "calibration_bytes": self.calibration_bytes,
            "wall_s": self.wall_s,
            "chain": self.chain.to_json(),
            "steps": self.steps,
            "past": self.past.to_json(),
            "residual_of": {str(device): residual.number for device, residual in self.residuals.items()},
        }
        arrays: dict[str, Any] = {
            _MODEL: np.frombuffer(self.model.to_bytes(), dtype=np.uint8),
            _STATE: np.frombuffer(self.chain.state, dtype=np.uint8),
            _HISTORY: np.array(json.dumps(history)),
        }
        for device, residual in self.residuals.items():
            arrays |= {f"{device}/{name}": values for name, values in residual.tensors.items()}
        archive = io.BytesIO()
        np.savez(archive, allow_pickle=False, **arrays)
        return archive.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a checkpoint.

        Raises:
            SimulationError: it is damaged.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            model = GlobalModel.from_bytes(arrays.pop(_MODEL).tobytes())
            history = json.loads(str(arrays.pop(_HISTORY)))
            chain = Chain.from_json(arrays.pop(_STATE).tobytes(), history.pop("chain"))
            residuals: dict[int, Residual] = {
                int(device): Residual(number, {}) for device, number in history.pop("residual_of").items()
            }
            for name, values in arrays.items():
                device, _, tensor = name.partition("/")
                residuals[int(device)].tensors[tensor] = values
            accuracy = {name: tuple(values) for name, values in history.pop("accuracy").items()}
            lists = ("loss", "up_bytes", "down_bytes", "steps")
            loss, up_bytes, down_bytes, steps = (tuple(history.pop(name)) for name in lists)
            past = Past.from_json(history.pop("past"))
            return cls(
                model, residuals, accuracy, loss, up_bytes, down_bytes, **history, chain=chain, steps=steps, past=past
            )
        except _DAMAGED as error:
            raise SimulationError(f"checkpoint of {len(data)} bytes cannot be read: {error}") from error


@dataclass(frozen=True)
class Shelf:
    """Where the files of one run lie."""

    folder: Path
    setup: Setup

    @property
    def checkpoint(self) -> Path:
        """Of a run under way."""
        return self.folder / f"{self.setup.digest}.checkpoint"

    @property
    def model(self) -> Path:
        """Of a finished run."""
        return self.folder / f"{self.setup.digest}.model"

    @property
    def outcome(self) -> Path:
        """Of a finished run."""
        return self.folder / f"{self.setup.digest}.json"

    @property
    def lock(self) -> Path:
        """Held by whoever plays the run."""
        return self.folder / f".{self.setup.digest}.lock"

    def load(self) -> State | None:
        """The state kept last, None before the first round.

        Raises:
            SimulationError: the checkpoint is damaged; the message names it.
        """
        try:
            return State.from_bytes(self.checkpoint.read_bytes())
        except FileNotFoundError:
            return None
        except SimulationError as error:
            raise SimulationError(f"{self.checkpoint}: {error}") from error

    def keep(self, state: State) -> None:
        """Keep a state in place of the one before.

        Raises:
            SimulationError: the disk does not take it; the one before stays.
        """
        self._write(self.checkpoint, state.to_bytes())

    def finished(self) -> Outcome | None:
        """The outcome, None before the run is finished.

        Raises:
            SimulationError: its file is damaged; the message names it.
        """
        try:
            outcome = Outcome.from_json(json.loads(self.outcome.read_bytes()))
        except FileNotFoundError:
            return None
        except _DAMAGED as error:
            raise SimulationError(f"{self.outcome}: cannot be read as an outcome: {error}") from error
        if outcome.setup != self.setup:
            raise SimulationError(f"{self.outcome}: outcome of another setup, {outcome.setup.digest}")
        return outcome

    def finish(self, outcome: Outcome, model: GlobalModel) -> None:
        """Keep outcome and model, and drop the checkpoint; killed in between, the last round is played again.

        Raises:
            SimulationError: the disk does not take them; the checkpoint stays.
        """
        self._write(self.model, model.to_bytes())
        self._write(self.outcome, (json.dumps(outcome.to_json(), indent=1, ensure_ascii=False) + "\n").encode())
        remove(self.checkpoint)
        self.lock.unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget the run."""
        for path in (self.outcome, self.model, self.checkpoint):
            path.unlink(missing_ok=True)

    def _write(self, path: Path, data: bytes) -> None:
        try:
            write_atomic(path, data, mode=0o644)
        except OSError as error:
            raise SimulationError(
                f"{path}: {len(data)} bytes cannot be written: {error.strerror}; what was there stays, and the same"
                " command goes on from it"
            ) from error
