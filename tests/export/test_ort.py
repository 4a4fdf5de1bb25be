"""The runtime is quiet, single-threaded and told not to phone home before it loads."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import export
from export import ort
from export.errors import ExportError
from export.passes import to_onnx
from export.writer import serialize
from protocol.architecture import Architecture, Tensors
from protocol.precision import FP32, Precision

MakeTensors = Callable[[Architecture, Precision], Tensors]


def test_telemetry_is_off_before_the_library_loads() -> None:
    spy = """
import os, sys
class Spy:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            print(os.environ.get("ORT_DISABLE_TELEMETRY"))
os.environ.pop("ORT_DISABLE_TELEMETRY", None)
sys.meta_path.insert(0, Spy())
import export.cli
"""
    root = Path(export.__file__).parents[1]
    ran = subprocess.run([sys.executable, "-c", spy], cwd=root, capture_output=True, text=True, check=True, timeout=120)
    assert ran.stdout.split() == ["1"]


def test_only_one_file_imports_the_library() -> None:
    files = Path(export.__file__).parent.rglob("*.py")
    importers = [file.name for file in files if "import onnxruntime" in file.read_text()]
    assert importers == ["ort.py"]


def test_a_session_has_one_thread_that_does_not_spin(small: Architecture, make_tensors: MakeTensors) -> None:
    session = ort.session(serialize(to_onnx(small, FP32, make_tensors(small, FP32))))
    options = session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert session.get_providers() == ["CPUExecutionProvider"]


@pytest.mark.parametrize("data", [b"", b"not a model", bytes(64)])
def test_bytes_that_are_no_model_are_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(ExportError, match="ONNX Runtime refuses the model") as raised:
        ort.session(data)
    assert "\n" not in str(raised.value)
