"""Which model answers: the one installed here, also the next one when it comes, or a file."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from edge.runtime import ModelSlot, Runtime, Serving
from edge.session import ModelRefused, identify, metadata, proven, session_of

Models = Callable[[], Serving]
"""Asked before every batch for the model to take."""


def installed(runtime: Runtime, tell: Callable[[str], None], *, watch: bool) -> Models:
    """The current model of `runtime`.

    Args:
        runtime: restored from the agent's folder.
        tell: hears why a new model was not taken.
        watch: whether to take over what the agent installs meanwhile.
    """

    def current() -> Serving:
        if watch and (note := runtime.follow()):
            tell(note)
        return runtime.serving

    return current


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
