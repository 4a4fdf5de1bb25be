"""Finds the compiled operators and says whether a runtime can have them."""

import os
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import ModuleType


@dataclass(frozen=True, slots=True)
class Operators:
    """What a runtime gets.

    Attributes:
        library: path of the library to register with a session's options, None without one.
        note: how binary convolutions are computed, or why not; for people.
    """

    library: str | None
    note: str


def operators(runtime_version: str) -> Operators:
    """The operators for ONNX Runtime of this version. BITFLEET_KERNEL=plain does without them.

    They name ONNX Runtime's C functions by their place in its table, so a version they were not tried with gets none.
    """
    if os.environ.get("BITFLEET_KERNEL") == "plain":
        return Operators(None, "in standard operators, as BITFLEET_KERNEL=plain asks")
    module = _module()
    if module is None:
        return Operators(None, "in standard operators: no C compiler was there when bitfleet was installed")
    if not module.runs_with(runtime_version):
        return Operators(
            None, f"in standard operators: our own were not tried with ONNX Runtime {runtime_version}, only up to 1.28"
        )
    return Operators(module.__file__, f"by our own kernels, path {module.chosen()}")


@cache
def _module() -> ModuleType | None:
    try:
        return import_module("protocol.operators._binary")
    except ImportError:  # not built everywhere
        return None
