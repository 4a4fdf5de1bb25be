"""SIGKILL for the service at random moments, hundreds of times, and the bits of every round against a run in peace.

    scripts/bench/chaos                                       500 kills, then the same rounds undisturbed
    scripts/bench/chaos --quick                               20 kills
    scripts/bench/chaos --json docs/results/bench/chaos.json

Virtual devices (`virtual`) send the same updates in both runs, and a round ends when all have delivered. Lives are
drawn from an exponential distribution; a new one is forked at once from a process that has imported all, and opens what
the one before left on the disk. The broker is a Mosquitto of its own, which lives on.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from evidence import Figure, write
from rich.console import Console
from rich.table import Table
from virtual.killing import Outcome, killed, undisturbed

KILLS = 500


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaves through the context managers, as Ctrl-C does
    arguments = _arguments()
    began_s = time.perf_counter()
    console = Console(stderr=True)
    said = [0]

    def tell(kills: int, rounds: int) -> None:
        if kills - said[0] >= max(1, arguments.kills // 20):
            said[0] = kills
            console.print(f"{time.perf_counter() - began_s:6.0f} s: {kills} kills, {rounds} rounds")

    with tempfile.TemporaryDirectory(prefix="bitfleet-chaos-") as name:
        folder = Path(name)
        disturbed = killed(
            folder / "killed",
            arguments.devices,
            arguments.kills,
            mean_life_s=arguments.life,
            seed=arguments.seed,
            within_s=arguments.patience,
            told=tell,
        )
        rounds = max(disturbed.digests)
        console.print(f"{time.perf_counter() - began_s:6.0f} s: the same {rounds} rounds in peace")
        peaceful = undisturbed(folder / "peace", arguments.devices, rounds, arguments.patience)
    figures = list(_figures(disturbed, peaceful, arguments))
    table = Table("figure", "value", "limit", "met", "note")
    for figure in figures:
        met = "" if figure.met is None else str(figure.met)
        table.add_row(figure.name, f"{figure.value:g} {figure.unit}", figure.limit or "", met, figure.note)
    Console().print(table)
    for fault in [*disturbed.verdict.faults, *peaceful.verdict.faults][:20]:
        console.print(f"[red]{fault}")
    if arguments.json is not None:
        wall_s = time.perf_counter() - began_s
        write(arguments.json, "bench/chaos", figures, wall_s=wall_s, packages=("numpy", "sqlalchemy", "paho-mqtt"))
    sys.exit(any(figure.met is False for figure in figures))


def _figures(disturbed: Outcome, peaceful: Outcome, arguments: argparse.Namespace) -> Iterator[Figure]:
    rounds = max(disturbed.digests)
    same = sum(disturbed.digests[number] == peaceful.digests.get(number) for number in disturbed.digests)
    kills, states = disturbed.killed_in.total(), dict(sorted(disturbed.killed_in.items()))
    wanted = arguments.kills if arguments.quick else KILLS
    note = f"while the round was {', '.join(f'{state} {count}' for state, count in states.items())}"
    yield Figure("service.kills", kills, "kills", f">= {wanted}", kills >= wanted, kills, None, note)
    note = f"{arguments.devices} devices, {kills / rounds:.1f} kills a round; models compared by their SHA-256"
    yield Figure("rounds.bit_equal", same, "rounds", f">= {rounds}", same == rounds, rounds, None, note)
    for name, outcome in (("killed", disturbed), ("peace", peaceful)):
        verdict = outcome.verdict
        note = f"{verdict.merged} of {verdict.sent} updates merged, each once, by the accountant of bench/load"
        faults = len(verdict.faults)
        yield Figure(f"{name}.lost_or_counted_twice", faults, "updates", "<= 0", not faults, verdict.sent, None, note)
        note = "the whole run, with starting and settling"
        yield Figure(f"{name}.wall", round(outcome.wall_s, 1), "s", None, None, 1, None, note)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the evidence document here")
    parser.add_argument("--quick", action="store_true", help="20 kills")
    parser.add_argument("--kills", type=int, help="how many (default 500)")
    parser.add_argument("--devices", type=int, default=6, help="virtual devices (default 6)")
    parser.add_argument("--life", type=float, default=1.5, help="mean seconds of a life (default 1.5)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    parser.add_argument("--patience", type=float, default=7200, help="seconds after which a run is given up")
    arguments = parser.parse_args()
    arguments.kills = arguments.kills or (20 if arguments.quick else KILLS)
    return arguments


if __name__ == "__main__":
    main()
