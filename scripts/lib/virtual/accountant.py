"""An independent accountant: whether what devices sent is what the aggregator merged, and nothing else.

It believes neither side alone. From the devices' ledgers it knows every update that was announced and every receipt;
from the aggregator's database every verdict and every model. Each update that a device announced has one fate:

    merged     journalled once, receipted as accepted, and in the model of its round
    late       refused because its round was over
    refused    for another reason, which the device was told

and the model of each round is made again from its predecessor and the payloads that devices hold receipts for, in
another order than the aggregator's, and must have the same bits.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

from sqlalchemy import select

from aggregator.blobs import BlobReader
from aggregator.merge import PartialSum
from aggregator.model import GlobalModel
from aggregator.state_dir import BLOBS, DATABASE
from aggregator.store import MAIN, Model, StoreReader, Update
from protocol.codec.payload import read as read_payload
from protocol.errors import Refusal
from protocol.messages import Outcome
from virtual.ledger import Event

NEVER: Final = "no receipt"


@dataclass(frozen=True, slots=True)
class Sent:
    """An update as its device announced it."""

    device: str
    round: int
    digest: str
    samples: int


@dataclass
class Verdict:
    """What the accountant found; `faults` is empty when all is well."""

    sent: int
    merged: int
    late: int
    refused: Counter[str]
    rounds_equal: int
    rounds: int
    latencies_s: list[float]
    per_round: dict[int, int]
    faults: list[str] = field(default_factory=list)


def judge(events: Sequence[Event], state: Path) -> Verdict:
    """Compare the ledgers with the books of the aggregator in the folder `state`.

    The devices must have settled: whoever still waits for a receipt counts as a fault.
    """
    sent, latencies_s, faults = _sent(events), list[float](), list[str]()
    receipts = _receipts(events, sent, latencies_s, faults)
    store = StoreReader(state / DATABASE).of(MAIN)
    try:
        with store.reading() as session:
            journal = {row.task: row for row in session.scalars(select(Update))}
            models = list(session.scalars(select(Model).order_by(Model.version)))
    finally:
        store.close()
    faults += _unpaid(sent, receipts, journal)
    accepted = {task for task, (outcome, _) in receipts.items() if outcome == Outcome.ACCEPTED}
    faults += _counted_twice(journal)
    per_round: dict[int, list[Sent]] = {}
    for task in sorted(accepted & sent.keys(), reverse=True):
        per_round.setdefault(sent[task].round, []).append(sent[task])
    differing = list(_differing(models, per_round, BlobReader(state / BLOBS)))
    refusals = Counter(refusal for outcome, refusal in receipts.values() if outcome == Outcome.REFUSED)
    late = refusals.pop(Refusal.LATE.value, 0)
    made = {model.version for model in models if model.version}
    merged = sum(len(updates) for number, updates in per_round.items() if number in made)
    return Verdict(
        sent=len(sent),
        merged=merged,
        late=late,
        refused=refusals,
        rounds_equal=len(made) - len(differing),
        rounds=len(made),
        latencies_s=latencies_s,
        per_round={number: len(updates) for number, updates in sorted(per_round.items())},
        faults=[*faults, *differing],
    )


def _sent(events: Sequence[Event]) -> dict[str, Sent]:
    """Every update that was announced, by its task; repetitions are the same update."""
    found = {}
    for event in events:
        if event.kind == "sent":
            task, number, digest, samples = event.fields
            found[task] = Sent(event.device, number, digest, samples)
    return found


def _receipts(
    events: Sequence[Event], sent: dict[str, Sent], latencies_s: list[float], faults: list[str]
) -> dict[str, tuple[str, str]]:
    """Outcome and refusal by task; how long each took from the first manifest goes into `latencies_s`."""
    found, first_s = dict[str, tuple[str, str]](), dict[str, float]()
    for event in events:
        task = event.fields[0] if event.fields else ""
        if event.kind == "sent":
            first_s.setdefault(task, event.at_s)
        if event.kind == "receipt":
            _, _, digest, outcome, refusal, _ = event.fields
            if task in found:
                faults.append(f"task {task}: {event.device} took two receipts")
            if task not in sent or sent[task].digest != digest:
                faults.append(f"task {task}: receipt for {digest}, which {event.device} did not send")
            found[task] = (outcome, refusal)
            latencies_s.append(event.at_s - first_s[task])
    return found


def _unpaid(sent: dict[str, Sent], receipts: dict[str, tuple[str, str]], journal: dict[str, Update]) -> Iterator[str]:
    """Updates whose fate is not told, or told otherwise than it is booked."""
    for task, update in sent.items():
        outcome, refusal = receipts.get(task, (NEVER, ""))
        row = journal.get(task)
        if outcome == NEVER:
            yield f"task {task} of {update.device}, round {update.round}: no receipt"
        elif outcome == Outcome.ACCEPTED and (row is None or not row.accepted or row.digest != update.digest):
            yield f"task {task} of {update.device}: accepted by its receipt, not in the journal"
        elif outcome == Outcome.REFUSED and not refusal:
            yield f"task {task} of {update.device}: refused without a reason"
        elif outcome == Outcome.REFUSED and row is not None and row.accepted:
            yield f"task {task} of {update.device}: refused ({refusal}) by its receipt, accepted in the journal"
    for task, row in journal.items():
        if task not in sent:
            yield f"task {task} of {row.device}: in the journal, never sent"


def _counted_twice(journal: dict[str, Update]) -> Iterator[str]:
    accepted = Counter((row.round, row.device) for row in journal.values() if row.accepted)
    for (number, device), count in accepted.items():
        if count > 1:
            yield f"round {number}: {count} updates of {device} in the journal"


def _differing(models: Sequence[Model], per_round: dict[int, list[Sent]], blobs: BlobReader) -> Iterator[str]:
    """Rounds whose model is not its predecessor and what devices hold receipts for, merged again."""
    for before, after in pairwise(models):
        updates = per_round.get(after.version, [])
        if not updates:
            yield f"round {after.version}: a model, and no device holds a receipt"
        elif _merged(GlobalModel.from_bytes(blobs.get(before.digest)), updates, blobs) != blobs.get(after.digest):
            yield f"round {after.version}: merged again, the model has other bits"


def _merged(base: GlobalModel, updates: Sequence[Sent], blobs: BlobReader) -> bytes:
    total = PartialSum(base.architecture)
    for update in updates:
        total.add(read_payload(blobs.get(update.digest)), update.samples)
    return total.finish(base).to_bytes()
