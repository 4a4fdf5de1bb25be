"""A process of its own that serves the page of a fleet made up for it: NiceGUI is one application a process.

Prints its URL; then takes words from standard input, one a line: `pause`, `join NAME`, `break`, and answers each.
"""

import math
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from desks import desk_of
from fleet import JOB, Fleet
from sqlalchemy import text
from sqlalchemy.orm import Session

from aggregator import changes, handlers
from aggregator.app import build_app, serve_http
from aggregator.feed import Feed
from aggregator.store import Device, Energy, Export, Model, RefusalCount, Round, RoundState, Task, TaskState, Update

NAMES = [
    f"{place}-{number}" for place in ("pi-kitchen", "pi-hall", "jetson-yard", "cam-gate") for number in range(1, 7)
]
ROUNDS = 14
PRECISIONS = ("W8A8", "W4A8", "W2A8", "W1A8")
FP32_BYTES = 11_170_000
DIGEST = "5f" * 32


def populate(fleet: Fleet) -> None:
    """Twenty-four devices, fourteen rounds, the last of which runs."""
    now = fleet.clock.wall_s
    with fleet.room.store.transaction() as session:
        for index, name in enumerate(NAMES):
            session.add(_device(index, name, now))
            for code, count in {"replayed": 2, "late-round": 1}.items() if index % 9 == 1 else ():
                session.add(RefusalCount(device=name, refusal=code, count=count))
        session.flush()
        for number in range(1, ROUNDS + 1):
            _round(session, number, now)


def _device(index: int, name: str, now: float) -> Device:
    precision = PRECISIONS[index % 4]
    status = "offline" if index % 7 == 5 else "online"
    training = status == "online" and index % 3 == 0
    return Device(
        id=name,
        public_key=bytes([index]) * 32,
        joined_at=now - 9e5,
        seen_at=now - 7 * index,
        status=status,
        revoked=index == 11,
        group="kitchen" if name.startswith("pi") else "",
        precision=precision,
        reason=_reason(precision),
        decision=_decision(precision),
        budget_j_per_day=40.0 if index % 5 == 0 else None,
        birth=_birth(index),
        telemetry={
            "lifecycle": "TRAINING" if training else "IDLE",
            "task": "t" if training else "",
            "progress": 0.07 * (index % 13) if training else 0.0,
            "sent_bytes": 310_000 * (index + 3),
            "received_bytes": 9_100_000 + 41_000 * index,
            "model_version": ROUNDS - 1,
            "latency_p50_ms": 4.2 + index % 5,
        },
    )


def _birth(index: int) -> dict[str, Any]:
    return {
        "processor": "Cortex-A72" if index < 12 else "Carmel",
        "cores": 4,
        "memory_bytes": 4 << 30,
        "meters": ["ina219"] if index % 2 else [],
        "samples": 1200 + 40 * index,
        "version": "0.1.0",
        "budget_j_per_day": 268.0,
        "precisions": list(PRECISIONS),
        "codecs": [],
        "trains": True,
    }


def _reason(precision: str) -> str:
    if precision == "W8A8":
        return "W8A8 is the most accurate it can run, and its 212 J/day are within its budget of 268"
    return f"W8A8 needs 310 J/day at its measured 4.1 mJ × 75000 inferences, its budget leaves 268: {precision} fits"


def _decision(precision: str) -> dict[str, Any]:
    needs = []
    for name, energy_mj, accuracy in zip(PRECISIONS, (4.1, 3.2, 2.6, 2.2), (0.923, 0.917, 0.884, 0.831), strict=True):
        need = {"precision": name, "energy_mj": energy_mj, "source": "measured" if name == "W8A8" else "modelled"}
        need |= {"j_per_day": 75 * energy_mj, "latency_ms": 1.9 * energy_mj, "memory_bytes": int(2.9e6 * energy_mj)}
        needs.append(need | {"accuracy": accuracy, "accuracy_source": "measured"})
    needs[0]["exceeds"] = [] if precision == "W8A8" else ["energy"]
    return {"needs": needs, "feasible": True, "doubts": []}


