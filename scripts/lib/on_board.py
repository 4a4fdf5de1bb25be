"""Runs in the emulated Python of scripts/boards: CASES, a folder for each with model, pictures and expected logits.

Needs no more of bitfleet than the operators. Prints JSON: for each case whether every bit is as expected, by our
kernels and in standard operators.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from protocol import operators

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime


def main() -> None:
    ours = operators.operators(onnxruntime.__version__)
    if ours.library is None:
        sys.exit(ours.note)
    cases = {folder.name: compare(folder, ours.library) for folder in sorted(Path(sys.argv[1]).iterdir())}
    print(json.dumps({"operators": ours.note, "onnxruntime": onnxruntime.__version__, "cases": cases}))


def compare(folder: Path, library: str) -> dict[str, bool]:
    model = (folder / "model.onnx").read_bytes()
    pictures, expected = np.load(folder / "pictures.npy"), np.load(folder / "logits.npy")
    found = {"equal": session(model, library), "standard": session(model, None)}
    return {
        name: bool(np.array_equal(each.run(None, {"pictures": pictures})[0].view(np.int32), expected.view(np.int32)))
        for name, each in found.items()
    }


def session(model: bytes, library: str | None) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    if library is not None:
        options.register_custom_ops_library(library)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    main()
