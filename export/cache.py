"""Exports kept on disk, each under the digest of everything that decided its bytes (`ExportJob.key`).

An entry is the SHA-256 of key and body, 32 bytes, then the body: msgpack [model, accuracy, pictures, bit-equal,
largest difference, predictions int64 little-endian]. The key is in the digest so that an entry under another's name
counts as damaged. Whoever may write in the folder may write models: it is as trusted as its owner.
"""

from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgpack
import numpy as np

from export.bundle import Export
from export.check import Report
from export.errors import ExportError
from export.files import write_together
from export.passes.attach_metadata import read_metadata
from export.writer import parse

DIGEST_BYTES: Final = 32
MAX_ENTRY_BYTES: Final = 1 << 31
"""No ONNX file in one piece is longer: protobuf ends at 2 GiB."""


class Cache:
    """A folder of exports. It may be deleted, in whole or in part, whenever nobody waits for it.

    Raises:
        OSError: the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def get(self, key: str) -> Export | None:
        """The export kept under `key`; None if there is none, or it is damaged and has to be made again."""
        path = self.folder / key
        try:
            if not path.is_file() or path.stat().st_size > MAX_ENTRY_BYTES:
                return None
            return _decode(key, path.read_bytes())
        except OSError:
            return None

    def put(self, key: str, export: Export) -> None:
        """Keep an export; what lay under `key` is replaced.

        Raises:
            OSError: it cannot be written; nothing is left behind.
        """
        write_together({self.folder / key: _encode(key, export)})


def _encode(key: str, export: Export) -> bytes:
    report = export.report
    predictions = report.predictions_N.astype("<i8").tobytes()
    told = [report.pictures, report.bit_equal, report.largest_difference, predictions]
    body: bytes = msgpack.packb([export.model, export.accuracy, *told])
    return _digest(key, body) + body


def _decode(key: str, entry: bytes) -> Export | None:
    digest, body = entry[:DIGEST_BYTES], entry[DIGEST_BYTES:]
    if digest != _digest(key, body):
        return None
    try:
        model, accuracy, pictures, bit_equal, difference, predictions = msgpack.unpackb(body)
        report = Report(pictures, bit_equal, difference, np.frombuffer(predictions, "<i8").astype(np.int64))
        return Export(model, sha256(model).hexdigest(), report, accuracy, read_metadata(parse(model)))
    except (ValueError, TypeError, msgpack.UnpackException, ExportError):
        return None


def _digest(key: str, body: Any) -> bytes:
    return sha256(key.encode() + body).digest()
