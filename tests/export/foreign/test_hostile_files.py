"""Files made to do harm, or damaged: refused, and nothing in them is run."""

import io
import json
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from export.errors import ExportError
from export.foreign import read_checkpoint


class Shell:
    """Leaves a trace when it is unpickled by a reader that obeys."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def archive(path: Path, data: bytes, *, method: int = zipfile.ZIP_STORED, **entries: bytes) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("a/data.pkl", data)
        for name, content in entries.items():
            file.writestr(f"a/{name.replace('__', '/')}", content)
    return path


def tensor_pickle(*, offset: Any = 0, shape: Any = (2,), strides: Any = (1,), kind: str = "FloatStorage") -> bytes:
    """The pickle of {"x": tensor} as torch writes it, with whatever numbers."""

    class Named(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return obj.pid if isinstance(obj, Reference) else None

    class Reference:
        pid = ("storage", getattr(torch, kind), "0", "cpu", 2)

    class View:
        def __reduce__(self) -> tuple[Any, ...]:
            return torch._utils._rebuild_tensor_v2, (Reference(), offset, shape, strides, False, OrderedDict())

    stream = io.BytesIO()
    Named(stream, 2).dump({"x": View()})
    return stream.getvalue()


def test_a_plain_view_is_read(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.pt", tensor_pickle(), data__0=np.array([1, 2], "<f4").tobytes())
    np.testing.assert_array_equal(read_checkpoint(path).arrays["x"], [1, 2])


def test_a_pickle_that_would_run_something_is_refused_by_its_name(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    torch.save({"state_dict": {"conv1.weight": torch.zeros(1)}, "args": Shell(trace)}, tmp_path / "evil.pt")
    with pytest.raises(ExportError, match=r"evil\.pt: the pickle names (posix|nt)\.mkdir: expected tensors alone"):
        read_checkpoint(tmp_path / "evil.pt")
    assert not trace.exists()
    pickle.loads(
        (archive_member := zipfile.ZipFile(tmp_path / "evil.pt")).read("evil/data.pkl")[:0]
        or pickle.dumps(Shell(trace))
    )
    archive_member.close()
    assert trace.exists(), "the trap does not work, so the test says nothing"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("collections", "Counter"),
        ("torch", "load"),
        ("torch.serialization", "load"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("numpy", "load"),
        ("export.foreign.torch_file", "pickle.loads"),
    ],
)
def test_only_what_a_dictionary_of_tensors_needs_may_be_named(tmp_path: Path, module: str, name: str) -> None:
    data = b"\x80\x04" + b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name)) + b"\x93."
    with pytest.raises(ExportError, match=f"the pickle names {module}.{name}"):
        read_checkpoint(archive(tmp_path / "a.pt", data))


def test_a_whole_module_is_refused_by_its_class(foreign: nn.Module, tmp_path: Path) -> None:
    torch.save(foreign, tmp_path / "module.pt")
    with pytest.raises(ExportError, match=r"names foreign_resnet\.ResNet: expected tensors alone, as torch\.save"):
        read_checkpoint(tmp_path / "module.pt")


@pytest.mark.parametrize(
    ("view", "complaint"),
    [
        ({"shape": (3,)}, "tensor x reaches number 2 of a storage of 2"),
        ({"offset": 1}, "tensor x reaches number 2 of a storage of 2"),
        ({"strides": (2,)}, "tensor x reaches number 2 of a storage of 2"),
        ({"offset": -1}, "tensor x: offset -1"),
        ({"strides": (-1,)}, "tensor x: offset 0"),
        ({"shape": (1 << 40,), "strides": (0,)}, "tensor x: offset 0"),
        ({"shape": (2, 1)}, "tensor x: offset 0"),
        ({"shape": "ab"}, "tensor x: offset 0"),
        ({"offset": 1.5}, "tensor x: offset 1.5"),
        ({"kind": "DoubleStorage"}, "tensor x reaches number 1 of a storage of 1"),
        ({"kind": "ComplexFloatStorage"}, "names torch.ComplexFloatStorage"),
    ],
)
def test_a_view_stays_within_its_storage(tmp_path: Path, view: dict[str, Any], complaint: str) -> None:
    path = archive(tmp_path / "a.pt", tensor_pickle(**view), data__0=bytes(8))
    with pytest.raises(ExportError, match=complaint):
        read_checkpoint(path)


ARCHIVES: dict[str, tuple[Callable[[Path], object], str]] = {
    "old": (lambda path: torch.save({"x": torch.zeros(1)}, path, _use_new_zipfile_serialization=False), "since 1.6"),
    "empty": (lambda path: path.write_bytes(b""), "no zip archive"),
    "compressed": (lambda path: archive(path, tensor_pickle(), method=zipfile.ZIP_DEFLATED), "compressed or encrypted"),
    "no storage": (lambda path: archive(path, tensor_pickle()), "a/data/0 is missing"),
    "big-endian": (lambda path: archive(path, tensor_pickle(), byteorder=b"big"), "big-endian"),
    "cut pickle": (lambda path: archive(path, tensor_pickle()[:-9]), "damaged pickle"),
    "a list": (lambda path: archive(path, pickle.dumps([1], 2)), "holds a list: expected a dictionary"),
    "no tensors": (lambda path: archive(path, pickle.dumps({"epoch": 3}, 2)), "no tensors among the keys epoch"),
    "called text": (lambda path: archive(path, b"\x80\x02ctorch\nFloatStorage\n)R."), "damaged pickle: TypeError"),
    "strange reference": (lambda path: archive(path, b"\x80\x02K\x05Q."), "refers to 5"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_damaged_archive_is_named(tmp_path: Path, name: str) -> None:
    write, complaint = ARCHIVES[name]
    write(tmp_path / "a.pt")
    with pytest.raises(ExportError, match=complaint):
        read_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npz", ".onnx"])
def test_any_damaged_bytes_raise_nothing_else(saved: Path, tmp_path: Path, suffix: str) -> None:
    """Cut anywhere, or a byte changed anywhere: read, or refused with our own error."""
    small = {"x": torch.arange(6.0).reshape(2, 3)}
    path = tmp_path / f"small{suffix}"
    if suffix == ".pt":
        torch.save(small, path)
    elif suffix == ".npz":
        np.savez(path, **{name: values.numpy() for name, values in small.items()})
    elif suffix == ".safetensors":
        path.write_bytes(safetensors({"x": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}, bytes(24)))
    else:
        path.write_bytes(b"\x08\x0a\x3a\x04\x12\x02gr")
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(150):
        data = bytearray(whole)
        data[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(data[: rng.integers(1, len(data) + 1)] if rng.random() < 0.5 else data)
        with suppress(ExportError):
            read_checkpoint(path)


def safetensors(header: Any, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"abc", "3 bytes are no safetensors file"),
        (struct.pack("<Q", 1 << 60), "header of 1152921504606846976 bytes"),
        (safetensors(b"{nonsense"), "no JSON"),
        (safetensors([1]), "no JSON object"),
        (safetensors({"x": {"dtype": "F8", "shape": [1], "data_offsets": [0, 1]}}, b"1"), "tensor x: .*expected dtype"),
        (safetensors({"x": 3}), "tensor x: 3"),
        (
            safetensors({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, bytes(8)),
            "takes 8 bytes: found 0 to 4",
        ),
        (safetensors({"x": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, bytes(8)), "found 4 to 12 of 8"),
        (
            safetensors({"x": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}}, bytes(8)),
            "expected whole numbers",
        ),
        (
            safetensors({"x": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, bytes(8)),
            "expected whole numbers",
        ),
    ],
)
def test_a_damaged_safetensors_file_is_named(tmp_path: Path, data: bytes, complaint: str) -> None:
    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(ExportError, match=complaint):
        read_checkpoint(tmp_path / "a.safetensors")
