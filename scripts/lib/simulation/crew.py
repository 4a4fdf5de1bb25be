"""Worker processes for all runs at once: one torch thread each, data loaded once, gone when this process is.

Workers hold one end of a pipe whose other end only this process has. Letting go of it ends them at once, in mid-task:
after Ctrl-C that is what we want, and after SIGKILL the kernel does it for us.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


class Crew(AbstractContextManager["Crew"]):
    """A pool of processes; leaving the block waits for nobody.

    Processes are spawned, not forked: a forked torch may not touch an accelerator.

    Args:
        workers: how many.
        processor: torch's name of what they compute with; several may share one accelerator.
    """

    def __init__(self, workers: int, processor: str) -> None:
        context = multiprocessing.get_context("spawn")
        held, self._leash = context.Pipe(duplex=False)
        self.workers, self.processor = workers, processor
        self._pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare, initargs=(held,))

    def submit(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Have a worker call a function of some module."""
        return self._pool.submit(function, *args, **kwargs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leash.close()
        self._pool.shutdown(wait=True, cancel_futures=True)


def _prepare(leash: Connection) -> None:
    """In a worker, before its first task."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to everybody; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(leash,), name="leash", daemon=True).start()


def _end_with(leash: Connection) -> None:
    leash.poll(None)
    os._exit(1)
