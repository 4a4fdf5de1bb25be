"""Answers of the HTTP door as tables for people."""

import time
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from aggregator.devices import MAINS_J_PER_DAY

Json = dict[str, Any]


def status(answer: Json) -> RenderableType:
    """The fleet in a line, its devices below."""
    planned = f" of {answer['rounds_planned']}" if answer["rounds_planned"] else ""
    where = f"round {answer['round']}{planned}, {answer['state']}" if answer["round"] else "before the first round"
    why = f": {escape(answer['paused_because'])}" if answer["paused_because"] else ""
    held = f", paused{why}" if answer["paused"] else ""
    table = _table("device", "status", "doing", "progress", "precision")
    for device in answer["live"]:
        progress = f"{device['progress']:.0%}" if device["task"] else ""
        table.add_row(device["id"], device["status"], device["lifecycle"], progress, device["precision"])
    return Group(
        f"[bold]{answer['fleet']}[/bold]: {where}{held}; model {answer['model_version']};"
        f" {answer['online']} of {answer['devices']} devices online; broker {answer['broker']}",
        table,
    )


def devices(answer: list[Json]) -> RenderableType:
    """One line a device."""
    table = _table(
        "device", "group", "status", "seen", "precision", "model", "pictures", "budget J/day", "sent", "received"
    )
    for device in answer:
        table.add_row(
            device["id"],
            device["group"],
            _standing(device),
            _ago(device["seen_at"]),
            device["precision"],
            str(device["model_version"]),
            str(device["samples"]),
            _budget(device),
            size(device["sent_bytes"]),
            size(device["received_bytes"]),
        )
    return table


def tokens(answer: list[Json]) -> RenderableType:
    """One line a join token."""
    table = _table("token", "group", "uses left", "expires", "note")
    for row in answer:
        left_s = max(0.0, row["expires_at"] - time.time())
        uses = str(row["uses_left"])
        table.add_row(row["name"], row["group"], uses, f"in {span(left_s)}", escape(row["note"]))
    return table


def applicants(answer: list[Json]) -> RenderableType:
    """One line a device that waits."""
    table = _table("device", "group", "asked", "public key", "")
    for row in answer:
        state = "rejected" if row["rejected"] else "waits"
        table.add_row(row["device"], row["group"], _ago(row["asked_at"]), f"{row['public_key'][:16]}…", state)
    return table


def users(answer: list[Json]) -> RenderableType:
    """One line a user."""
    table = _table("user", "role", "made")
    for row in answer:
        table.add_row(row["name"], row["role"], _ago(row["made_at"]))
    return table


def audit(answer: list[Json]) -> RenderableType:
    """One line a command."""
    table = _table("when", "who", "role", "did", "to", "with", "outcome")
    for row in answer:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["at"]))
        said = ", ".join(f"{name} {value}" for name, value in row["detail"].items() if value not in ("", None))
        table.add_row(when, row["who"], row["role"], row["action"], row["object"], escape(said), escape(row["outcome"]))
    return table


def rounds(answer: list[Json]) -> RenderableType:
    """One line a round."""
    table = _table("round", "state", "base", "updates", "bytes up", "against fp32", "note")
    for row in answer:
        tasks = ", ".join(f"{count} {state}" for state, count in sorted(row["tasks"].items()))
        saved = f"1/{row['update_fp32_bytes'] / row['update_bytes']:.1f}" if row["update_bytes"] else ""
        up = size(row["update_bytes"])
        table.add_row(str(row["number"]), row["state"], str(row["base_version"]), tasks, up, saved, escape(row["note"]))
    return table


def energy(answer: Json) -> RenderableType:
    """A line for each round and device, a column for each purpose, and the sums; modelled figures with a tilde."""
    purposes = ("training", "inference", "idle", "up", "down")
    table = _table("round", "device", *(f"{purpose}, mJ" for purpose in purposes))
    cells: dict[tuple[int, str], dict[str, list[str]]] = {}
    for entry in answer["entries"]:
        of = cells.setdefault((entry["round"], entry["device"]), {})
        of.setdefault(entry["purpose"], []).append(_energy(entry))
    for (number, device), of in cells.items():
        table.add_row(str(number), device, *(" + ".join(of.get(purpose, [])) for purpose in purposes))
    sums = ", ".join(f"{total['purpose']} {_energy(total)} ({total['source']})" for total in answer["totals"])
    return Group(table, f"{answer['total_mj']:.6g} mJ in all: {sums or 'nothing yet'}; ~ is modelled")


def _energy(entry: Json) -> str:
    return f"{'~' if entry['source'] == 'modelled' else ''}{entry['energy_mj']:.4g}"


