"""The error-feedback residual on disk: `committed`, and beside it what the update on its way would make of it.

    e of the last accepted update ── encode ──> pending ── receipt: accepted ──> committed
                                                       └── refused ───────────> dropped

A task trained again after a crash starts from the same committed residual and so gives the same bytes.
"""

import io
import zipfile
from pathlib import Path

import numpy as np

from edge.files import remove, sync_folder, write_atomic
from protocol.architecture import Tensors
from protocol.codec.feedback import aged

_ARCHITECTURE, _ROUND = "//architecture", "//round"
"""Names that no tensor has."""


class Residuals:
    """The residuals of one device.

    Args:
        folder: made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._committed = folder, folder / "committed.npz"

    def load(self, architecture: str, round_: int) -> Tensors:
        """The committed residual by weight name.

        Faded by the rounds since (`aged`). Empty when there is none, when it belongs to another architecture or is too
        old, and when its file is damaged: a lost residual costs accuracy for a few rounds, never correctness.
        """
        try:
            # Opened here, since numpy leaves a file that is no archive open.
            with self._committed.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                tensors = {name: archive[name] for name in archive.files}
        except (FileNotFoundError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            return {}
        if str(tensors.pop(_ARCHITECTURE)) != architecture:
            return {}
        return aged(tensors, round_ - int(tensors.pop(_ROUND)))

    def propose(self, task: str, architecture: str, round_: int, residual: Tensors) -> None:
        """Keep what the residual becomes if the update of `task` is accepted."""
        buffer = io.BytesIO()
        labels = {_ARCHITECTURE: np.array(architecture), _ROUND: np.array(round_)}
        np.savez(buffer, allow_pickle=False, **labels, **residual)
        write_atomic(self._pending(task), buffer.getvalue())

    def promote(self, task: str) -> None:
        """The update of `task` counted: its residual is the committed one. Again is no harm."""
        pending = self._pending(task)
        if pending.exists():
            pending.replace(self._committed)
            sync_folder(self._folder)

    def drop(self, task: str) -> None:
        """The update of `task` did not count."""
        remove(self._pending(task))

    def _pending(self, task: str) -> Path:
        return self._folder / f"pending-{task}.npz"
