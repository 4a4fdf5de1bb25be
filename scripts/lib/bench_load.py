"""A fleet of virtual devices that come and go, over a real Mosquitto, and an accountant that judges every update.

    scripts/bench/load                                       1,000 devices, 30 rounds, a fifth of them away at any time
    scripts/bench/load --quick                               50 devices, 3 rounds
    scripts/bench/load --json docs/results/bench/load.json   and a plot beside it

Devices are light (`virtual`): a key, a connection and an outbox each, no trainer; they join over HTTP, hear broadcasts,
answer offers with updates that the real codec coded, and keep what has no receipt through every absence. Half of the
absences cut the connection, half leave it open and silent. When the rounds are over all come back, and whatever is
still owed gets its verdict; then the accountant compares the devices' ledgers with the aggregator's books.

What an update costs is measured apart: updates of a full-width ResNet18 at one bit through the real checks, the real
journal and the real merge, in CPU time. The time from a manifest to its receipt is set against a limit of this machine
in the same run: how long the disk takes to make one small transaction last.
"""

import argparse
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Final

import psutil
from evidence import Figure, write
from journal_cost import Cost, journal_cost
from rich.console import Console
from rich.table import Table
from sqlalchemy import func, select
from virtual import accountant, ledger
from virtual.stage import Stage

from aggregator.planning import newest_round
from aggregator.state_dir import DATABASE
from aggregator.store import MAIN, Outgoing, StoreReader

NETWORK: Final = "resnet18:width=0.0625,stem=3x3,input=1x8x8,classes=10"
WHOLE: Final = "resnet18:width=1,stem=3x3,input=3x32x32,classes=10"
NARROW: Final = "resnet18:width=0.125,stem=3x3,input=3x32x32,classes=10"
ROUNDS: Final = 30
MAX_RSS_MB: Final = 300
MAX_GROWTH: Final = 1.1
"""Of the resident set, from the second round's end to the last one's: flat."""
MAX_MERGE_MS: Final = 30
COMMITS: Final = 200


@dataclass(frozen=True, slots=True)
class Sample:
    """How things stood."""

    at_s: float
    round: int
    state: str
    rss_mb: float
    cpu_s: float
    broker_cpu_s: float
    outbox: int
    owed: int
    present: int


@dataclass
class Run:
    """What the fleet's run came to."""

    samples: list[Sample]
    verdict: accountant.Verdict
    departures: int
    wall_s: float
    commit_ms: float


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaves through the context managers, as Ctrl-C does
    arguments = _arguments()
    began_s = time.perf_counter()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="bitfleet-load-") as folder:
        run = _run(arguments, Path(folder), console)
    with console.status("what an update costs"):
        cost = journal_cost(NARROW if arguments.quick else WHOLE, updates=16 if arguments.quick else 128)
    figures = list(_figures(run, cost, arguments))
    _show(figures)
    for fault in run.verdict.faults[:20]:
        console.print(f"[red]{fault}")
    if arguments.json is not None:
        _plot(run.samples, arguments.json.with_suffix(".svg"))
        packages = ("numpy", "sqlalchemy", "paho-mqtt")
        write(arguments.json, "bench/load", figures, wall_s=time.perf_counter() - began_s, packages=packages)
    sys.exit(any(figure.met is False for figure in figures))


# --- the run ---


