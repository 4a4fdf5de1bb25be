"""What the demo's federation came to: every exported file evaluated as integers, every byte as it was sent."""

import platform
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
from pictures import Fleet

from aggregator.model import GlobalModel, base_payload
from export.bundle import export_model
from export.check import check
from export.errors import CheckFailed
from protocol.architecture import Architecture
from protocol.precision import FP32, Precision

Blob = Callable[[str], bytes]


def evaluate(
    *,
    network: Architecture,
    fleet: Fleet,
    devices: list[dict[str, Any]],
    budgets: list[float],
    updates: list[dict[str, Any]],
    rounds: list[dict[str, Any]],
    models: list[dict[str, Any]],
    blob: Blob,
    killed: dict[str, Any] | None,
) -> dict[str, Any]:
    """The result as one document; `failures` lists what must not be."""
    final = models[-1]
    global_model = GlobalModel.from_bytes(blob(final["digest"]))
    exports = {e["precision"]: _examined(e, network, global_model, fleet, blob) for e in final["exports"]}
    per_round = _per_round(global_model, fleet, updates, devices, len(rounds))
    if killed:
        killed = {**killed, "counted": _times_counted(killed, updates)}
    rows = [
        _device(device, budget, exports, per_round, killed, len(rounds))
        for device, budget in zip(devices, budgets, strict=True)
    ]
    return {
        "data": {"name": fleet.name, "held_out": len(fleet.held_out_N)},
        "precisions": list(exports),
        "devices": rows,
        "exports": list(exports.values()),
        "models": models,
        "rounds": rounds,
        "per_round": per_round,
        "killed": killed,
        "failures": _failures(rows, exports, updates, killed),
    }


def _examined(
    export: dict[str, Any], network: Architecture, model: GlobalModel, fleet: Fleet, blob: Blob
) -> dict[str, Any]:
    """An exported file compared with its reference on every held-out picture.

    Integer files agree in every bit of every logit, or `check` refuses; fp32 agrees within its tolerance.
    """
    precision = Precision.parse(export["precision"])
    try:
        report = check(blob(export["digest"]), network, precision, model.tensors(precision), fleet.held_out_NCHW)
    except CheckFailed as error:
        return {**export, "pictures": len(fleet.held_out_N), "agree": 0, "complaint": str(error)}
    accuracy = report.accuracy(fleet.held_out_N)
    return {**export, "accuracy": accuracy, "pictures": report.pictures, "agree": report.pictures, "complaint": ""}


def _per_round(
    model: GlobalModel, fleet: Fleet, updates: list[dict[str, Any]], devices: list[dict[str, Any]], rounds: int
) -> dict[str, float]:
    """Mean bytes of one device and round: updates up, and everything it received; and what fp32 would take."""
    accepted = [update for update in updates if update["accepted"]]
    plain_base = len(base_payload(model, [FP32], "fp32", 0))
    plain_model = len(
        export_model(model.network, FP32, model.tensors(FP32), pictures_NCHW=fleet.held_out_NCHW[:8], metadata={}).model
    )
    return {
        "up": float(np.mean([update["payload_bytes"] for update in accepted])),
        "up_fp32": float(np.mean([update["fp32_bytes"] for update in accepted])),
        "down": float(np.mean([device["received_bytes"] for device in devices])) / rounds,
        "down_fp32": float(plain_base + plain_model),
    }


def _device(
    device: dict[str, Any],
    budget: float,
    exports: dict[str, Any],
    per_round: dict[str, float],
    killed: dict[str, Any] | None,
    rounds: int,
) -> dict[str, Any]:
    export = exports[device["precision"]]
    needs = {need["precision"]: need["j_per_day"] for need in device["decision"]["needs"]}
    return {
        "name": device["id"],
        "budget_j_per_day": budget,
        "needs_j_per_day": needs[device["precision"]],
        "precision": device["precision"],
        "reason": device["reason"],
        "samples": device["samples"],
        "accuracy": export["accuracy"],
        "model_bytes": export["model_bytes"],
        "runs_it": device["birth"]["model_digest"] == export["digest"],
        "p50_ms": device["telemetry"]["latency_p50_ms"],
        "update_bytes": device["update_bytes"],
        "sent_bytes": device["sent_bytes"],
        "received_bytes": device["received_bytes"],
        "up_ratio": device["update_fp32_bytes"] / device["update_bytes"],
        "down_ratio": per_round["down_fp32"] * rounds / max(1, device["received_bytes"]),
        "killed": killed if killed and killed["device"] == device["id"] else None,
    }


def _times_counted(killed: dict[str, Any], updates: list[dict[str, Any]]) -> int:
    """How many accepted updates the killed device has in the round it was killed in: one, or something is wrong."""
    return sum(
        update["accepted"] and update["device"] == killed["device"] and update["round"] == killed["round"]
        for update in updates
    )


def _failures(
    devices: list[dict[str, Any]],
    exports: dict[str, Any],
    updates: list[dict[str, Any]],
    killed: dict[str, Any] | None,
) -> list[str]:
    failures = [f"{d['name']} does not run the model it was offered" for d in devices if not d["runs_it"]]
    failures += [export["complaint"] for export in exports.values() if export["complaint"]]
    failures += [f"update {u['task']} was refused: {u['reason']}" for u in updates if not u["accepted"]]
    if killed and killed["counted"] != 1:
        failures.append(
            f"the update of {killed['device']} in round {killed['round']} counted {killed['counted']} times"
        )
    return failures


def facts_of(network: Architecture, fleet: Fleet, wall_s: float) -> dict[str, str]:
    """How the result was made, for the report."""
    return {
        "network": f"{network.spec}: {network.parameters:,} parameters, {network.multiply_adds:,} multiply-adds",
        "pictures": f"{len(fleet.train_N):,} of {fleet.name} in {len(fleet.parts)} uneven parts "
        f"({min(map(len, fleet.parts))} to {max(map(len, fleet.parts))}), {len(fleet.held_out_N)} held out",
        "accuracy": "of the exported files, run as integers by ONNX Runtime, on pictures no device has",
        "energy": "modelled (45 nm arithmetic and DRAM); no meter was used",
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {version(name)}" for name in ("torch", "onnxruntime", "numpy", "bitfleet")),
        "time": f"{wall_s:.0f} s",
    }