def _round(session: Session, number: int, now: float) -> None:
    last = number == ROUNDS
    opened_at = now - 1500.0 * (ROUNDS - number) - 420.0
    state = RoundState.COLLECTING if last else RoundState.ABORTED if number == 6 else RoundState.ANNOUNCED
    times = {"deadline_at": opened_at + 900.0, "closed_at": None if last else opened_at + 940.0}
    note = "aborted by the operator" if state is RoundState.ABORTED else ""
    row = Round(number=number, state=state, base_version=max(0, number - 1), opened_at=opened_at, note=note, **times)
    session.add(row)
    session.flush()
    for index, name in enumerate(NAMES):
        if index != 11 and (index + number) % 5:
            _task(session, row, index, name, last)
    if state is RoundState.ANNOUNCED:
        session.add(Model(version=number, digest=DIGEST, made_at=opened_at + 940.0))
        session.flush()
        for place, precision in enumerate(PRECISIONS):
            accuracy = (0.93 - 0.03 * place**1.5) * (1 - math.exp(-number / 3.0))
            size = (11_200_000, 5_650_000, 2_900_000, 1_500_000)[place]
            session.add(
                Export(
                    version=number,
                    precision=precision,
                    digest=DIGEST,
                    model_bytes=size,
                    accuracy=accuracy,
                    pictures=2000,
                )
            )


def _task(session: Session, row: Round, index: int, name: str, last: bool) -> None:
    kind = (index * 7 + row.number * 3) % 17
    state = TaskState.ACCEPTED
    if kind == 3:
        state = TaskState.DECLINED
    elif kind == 5:
        state = TaskState.REFUSED
    elif last and kind > 8:
        state = TaskState.UPLOADING if kind > 14 else TaskState.OFFERED
    elif kind == 9:
        state = TaskState.MISSED
    task = f"r{row.number}-{name}"
    note = "busy: somebody watches a film" if state is TaskState.DECLINED else ""
    coding = {"precision": PRECISIONS[index % 4], "recipe": "ef+sign", "base": "", "nonce": b"", "offer": b""}
    session.add(Task(id=task, round=row.number, device=name, state=state, note=note, **coding))
    session.flush()
    if state not in {TaskState.ACCEPTED, TaskState.REFUSED}:
        return
    refused = state is TaskState.REFUSED
    received_at = row.opened_at + 120.0 + 31.0 * index * (0.4 if last else 1.0)
    size = int(FP32_BYTES / 32 * (1.02 + 0.9 * math.exp(-row.number / 4)))
    session.add(
        Update(
            task=task,
            round=row.number,
            device=name,
            accepted=not refused,
            digest=DIGEST,
            payload_bytes=size,
            refusal="norm-too-large" if refused else "",
            fp32_bytes=FP32_BYTES,
            samples=1200,
            loss=1.0,
            accuracy=0.6,
            reason="the update's norm is 41.2, expected at most 12" if refused else "",
            train_s=84.0 + index,
            energy_mj=41e3,
            energy_source="modelled",
            received_at=received_at,
        )
    )
    spent = {
        "training": (41e3, "measured" if index % 2 else "modelled"),
        "up": (1.9e3, "modelled"),
        "down": (0.7e3, "modelled"),
        "inference": (8.2e3, "modelled"),
        "idle": (3.1e3, "modelled"),
    }
    for purpose, (energy_mj, source) in spent.items():
        session.add(Energy(round=row.number, device=name, purpose=purpose, source=source, energy_mj=energy_mj))


def obey(fleet: Fleet, line: str) -> None:
    """Do what one line of standard input says."""
    match line.split():
        case ["pause"]:
            handlers.pause(fleet.room)
        case ["join", name]:
            fleet.join(name)
        case ["break"]:
            with fleet.room.store.transaction() as session:
                session.execute(text("ALTER TABLE rounds RENAME TO lost"))
        case _:
            raise SystemExit(f"page_server: {line!r} is not understood")


def main() -> None:
    """Serve the page of a fleet in a folder until standard input ends."""
    folder, kind, reads = Path(sys.argv[1]), sys.argv[2], sys.argv[3:] != ["closed"]
    os.environ["NICEGUI_STORAGE_PATH"] = str(folder / "page")
    from aggregator import page  # noqa: PLC0415 (after its settings)

    fleet = Fleet(folder, replace(JOB, rounds=20), {"night": replace(JOB, groups=("cellar",))})
    if kind == "populated":
        populate(fleet)
    feed = Feed(1)
    changes.watch(fleet.room.store, feed.tell)
    desk = desk_of(fleet, feed=feed, open_reads=reads)
    app = build_app(desk)
    page.install(app, desk)
    with serve_http(app, "127.0.0.1", 0) as url:
        print(url, flush=True)
        for line in sys.stdin:
            obey(fleet, line)
            print("done", flush=True)
    fleet.room.store.close()


if __name__ == "__main__":
    main()
