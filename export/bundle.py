"""From tensors to a checked model, and from that to a signed folder on disk.

A bundle is `model.onnx`; `manifest.json`, which names its SHA-256, its length and what it is; and `manifest.sig`, the
signature of the manifest's bytes. Whoever trusts the key trusts the manifest, and through the digest the model.
`README.md` is for people and not signed: all of it follows from the model, of which `export.card` makes it anew.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from export.arithmetic import UInt8
from export.card import card
from export.check import Report, check
from export.errors import BundleError, ExportError
from export.files import write_together
from export.passes import to_onnx
from export.passes.attach_metadata import attach_metadata
from export.writer import serialize
from protocol.architecture import Architecture, Tensors
from protocol.errors import RemoteProtocolError
from protocol.precision import Precision

MODEL_FILE: Final = "model.onnx"
MANIFEST_FILE: Final = "manifest.json"
SIGNATURE_FILE: Final = "manifest.sig"
CARD_FILE: Final = "README.md"
MANIFEST_FORMAT: Final = 1
MAX_MANIFEST_BYTES: Final = 64 * 1024
"""A manifest is below 20 kB; a longer file is none of ours."""
MAX_CLASSES_TOLD: Final = 1000
"""More would make the metadata, and with them the manifest, longer than many models."""

Sign = Callable[[bytes], bytes]
"""Signature of some bytes."""
Verify = Callable[[bytes, bytes], None]
"""Takes signature and bytes, raises `protocol.errors.Forged`: `VerifyKey.verify`."""


@dataclass(frozen=True, slots=True)
class Export:
    """A model that passed its check.

    Attributes:
        model: the ONNX file's bytes.
        digest: their SHA-256 in hex.
        report: what the check found.
        accuracy: share of labelled pictures it gets right, None without labels.
        metadata: what the file says about itself.
    """

    model: bytes = field(repr=False)
    digest: str
    report: Report
    accuracy: float | None
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle read back: the model's bytes and its manifest, both verified."""

    model: bytes = field(repr=False)
    manifest: Mapping[str, Any]


def export_model(
    architecture: Architecture,
    precision: Precision,
    tensors: Tensors,
    *,
    pictures_NCHW: UInt8,
    labels_N: npt.NDArray[np.integer[Any]] | None = None,
    metadata: Mapping[str, str],
) -> Export:
    """Build, check and label a model. The same arguments give the same bytes.

    Args:
        architecture: the network's table.
        precision: fp32, or W1 to W8 with A1, A2, A3, A4 or A8.
        tensors: those of `architecture.tensors(precision)`.
        pictures_NCHW: uint8[N, C, H, W] to check on, at least one.
        labels_N: their classes, for the accuracy.
        metadata: further facts to attach, such as `round`, `base` and `moments`.

    Raises:
        CheckFailed: the model does not compute what the reference computes.
        ExportError: tensors, pictures, labels or metadata are unusable.
    """
    if labels_N is not None and labels_N.shape != (len(pictures_NCHW),):
        raise ExportError(f"labels have shape {list(labels_N.shape)}: expected one per picture, {len(pictures_NCHW)}")
    graph = to_onnx(architecture, precision, tensors)
    report = check(serialize(graph), architecture, precision, tensors, pictures_NCHW)
    accuracy = None if labels_N is None else report.accuracy(labels_N)
    facts = _facts(architecture, precision, report) | _ratings(architecture, report, labels_N)
    taken = sorted(facts.keys() & metadata.keys())
    if taken:
        raise ExportError(f"metadata key {taken[0]!r} is set by the exporter: expected another name")
    facts |= metadata
    model = serialize(attach_metadata(graph, facts))
    return Export(model, hashlib.sha256(model).hexdigest(), report, accuracy, facts)


def _facts(architecture: Architecture, precision: Precision, report: Report) -> dict[str, str]:
    return {
        "architecture": architecture.spec,
        "precision": str(precision),
        "pictures_checked": str(report.pictures),
        "bit_equal": str(report.bit_equal).lower(),
        "version": installed_version(),
    }


def _ratings(
    architecture: Architecture, report: Report, labels_N: npt.NDArray[np.integer[Any]] | None
) -> dict[str, str]:
    """Accuracy, and of each class how many pictures are right of how many: `12/13 9/9 …`."""
    if labels_N is None:
        return {}
    told = {"accuracy": f"{report.accuracy(labels_N):.6f}"}
    if architecture.classes <= MAX_CLASSES_TOLD:
        counts = report.per_class(labels_N, architecture.classes)
        told["class_accuracy"] = " ".join(f"{right}/{shown}" for right, shown in counts)
    return told


def installed_version() -> str:
    """Of this distribution, for metadata."""
    try:
        return version("bitfleet")
    except PackageNotFoundError:
        return "uninstalled"


def write_bundle(folder: Path, export: Export, sign: Sign) -> None:
    """Write model, card, manifest and signature; `folder` is made if needed.

    All of them reach the disk before the first takes its name. Should the power fail between two renames, the digest
    tells: `read_bundle` refuses a model that is not its manifest's.

    Raises:
        OSError: the folder cannot be written; what was there stays.
    """
    manifest = json.dumps(_manifest(export), indent=1, sort_keys=True).encode() + b"\n"
    folder.mkdir(parents=True, exist_ok=True)
    write_together(
        {
            folder / MODEL_FILE: export.model,
            folder / MANIFEST_FILE: manifest,
            folder / SIGNATURE_FILE: sign(manifest),
            folder / CARD_FILE: card(export.model).encode(),
        }
    )


def _manifest(export: Export) -> dict[str, Any]:
    return {
        "format": MANIFEST_FORMAT,
        "model": {"file": MODEL_FILE, "bytes": len(export.model), "sha256": export.digest},
        "metadata": dict(export.metadata),
    }


def read_bundle(folder: Path, verify: Verify) -> Bundle:
    """Read a bundle and verify signature, then length and digest.

    Raises:
        BundleError: a file is missing, damaged or not signed by the expected key.
    """
    manifest = _read(folder / MANIFEST_FILE, MAX_MANIFEST_BYTES)
    try:
        verify(_read(folder / SIGNATURE_FILE, MAX_MANIFEST_BYTES), manifest)
    except RemoteProtocolError as error:
        raise BundleError(f"{folder / MANIFEST_FILE}: {error}") from error
    try:
        content = json.loads(manifest)
        expected_bytes, digest = int(content["model"]["bytes"]), str(content["model"]["sha256"])
        format_number = content["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{folder / MANIFEST_FILE}: not a manifest ({error!r})") from error
    if format_number != MANIFEST_FORMAT:
        raise BundleError(f"{folder / MANIFEST_FILE}: format {format_number}, this side reads {MANIFEST_FORMAT}")
    model = _read(folder / MODEL_FILE, expected_bytes)
    found = hashlib.sha256(model).hexdigest()
    if len(model) != expected_bytes or found != digest:
        raise BundleError(
            f"{folder / MODEL_FILE}: {len(model)} bytes of SHA-256 {found[:12]}…,"
            f" the manifest says {expected_bytes} bytes of {digest[:12]}…"
        )
    return Bundle(model, content)


def _read(path: Path, limit: int) -> bytes:
    """At most one byte more than `limit`, so that a wrong file is noticed without being held in memory."""
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}") from error
