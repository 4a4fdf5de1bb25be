"""Several exports at once: each distinct one is made once, on all cores, or taken from a cache.

Processes are spawned: a forked ONNX Runtime inherits locks that nobody opens. They ignore Ctrl-C and end with whoever
started them, so an interrupted batch leaves whole files or none.
"""

import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache as once
from hashlib import sha256
from importlib.metadata import version
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

import export
import protocol
from export.arithmetic import UInt8
from export.bundle import Export, export_model, installed_version
from export.cache import Cache
from export.errors import ExportError
from protocol.architecture import Architecture, Tensors
from protocol.precision import Precision

Outcome = Export | ExportError
"""What became of a job; the error names its precision."""
Progress = Callable[[int, int], None]
"""Told how many distinct exports there are by now, and how many there will be."""

_LIBRARIES: Final = ("numpy", "onnx", "onnxruntime")
"""They write and check the bytes."""


@dataclass(frozen=True, slots=True, eq=False)
class ExportJob:
    """The arguments of one `export_model`."""

    architecture: Architecture
    precision: Precision
    tensors: Tensors = field(repr=False)
    pictures_NCHW: UInt8 = field(repr=False)
    labels_N: npt.NDArray[np.integer[Any]] | None = field(repr=False)
    metadata: Mapping[str, str]

    def make(self) -> Export:
        """Build, check and label the model, here and now.

        Raises:
            ExportError: see `export_model`.
        """
        return export_model(
            self.architecture,
            self.precision,
            self.tensors,
            pictures_NCHW=self.pictures_NCHW,
            labels_N=self.labels_N,
            metadata=self.metadata,
        )

    def key(self) -> str:
        """SHA-256 in hex of everything that decides the file's bytes, this code and its libraries included."""
        whole = sha256()
        for part in self._parts():
            whole.update(sha256(part).digest())
        return whole.hexdigest()

    def _parts(self) -> Iterator[bytes]:
        yield maker().encode()
        yield self.architecture.spec.encode()
        yield self.architecture.digest
        yield str(self.precision).encode()
        yield repr(sorted(self.metadata.items())).encode()
        arrays: dict[str, npt.NDArray[Any]] = {f"tensor {name}": self.tensors[name] for name in sorted(self.tensors)}
        arrays["pictures"] = self.pictures_NCHW
        if self.labels_N is not None:
            arrays["labels"] = self.labels_N
        for name, values in arrays.items():
            yield f"{name} {values.dtype.str} {values.shape}".encode()
            yield np.ascontiguousarray(values).tobytes()


@once
def maker() -> str:
    """What makes the files: versions, and a digest of the code, which moves more often than its version does."""
    code = sha256()
    for package in (export, protocol):
        folder = Path(package.__path__[0])
        for path in sorted(folder.rglob("*.py")):
            code.update(str(path.relative_to(folder)).encode() + sha256(path.read_bytes()).digest())
    libraries = [f"{name} {version(name)}" for name in _LIBRARIES]
    return ", ".join([f"bitfleet {installed_version()} {code.hexdigest()}", *libraries])


def _nobody(done: int, total: int) -> None:
    """Nobody watches."""


def export_all(
    jobs: Sequence[ExportJob],
    *,
    cache: Cache | None = None,
    workers: int | None = None,
    progress: Progress = _nobody,
) -> list[Outcome]:
    """Make every job's export, equal jobs together.

    Args:
        jobs: what to export.
        cache: where exports are looked up and kept; None makes all of them.
        workers: processes, one for each core if not given; with one there is none but this.
        progress: told of every distinct export that is there.

    Returns:
        For each job, in order, its export or why there is none; one that fails takes no other with it.

    Raises:
        OSError: the cache cannot be written.
    """
    keys = [job.key() for job in jobs]
    distinct = dict(zip(keys, jobs, strict=True))
    found = {} if cache is None else {key: held for key in distinct if (held := cache.get(key)) is not None}
    outcomes: dict[str, Outcome] = dict(found)
    progress(len(outcomes), len(distinct))
    missing = {key: job for key, job in distinct.items() if key not in found}
    with closing(_made(missing, min(workers or cores(), len(missing)))) as made:
        for key, outcome in made:
            if cache is not None and isinstance(outcome, Export):
                cache.put(key, outcome)
            outcomes[key] = outcome
            progress(len(outcomes), len(distinct))
    return [outcomes[key] for key in keys]


def cores() -> int:
    """Those that this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _made(jobs: Mapping[str, ExportJob], workers: int) -> Generator[tuple[str, Outcome]]:
    """Outcomes by key, as they come."""
    if workers <= 1:
        for key, job in jobs.items():
            yield key, _outcome(job)
        return
    suspects = []
    with _pool(workers) as pool:
        for key, outcome in _submitted(pool, jobs):
            if outcome is None:
                suspects.append(key)
            else:
                yield key, outcome
    # A pool loses all its work with one process and does not tell whose it was: alone, the guilty one shows itself.
    for key in suspects:
        with _pool(1) as pool:
            for _, outcome in _submitted(pool, {key: jobs[key]}):
                yield key, outcome or ExportError(f"{jobs[key].precision}: the process that exported it was killed")


def _submitted(pool: ProcessPoolExecutor, jobs: Mapping[str, ExportJob]) -> Iterator[tuple[str, Outcome | None]]:
    """Outcomes by key, None where a process of the pool died."""
    futures: dict[Future[Outcome], str] = {}
    for key, job in jobs.items():
        try:
            futures[pool.submit(_outcome, job)] = key
        except BrokenProcessPool:
            yield key, None
    for future in as_completed(futures):
        try:
            yield futures[future], future.result()
        except BrokenProcessPool:
            yield futures[future], None


def _outcome(job: ExportJob) -> Outcome:
    try:
        return job.make()
    except ExportError as error:
        named = str(error).startswith(f"{job.precision} ")
        return error if named else type(error)(f"{job.precision}: {error}")
    except MemoryError:
        return ExportError(f"{job.precision}: not enough memory")


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that are gone when the block ends, at once if it is interrupted."""
    others = set(active_children())
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_prepare)
    try:
        yield pool
    except BaseException:
        for child in set(active_children()) - others:
            child.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare() -> None:
    """One thread for sums of products: the cores are taken by the other processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threadpool_limits(1, user_api="blas")
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