def _run(arguments: argparse.Namespace, folder: Path, console: Console) -> Run:
    commit_ms = _commit_ms(folder)
    job = {
        "architecture": NETWORK,
        "rounds": arguments.rounds,
        "downlink": "delta:eden:4",
        "precisions": ["W4A8", "W1A8"],
        "min_devices": max(1, arguments.agents // 2),
        "quorum": 0.5,
        "deadline_s": arguments.deadline,
        "extension_s": arguments.deadline,
        "seed": 5,
    }
    began_s = time.monotonic()
    with Stage(folder / "fleet", job) as stage, console.status("devices join") as status:
        watch = _Watch(stage, began_s)
        processes = max(1, arguments.agents // 500)
        stage.populate(arguments.agents, processes, churn=arguments.churn, absence_s=arguments.absence)
        stage.command("churn")
        told: list[float] = []

        def over() -> bool:
            sample = watch.take()
            if sample.round > len(told):
                told.append(sample.at_s)
                console.print(
                    f"{sample.at_s:6.0f} s: round {sample.round}, {sample.rss_mb:.0f} MB, {sample.present} there"
                )
            status.update(
                f"round {sample.round} of {arguments.rounds}, {sample.state}: {sample.present} devices there,"
                f" {sample.owed} updates under way, {sample.rss_mb:.0f} MB"
            )
            return sample.round == arguments.rounds and sample.state in {"announced", "aborted"}

        stage.until(over, "the rounds end", arguments.patience, every_s=0.5)
        departures = stage.told("departures")
        status.update("all devices come back")
        stage.settle()
        watch.take()
        stage.finish()
        wall_s = time.monotonic() - began_s
        verdict = accountant.judge(ledger.read(stage.ledgers), stage.state)
    if arguments.keep is not None:
        shutil.copytree(folder / "fleet", arguments.keep)
    return Run(watch.samples, verdict, departures, wall_s, commit_ms)


@dataclass
class _Watch:
    """Looks at the aggregator from outside: its process, and its database as a reader."""

    stage: Stage
    began_s: float
    samples: list[Sample] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._process = psutil.Process(self.stage.aggregator.pid)
        self._broker = self.stage.broker()
        self._store = StoreReader(self.stage.state / DATABASE).of(MAIN)

    def take(self) -> Sample:
        """One more sample."""
        with self._store.reading() as session:
            current = newest_round(session)
            outbox = session.scalar(select(func.count()).select_from(Outgoing)) or 0
        number, state = (current.number, current.state.value) if current else (0, "joining")
        sample = Sample(
            at_s=time.monotonic() - self.began_s,
            round=number,
            state=state,
            rss_mb=self._process.memory_info().rss / 1e6,
            cpu_s=_cpu_s(self._process),
            broker_cpu_s=_cpu_s(self._broker) if self._broker else 0.0,
            outbox=outbox,
            owed=self.stage.told("owed"),
            present=self.stage.told("present"),
        )
        self.samples.append(sample)
        return sample


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _commit_ms(folder: Path) -> float:
    """How long a transaction of one row takes until it is on this disk, as the aggregator's database writes."""
    with closing(sqlite3.connect(folder / "bare.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE t (x)")
        times_s = []
        for index in range(COMMITS):
            begin_s = time.perf_counter()
            connection.execute("INSERT INTO t VALUES (?)", (index,))
            times_s.append(time.perf_counter() - begin_s)
    return 1e3 * median(times_s)


# --- figures ---


def _figures(run: Run, cost: Cost, arguments: argparse.Namespace) -> Iterator[Figure]:
    verdict, whole = run.verdict, not arguments.quick
    fleet = f"{arguments.agents} devices, {arguments.rounds} rounds, {arguments.churn:g} of them away at any time"
    of = verdict.sent
    note = f"{fleet}; {run.departures} departures, half of them silent"
    yield _held("updates.lost_or_counted_twice", len(verdict.faults), "updates", "<= 0", not verdict.faults, of, note)
    yield _plain("updates.merged", verdict.merged, "updates", of, "each once, in the model of its round")
    yield _plain("updates.late", verdict.late, "updates", of, "their round was over when they came; the devices know")
    refused = ", ".join(f"{count} {code}" for code, count in sorted(verdict.refused.items())) or "none"
    yield _plain("updates.refused", verdict.refused.total(), "updates", of, f"for another reason: {refused}")
    equal, note = verdict.rounds_equal, "merged again by the accountant from what devices hold receipts for"
    wanted = arguments.rounds if arguments.quick else ROUNDS
    all_equal = equal == verdict.rounds >= wanted
    yield _held("rounds.bit_equal", equal, "rounds", f">= {wanted}", all_equal, arguments.rounds, note)
    yield from _memory(run, fleet)
    busy = [sample for sample in run.samples if sample.round]
    rounds, cpu_s = max(1, verdict.rounds), busy[-1].cpu_s - busy[0].cpu_s
    broker_s = busy[-1].broker_cpu_s - busy[0].broker_cpu_s
    yield _plain("service.cpu_per_round", round(cpu_s / rounds, 3), "s", rounds, fleet)
    yield _plain("service.cpu_per_update", round(1e3 * cpu_s / max(1, of), 2), "ms", of, "all of the service's work")
    yield _plain("broker.cpu_per_round", round(broker_s / rounds, 3), "s", rounds, fleet)
    limit = f"<= {MAX_MERGE_MS}" if whole else None
    note = f"{cost.architecture}, {cost.payload_bytes} bytes at 1 bit, from the journal to the merged model, CPU"
    met = cost.merge_ms <= MAX_MERGE_MS if whole else None
    yield Figure("merge.cpu_per_update", round(cost.merge_ms, 2), "ms", limit, met, cost.updates, None, note)
    note = "the same updates from manifest and chunks to journal and receipt: every check, three syncs of the disk; CPU"
    yield _plain("ingest.cpu_per_update", round(cost.ingest_ms, 2), "ms", cost.updates, note)
    yield from _waits(run)


def _memory(run: Run, fleet: str) -> Iterator[Figure]:
    peak_mb = max(sample.rss_mb for sample in run.samples)
    note = f"resident set of the service, without its broker; {fleet}"
    yield _held("service.rss", round(peak_mb), "MB", f"<= {MAX_RSS_MB}", peak_mb <= MAX_RSS_MB, len(run.samples), note)
    ends = [[s.rss_mb for s in run.samples if s.round == number] for number in sorted({s.round for s in run.samples})]
    peaks = [max(each) for each in ends[1:]]
    growth = peaks[-1] / peaks[min(1, len(peaks) - 1)]
    note = "largest of the last round over largest of the second"
    yield _held(
        "service.rss_growth", round(growth, 3), "ratio", f"<= {MAX_GROWTH}", growth <= MAX_GROWTH, len(peaks), note
    )


def _waits(run: Run) -> Iterator[Figure]:
    waits_s = sorted(run.verdict.latencies_s)
    note = "from a device's first manifest to its receipt; absences and late updates are in it"
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        value = waits_s[min(len(waits_s) - 1, int(share * len(waits_s)))]
        yield _plain(f"receipt.{name}", round(value, 3), "s", len(waits_s), note)
    collecting_s = _collecting_s(run.samples)
    updates = run.verdict.merged
    rate, bare = updates / max(collecting_s, 1e-9), 1e3 / run.commit_ms
    note = (
        f"{rate:.0f} merged updates a second while a round collects, over {bare:.0f} bare transactions of one row a"
        f" second on the same disk ({run.commit_ms:.1f} ms each)"
    )
    yield _plain("updates.over_bare_commits", round(rate / bare, 3), "ratio", updates, note)


def _collecting_s(samples: Sequence[Sample]) -> float:
    busy = {"offered", "collecting"}
    return sum(now.at_s - before.at_s for before, now in pairwise(samples) if now.state in busy and now.owed)


def _held(name: str, value: float, unit: str, limit: str, met: bool, of: int, note: str) -> Figure:
    return Figure(name, value, unit, limit, met, of, None, note)


def _plain(name: str, value: float, unit: str, of: int, note: str) -> Figure:
    return Figure(name, value, unit, None, None, of, None, note)


def _show(figures: Sequence[Figure]) -> None:
    table = Table("figure", "value", "limit", "met", "note")
    for figure in figures:
        met = "" if figure.met is None else str(figure.met)
        table.add_row(figure.name, f"{figure.value:g} {figure.unit}", figure.limit or "", met, figure.note)
    Console().print(table)


def _plot(samples: Sequence[Sample], path: Path) -> None:
    import matplotlib as mpl  # noqa: PLC0415 (a second that --help need not take)

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "load"
    from matplotlib import pyplot as plt  # noqa: PLC0415

    at_s = [sample.at_s for sample in samples]
    figure, (memory, queue) = plt.subplots(2, sharex=True, figsize=(8, 5), layout="constrained")
    memory.plot(at_s, [sample.rss_mb for sample in samples])
    memory.axhline(MAX_RSS_MB, linestyle="--", color="grey")
    memory.set(ylabel="resident set, MB", ylim=(0, None))
    queue.plot(at_s, [sample.owed for sample in samples], label="updates without a receipt")
    queue.plot(at_s, [sample.outbox for sample in samples], label="messages in the outbox")
    queue.plot(at_s, [sample.present for sample in samples], label="devices there", color="grey")
    queue.set(xlabel="seconds", ylim=(0, None))
    queue.legend(loc="upper right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the evidence document here")
    parser.add_argument("--quick", action="store_true", help="50 devices, 3 rounds, a narrow network for the cost")
    parser.add_argument("--agents", type=int, help="virtual devices (default 1000)")
    parser.add_argument("--rounds", type=int, help="rounds (default 30)")
    parser.add_argument("--churn", type=float, default=0.2, help="share of them that is away at any time (default 0.2)")
    parser.add_argument("--absence", type=float, help="mean seconds of an absence (default 60, quick 5)")
    parser.add_argument("--deadline", type=float, help="seconds that a round collects (default 30, quick 5)")
    parser.add_argument("--patience", type=float, default=7200, help="seconds after which the run is given up")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="copy the aggregator's folder and the ledgers here")
    arguments = parser.parse_args()
    arguments.agents = arguments.agents or (50 if arguments.quick else 1000)
    arguments.rounds = arguments.rounds or (3 if arguments.quick else ROUNDS)
    arguments.absence = arguments.absence or (5.0 if arguments.quick else 60.0)
    arguments.deadline = arguments.deadline or (5.0 if arguments.quick else 30.0)
    return arguments


if __name__ == "__main__":
    main()
