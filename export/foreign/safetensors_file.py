"""Reads safetensors: https://github.com/huggingface/safetensors#format.

    uint64 length of the header, little-endian
    JSON   {name: {"dtype": "F32", "shape": [64, 3, 7, 7], "data_offsets": [begin, end]}, …}, perhaps "__metadata__"
    bytes  of all tensors, little-endian, row by row; offsets count from here

So little that it is read here: the package's numpy door has no bfloat16, and a device would carry it for one command.
"""

import json
import struct
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from export.errors import ExportError
from export.foreign.found import Found, widened

MAX_HEADER_BYTES: Final = 8 << 20
"""A ResNet18's has 15 kB."""
METADATA: Final = "__metadata__"
DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


def read_safetensors(path: Path) -> Found:
    """Every tensor of a file.

    Raises:
        ExportError: it is truncated, its header is wrong, or it has numbers of an unknown type.
        OSError: it cannot be read.
    """
    data = path.read_bytes()
    if len(data) < 8:
        raise ExportError(f"{len(data)} bytes are no safetensors file")
    (length,) = struct.unpack_from("<Q", data)
    if length > min(MAX_HEADER_BYTES, len(data) - 8):
        raise ExportError(f"safetensors header of {length} bytes in a file of {len(data)}: truncated, or another kind")
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise ExportError(f"safetensors header is no JSON: {error}") from error
    if not isinstance(header, dict):
        raise ExportError("safetensors header is no JSON object")
    body = memoryview(data)[8 + length :]
    entries = {name: entry for name, entry in header.items() if name != METADATA}
    return Found({name: _tensor(body, name, entry) for name, entry in entries.items()}, "safetensors")


def _tensor(body: memoryview, name: str, entry: Any) -> npt.NDArray[Any]:
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        known = DTYPES[dtype]
    except (KeyError, TypeError, ValueError) as error:
        raise ExportError(f"tensor {name}: {entry!r:.80}: expected dtype, shape and data_offsets") from error
    numbers = (*shape, begin, end)
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ExportError(f"tensor {name}: shape {list(shape)} at {begin}:{end}: expected whole numbers of 0 or more")
    if end > len(body) or end - begin != prod(shape) * known.itemsize:
        raise ExportError(
            f"tensor {name}: {dtype}{list(shape)} takes {prod(shape) * known.itemsize} bytes:"
            f" found {begin} to {end} of {len(body)}"
        )
    values = np.frombuffer(body[begin:end], known).reshape(shape)
    return widened(values) if dtype == "BF16" else values
