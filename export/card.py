"""A model card in Markdown, of the model file and this distribution's licence; the sections are those of the paper.

M. Mitchell et al., "Model Cards for Model Reporting", FAT* 2019, arXiv 1810.03993: details, data, quantitative
analysis by class, use.
"""

import re
from collections.abc import Mapping
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, metadata
from math import nan

from onnx import ModelProto

from export.describe import Description, describe, identify
from export.errors import ExportError
from export.writer import LOGITS, OPSET, PICTURES, RUNTIME, parse
from protocol.architecture import Architecture
from protocol.precision import Precision


def card(model: bytes) -> str:
    """What a file that `bitfleet-export` wrote says of itself, for people.

    Raises:
        ExportError: it is no such file, or a figure in its metadata is none.
    """
    proto = parse(model)
    architecture, precision, facts = identify(proto)
    sections = [
        _details(architecture, precision, facts, describe(model), sha256(model).hexdigest()),
        _data(architecture, facts),
        _accuracy(facts),
        _operators(proto),
        _use(architecture),
        _licence(),
    ]
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def class_accuracy(facts: Mapping[str, str]) -> list[tuple[int, int]]:
    """Of every class, how many pictures were right of how many; empty where none were labelled.

    Raises:
        ExportError: the entry is no such list.
    """
    text = facts.get("class_accuracy", "")
    if not re.fullmatch(r"([0-9]{1,18}/[0-9]{1,18}( |$))*", text):
        raise ExportError(
            f"metadata class_accuracy = {text[:80]!r}: expected right/all of every class, as in 12/13 9/9"
        )
    pairs = [(int(right), int(shown)) for right, shown in (each.split("/") for each in text.split())]
    if any(right > shown for right, shown in pairs):
        raise ExportError(f"metadata class_accuracy = {text[:80]!r}: expected no class with more right than there are")
    return pairs


def _details(
    architecture: Architecture, precision: Precision, facts: Mapping[str, str], found: Description, digest: str
) -> list[str]:
    rows = {
        "architecture": f"`{architecture.spec}`",
        "precision": _bits(precision),
        "file": f"{found.file_bytes:,} bytes, SHA-256 `{digest}`",
        "round": _round(facts),
        "calibration": _calibration(precision, facts),
        "one picture takes": f"{found.multiply_adds:,} multiply-adds, {found.bops:,} bit operations",
        "exported by": f"bitfleet {_plain(facts.get('version', 'of a version it does not tell'))}",
    }
    table = [f"| {name} | {value} |" for name, value in rows.items()]
    return [f"# An image classifier at {precision}", "", "| | |", "|---|---|", *table]


def _bits(precision: Precision) -> str:
    if precision.is_float:
        return "fp32: floating point throughout"
    return f"{precision}: {precision.weight_bits}-bit weights, {precision.activation_bits}-bit activations"


def _round(facts: Mapping[str, str]) -> str:
    if "round" not in facts:
        return "not told: exported by hand"
    fleet = f" of fleet {_plain(facts['fleet'])}" if "fleet" in facts else ""
    return f"{_plain(facts['round'])}{fleet}"


def _calibration(precision: Precision, facts: Mapping[str, str]) -> str:
    moments = facts.get("moments", "")
    if moments == "calibrated":
        return "after training: steps and moments set from pictures"
    if moments == str(precision):
        return "steps and moments are those of training at this precision"
    if moments.startswith("pooled at "):
        return f"moments of the devices, {_plain(moments)}"
    return f"none: steps and moments are lent by {_plain(moments)}" if moments else "not told"


def _data(architecture: Architecture, facts: Mapping[str, str]) -> list[str]:
    count = facts.get("pictures_checked", "")
    if not count:
        compared = "The file does not tell on how many pictures it was checked."
    else:
        kind = f" {_plain(facts['checked_on'])}" if "checked_on" in facts else ""
        how = "equal in every bit" if facts.get("bit_equal") == "true" else "within rounding of floating point"
        compared = f"On {_plain(count)}{kind} pictures its logits were {how} to those of the reference implementation."
    return ["## Data", "", f"{compared} It tells {architecture.classes} classes apart."]


def _accuracy(facts: Mapping[str, str]) -> list[str]:
    counts = class_accuracy(facts)
    if "accuracy" not in facts:
        return ["## Accuracy at this precision", "", "Not rated: the pictures had no labels."]
    overall = f"{_ratio(facts['accuracy']):.2%} of the pictures checked are named rightly."
    head = ["", "| class | right | of | share |", "|---:|---:|---:|---:|"] if counts else []
    rows = [
        f"| {number} | {right} | {shown} | {_share(right, shown)} |" for number, (right, shown) in enumerate(counts)
    ]
    return ["## Accuracy at this precision", "", overall, *head, *rows]


def _ratio(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = nan
    if not 0 <= value <= 1:
        raise ExportError(f"metadata accuracy = {text[:80]!r}: expected a number from 0 to 1")
    return value


def _share(right: int, shown: int) -> str:
    return f"{right / shown:.1%}" if shown else ""


def _operators(model: ModelProto) -> list[str]:
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    standard = sorted({_plain(node.op_type) for node in nodes if not node.domain})
    own = sorted({_plain(f"{each.domain}.{each.name}") for each in model.functions})
    told = f"Standard ONNX: {', '.join(standard)}."
    if own:
        told += (
            f" And {', '.join(own)}, defined in the file as functions of standard operators: a runtime without kernels"
            " for them computes the same bits, only slower."
        )
    return ["## Operators", "", told]


def _use(architecture: Architecture) -> list[str]:
    shape = ", ".join(map(str, architecture.input_shape))
    runtime = f"ONNX Runtime {RUNTIME} or later, or any runtime of opset {OPSET}."
    pictures = f"Input `{PICTURES}`: uint8[N, {shape}], pixels as they are."
    logits = f"Output `{LOGITS}`: float32[N, {architecture.classes}], of which the largest names the class."
    return ["## Use", "", f"{runtime} {pictures} {logits}"]


def _licence() -> list[str]:
    software = licence()
    told = "" if software is None else f"bitfleet, which wrote this file, is under {software}. "
    return ["## Licence", "", f"{told}The weights belong to those who trained them."]


def licence() -> str | None:
    """Of this distribution; None where it is not installed or does not tell."""
    try:
        told = metadata("bitfleet")
    except PackageNotFoundError:
        return None
    return next((told[name] for name in ("License-Expression", "License") if name in told), None)


def _plain(text: str) -> str:
    """Foreign text in one cell of a table: without control characters, and with nothing that Markdown would obey."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text[:200])
    return re.sub(r"([\\`*_{}\[\]()<>#+!|~&])", r"\\\1", printable)
