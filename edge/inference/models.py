"""Which model answers: the one installed here, also the next one when it comes, or a file."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self

from edge.runtime import ModelSlot, Runtime, Serving
from edge.session import ModelRefused, identify, metadata, proven, session_of

Models = Callable[[], Serving]
"""Asked before every batch for the model to take."""


class Following:
    """The current model of a folder, and each that another process installs there, once it is ready here.

    The next model loads in a thread of its own, so that a stream goes on with the one before and does not wait.

    Args:
        runtime: restored from the folder.
        tell: hears why a new model was not taken.
    """

    def __init__(self, runtime: Runtime, tell: Callable[[str], None]) -> None:
        self._runtime, self._tell = runtime, tell
        self._pool = ThreadPoolExecutor(1, "next-model")
        self._loading: Future[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()

    def __call__(self) -> Serving:
        """The model of the moment.

        Raises:
            NoModel: there is none.
        """
        if self._loading is None and self._runtime.behind:
            self._loading = self._pool.submit(self._runtime.follow)
        elif self._loading is not None and self._loading.done():
            note, self._loading = self._loading.result(), None
            if note:
                self._tell(note)
        return self._runtime.serving


def from_file(path: Path, *, batch: int, threads: int) -> Serving:
    """An exported file, which says itself what it is; version 0 where no round made it.

    Raises:
        ModelRefused: it cannot be read or does not run here.
    """
    try:
        data = path.read_bytes()
        session = session_of(data, threads)
        said = metadata(session)
        network, precision = identify(said)
        version = int(said["round"]) if said.get("round", "").isdecimal() else 0
        slot = ModelSlot(sha256(data).hexdigest(), version, network.spec, str(precision))
        return Serving(slot, proven(session, network, batch))
    except OSError as error:
        raise ModelRefused(f"model {path}: {error.strerror}; expected a file that bitfleet-export wrote") from error
    except MemoryError as error:
        raise ModelRefused(f"model {path}: not enough memory to read it") from error
    except ModelRefused as error:
        raise ModelRefused(f"model {path}: {error}") from error
