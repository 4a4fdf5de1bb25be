"""HiGHS, kept from standard output: it leaves notes there from C, where scripts expect JSON."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from scipy import optimize

_STDOUT: Final = 1
_STDERR: Final = 2


def milp(*arguments: Any, **options: Any) -> Any:
    """`scipy.optimize.milp`, whose notes go to standard error."""
    with _notes_to_stderr():
        return optimize.milp(*arguments, **options)


@contextmanager
def _notes_to_stderr() -> Iterator[None]:
    sys.stdout.flush()
    c_library = ctypes.CDLL(None)
    kept = os.dup(_STDOUT)
    try:
        os.dup2(_STDERR, _STDOUT)
        yield
        c_library.fflush(None)  # what lies in the C library's buffer would come out after the switch back
    finally:
        os.dup2(kept, _STDOUT)
        os.close(kept)