def models(answer: list[Json]) -> RenderableType:
    """One line an ONNX file."""
    table = _table("version", "precision", "bytes", "accuracy", "pictures checked", "digest")
    for model in answer:
        for export in model["exports"]:
            accuracy = "" if export["accuracy"] is None else f"{export['accuracy']:.1%}"
            table.add_row(
                str(model["version"]),
                export["precision"],
                size(export["model_bytes"]),
                accuracy,
                str(export["pictures"]),
                export["digest"][:16],
            )
    return table


def handout(answer: Json) -> RenderableType:
    """One line a device, and what its file is."""
    table = _table("device", "precision", "file", "bytes", "SHA-256", "made")
    for row in answer["devices"]:
        held = row["bytes"] is not None
        what = (row["file"], f"{row['bytes']:,}", row["sha256"][:16], row["made"]) if held else ("none", "", "", "")
        table.add_row(row["device"], row["precision"] or "undecided", *what)
    files = len({row["file"] for row in answer["devices"] if row["file"]})
    return Group(table, f"round {answer['round']}; devices: {len(answer['devices'])}; files: {files}")


def explanation(device: Json) -> RenderableType:
    """The decision in a sentence, what each precision would cost and is expected to reach, and what is not believed."""
    if not device["precision"]:
        return f"[bold]{device['id']}[/bold]: nothing is decided yet; that happens when a round opens"
    decision = device["decision"]
    table = _table("precision", "mJ an inference", "source", "J/day", "ms", "memory", "accuracy", "exceeds")
    for need in decision.get("needs", []):
        latency_ms, accuracy = need.get("latency_ms"), need.get("accuracy")
        table.add_row(
            need["precision"],
            f"{need['energy_mj']:.3g}",
            need["source"],
            f"{need['j_per_day']:.3g}",
            "" if latency_ms is None else f"{latency_ms:.3g}",
            size(need["memory_bytes"]) if "memory_bytes" in need else "",
            "" if accuracy is None else f"{accuracy:.1%} ({need['accuracy_source']})",
            ", ".join(need.get("exceeds", [])),
        )
    lines = [f"[bold]{device['id']}[/bold] runs {device['precision']}: {escape(device['reason'])}", *_part(decision)]
    lines += _doubts(device["quarantine"])
    return Group(*lines, table)


def _doubts(quarantine: Json) -> list[str]:
    """Whether it is asked to train, and what spoke against it, the newest last."""
    shut_out = f"[red]in quarantine: {escape(quarantine['reason'])}[/red]"
    causes = [f"round {cause['round']}: {escape(cause['reason'])}" for cause in quarantine["causes"][-5:]]
    return [*([shut_out] if quarantine["reason"] else []), *causes]


def _part(decision: Json) -> list[str]:
    """How the device takes part in rounds, if it does, and what may not be."""
    lines = []
    if decision.get("recipe"):
        lines.append(f"in a round: {decision['epochs']} epochs, updates by {decision['recipe']}")
    if decision.get("feasible") is False:
        least = decision.get("smallest_j_per_day")
        would = "" if least is None else f"; the smallest budget that works is {least:.3g} J/day"
        lines.append(f"[red]its limits cannot be kept[/red]{would}")
    return lines


def plan(answer: Json) -> RenderableType:
    """Bits of every layer, and what they come to."""
    table = _table("layer", "bits")
    for name, bits in answer["bits"].items():
        table.add_row(name, str(bits))
    proven = "nothing within the limits loses less" if answer["proven"] else "the best found in time"
    taken = f"{size(round(answer['weight_bytes']))} of weights, {answer['bops']:.3g} bit operations"
    return Group(table, f"loss {answer['loss']:.3g} with {taken}: {proven}")


def size(count: int) -> str:
    """Bytes with three digits and a unit."""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{value:.0f} B" if unit == "B" else f"{value:.3g} {unit}"


def _budget(device: Json) -> str:
    """The operator's budget, of which 0 is 0, or the device's own, of which 0 is none."""
    budget = device["budget_j_per_day"]
    if budget is None:
        budget = device["stated_j_per_day"] or MAINS_J_PER_DAY
    return "mains" if budget >= MAINS_J_PER_DAY else f"{budget:g}"


def _standing(device: Json) -> str:
    if device["revoked"]:
        return "revoked"
    return f"{device['status']}, quarantined" if device["quarantined"] else device["status"]


def _ago(second: float) -> str:
    if not second:
        return "never"
    return f"{span(time.time() - second)} ago"


def span(seconds: float) -> str:
    """A length of time for people."""
    whole_s = max(0, int(seconds))
    for unit, length_s in (("d", 86400), ("h", 3600), ("min", 60)):
        if whole_s >= 2 * length_s:
            return f"{whole_s // length_s} {unit}"
    return f"{whole_s} s"


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
