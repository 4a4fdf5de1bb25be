"""One device: what it runs and why, its energy against its budget, its bits over time, its receipts and refusals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from aggregator import readers
from aggregator.devices import MAINS_J_PER_DAY
from aggregator.page import charts, words
from aggregator.page.asking import ask_budget, ask_quarantine, ask_release, ask_revoke
from aggregator.page.devices import budget
from aggregator.page.frame import Page
from aggregator.page.live import Missing, Visit
from aggregator.page.parts import Cell, Column, badge, bar, box, button, card, facts, link, say, table
from aggregator.page.words import NOTHING
from aggregator.paging import Window
from aggregator.store import JobSession
from aggregator.views import Cause, DeviceDetail, EnergyEntry, UpdateView

HISTORY: Final = 60
"""Rounds shown in charts: more would be too thin to see."""
PURPOSES: Final = ("training", "inference", "idle", "up", "down")


@dataclass(frozen=True)
class Seen:
    """What the page shows."""

    device: DeviceDetail
    updates: list[UpdateView]
    energy: list[EnergyEntry]


def read(session: JobSession, visit: Visit) -> Seen:
    """All of it."""
    name = visit.request.path_params["name"]
    device = readers.device_detail(session, name, visit.now)
    if device is None:
        raise Missing(f"No device of this fleet is named {name}.")
    updates = readers.update_views(session, None, name, Window(HISTORY), newest_first=True).rows[::-1]
    ledger, _ = readers.energy_view(session, None, name)
    return Seen(device, updates, ledger.entries)


def show(visit: Visit, seen: Seen) -> None:
    """Draw it."""
    device = seen.device
    with box("grid"):
        if device.quarantine.reason:
            _quarantined(visit, device)
        _what_it_is(visit, device)
        _energy(device)
        _precision(device)
        if seen.updates:
            _bits(seen.updates)
        if seen.energy:
            _ledger(seen.energy)
        if device.quarantine.causes:
            _causes(device)
        _receipts(device, visit.now)


def _quarantined(visit: Visit, device: DeviceDetail) -> None:
    """Why it is asked no more, and the way back."""
    held = device.quarantine
    ends = f" It ends in {words.seconds(held.until - visit.now)}." if held.until > visit.now else ""
    with box("notice w12"):
        say(f"In quarantine for {words.seconds(visit.now - held.since)}: {held.reason}.{ends}")
        button("Release", lambda: ask_release(visit, device.id))


def _causes(device: DeviceDetail) -> None:
    """What spoke against it, the newest first."""
    with card("Causes for doubt", classes="w12 flush"):
        table(
            [Column("Round"), Column("Reason", wide=True)], [_cause(cause) for cause in device.quarantine.causes[::-1]]
        )


def _cause(cause: Cause) -> Sequence[Cell]:
    return [f"Round {cause.round}", lambda: say(cause.reason, "soft small")]


def _what_it_is(visit: Visit, device: DeviceDetail) -> None:
    birth, telemetry = device.birth, device.telemetry
    with card("What it is", classes="w8"):
        facts(
            {
                "State": lambda: badge("revoked" if device.revoked else device.status),
                "Doing": device.lifecycle.lower() or NOTHING,
                "Last seen": words.ago(device.seen_at, visit.now),
                "Group, job": f"{device.group or NOTHING}, {device.job}",
                "Processor": f"{birth.get('processor', NOTHING)}, {birth.get('cores', NOTHING)} cores",
                "Memory": words.size(birth["memory_bytes"]) if birth else NOTHING,
                "Meters": ", ".join(birth.get("meters", [])) or "none: energy is modelled",
                "Pictures": f"{device.samples:,}",
                "Model": f"version {device.model_version}" if device.model_version else NOTHING,
                "Latency p50": f"{telemetry.get('latency_p50_ms', 0.0):.3g} ms" if telemetry else NOTHING,
                "Agent": str(birth.get("version", NOTHING)),
                "Sent, received": f"{words.size(device.sent_bytes)}, {words.size(device.received_bytes)}",
            },
            two=True,
        )
        with box("row").style("margin-top: 20px"):
            button("Change budget", lambda: ask_budget(visit, device.id))
            if not device.revoked and not device.quarantine.reason:
                button("Quarantine", lambda: ask_quarantine(visit, device.id))
            if not device.revoked:
                button("Revoke", lambda: ask_revoke(visit, device.id), "danger")


def _energy(device: DeviceDetail) -> None:
    limit = _limit(device)
    need = next((need for need in _needs(device) if need["precision"] == device.precision), None)
    with card("Energy against budget", "per day", "w4"):
        told = {"Budget": budget(device) + ("" if limit is None else " J"), "Set by": _by(device)}
        if need:
            told["Inference needs"] = f"{words.digits(need['j_per_day'])} J at {device.precision}, {need['source']}"
        told["Training in 24 h"] = words.joules(device.spent_in_a_day_mj)
        facts(told)
        if need and limit:
            share = need["j_per_day"] / limit
            with box().style("margin-top: 20px"):
                bar([(share, "good" if share <= 1 else "bad")], tall=True, label=f"{share:.0%} of the budget")
            say(f"{share:.0%} of the budget", "soft small number", "div")


def _limit(device: DeviceDetail) -> float | None:
    value = device.budget_j_per_day
    if value is None:
        value = device.stated_j_per_day or MAINS_J_PER_DAY
    return None if value >= MAINS_J_PER_DAY else value


def _by(device: DeviceDetail) -> str:
    return "the device itself" if device.budget_j_per_day is None else "an operator"


def _needs(device: DeviceDetail) -> list[dict[str, Any]]:
    return list(device.decision.get("needs", []))


OPTIONS: Final = (
    Column("Precision"),
    Column("mJ an inference", number=True),
    Column("J a day", number=True),
    Column("ms", number=True),
    Column("Memory", number=True),
    Column("Accuracy", number=True),
    Column("Exceeds"),
)


def _precision(device: DeviceDetail) -> None:
    title = f"Why {device.precision}" if device.precision else "Precision"
    with card(title, classes="w12 flush"):
        with box().style("padding: 0 20px 12px"):
            say(device.reason or "Nothing is decided yet; that happens when a round opens.", tag="p")
            if not device.feasible:
                say("Its limits cannot be kept.", "badge bad")
            for doubt in device.doubts:
                say(doubt, "soft small", "p")
        needs = _needs(device)
        if needs:
            chosen = next((index for index, need in enumerate(needs) if need["precision"] == device.precision), None)
            table(OPTIONS, [_option(need) for need in needs], chosen)


def _option(need: dict[str, Any]) -> Sequence[Cell]:
    latency_ms, accuracy = need.get("latency_ms"), need.get("accuracy")
    return [
        lambda: say(need["precision"], "tag"),
        f"{'~' if need['source'] == 'modelled' else ''}{need['energy_mj']:.3g}",
        words.digits(need["j_per_day"]),
        NOTHING if latency_ms is None else f"{latency_ms:.3g}",
        words.size(need["memory_bytes"]) if "memory_bytes" in need else NOTHING,
        NOTHING if accuracy is None else f"{accuracy:.1%} ({need['accuracy_source']})",
        ", ".join(need.get("exceeds", [])) or NOTHING,
    ]


def _bits(updates: list[UpdateView]) -> None:
    points = [
        (row.round, 32 * row.payload_bytes / row.fp32_bytes) for row in updates if row.accepted and row.fp32_bytes
    ]
    with card("Bits of an update, by round", "a weight", "w6"):
        charts.lines({"bits": points}, x="round", y="bits a weight", height_px=240)


def _ledger(entries: list[EnergyEntry]) -> None:
    numbers = sorted({entry.round for entry in entries})[-HISTORY:]
    parts = {}
    for purpose in PURPOSES:
        of = dict.fromkeys(numbers, 0.0)
        for entry in entries:
            if entry.purpose == purpose and entry.round in of:
                of[entry.round] += entry.energy_mj / 1000
        if any(of.values()):
            parts[purpose] = [round(value, 6) for value in of.values()]
    with card("Energy, by round", "measured and modelled", "w6"):
        charts.stacked([str(number) for number in numbers], parts, y="J")


RECEIPTS: Final = (Column("Round"), Column("Outcome"), Column("Reason", wide=True), Column("Judged", number=True))


def _receipts(device: DeviceDetail, now: float) -> None:
    with card("Receipts", f"the last {len(device.receipts)}" if device.receipts else "", "w8 flush"):
        if device.receipts:
            table(RECEIPTS, [_receipt(receipt, device.job, now) for receipt in device.receipts])
        else:
            say("No update of this device was judged yet.", "soft").style("display: block; padding: 0 20px 20px")
    with card("Refused messages", classes="w4"):
        if device.refusals:
            facts({code: str(count) for code, count in sorted(device.refusals.items())})
        else:
            say("None.", "soft")


def _receipt(receipt: Any, job: str, now: float) -> Sequence[Cell]:
    return [
        lambda: link(f"Round {receipt.round}", f"/rounds/{receipt.round}?job={job}"),
        lambda: badge("accepted" if receipt.accepted else "refused", receipt.refusal or "accepted"),
        lambda: say(receipt.reason or NOTHING, "soft small"),
        words.ago(receipt.received_at, now),
    ]


PAGE = Page("/devices/{name}", "Device", read, show)
