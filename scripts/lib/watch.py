"""Following the rounds: progress bars, a line a round, and one agent killed on the way."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from launch import Cast, check_alive, name_of
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from telling import DemoError, console, say

PATIENCE_S: Final = 600.0
"""For one round."""
POLL_S: Final = 0.25
KILL_FROM_ROUND: Final = 2
"""In the first round an agent also waits for its trainer to import torch, which shows nothing."""


def watch(cast: Cast) -> None:
    """Follow the rounds until the last is announced and every device runs its model."""
    told, give_up_at = 0, time.monotonic() + PATIENCE_S
    round_began_s = time.monotonic()
    with _bars() as bars:
        tasks = [bars.add_task(name_of(index), total=1.0, doing="starting") for index in range(len(cast.agents))]
        while True:
            check_alive(cast.aggregator, *cast.agents)
            status = cast.door.get("/api/v1/status")
            _draw(bars, tasks, status)
            _maybe_kill(cast, status)
            if status["model_version"] > told:
                told = status["model_version"]
                _tell_round(cast, told, time.monotonic() - round_began_s)
                round_began_s = time.monotonic()
                give_up_at = round_began_s + PATIENCE_S
            if told >= status["rounds_planned"] and _all_installed(cast, told):
                return
            if time.monotonic() > give_up_at:
                raise DemoError(f"round {status['round']} is still {status['state']} after {PATIENCE_S:.0f} s")
            time.sleep(POLL_S)


@contextmanager
def _bars() -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description:>10}"),
        BarColumn(30),
        TextColumn("{task.fields[doing]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        yield bars


def _draw(bars: Progress, tasks: list[Any], status: dict[str, Any]) -> None:
    for live in status["live"]:
        index = int(live["id"].rpartition("-")[2])
        doing = (
            f"{live['precision'] or '':5} {live['lifecycle']}, round {status['round']} of {status['rounds_planned']}"
        )
        bars.update(tasks[index], completed=live["progress"], doing=doing)


def _maybe_kill(cast: Cast, status: dict[str, Any]) -> None:
    """Kill one agent while it trains, and start it again: nothing may be lost, nothing counted twice."""
    if cast.killed or not KILL_FROM_ROUND <= status["round"] <= cast.plot.rounds:
        return
    agent = cast.agents[len(cast.agents) // 2]
    live = next((live for live in status["live"] if live["id"] == agent.name), None)
    if live and live["lifecycle"] == "training":
        cast.killed = {"device": agent.name, "round": status["round"], "task": live["task"], "pid": agent.pid}
        agent.kill()
        agent.start()
        say(f"killed {agent.name} (SIGKILL, process {cast.killed['pid']}) while it trained; started it again")


def _tell_round(cast: Cast, version: int, took_s: float) -> None:
    model = cast.door.get(f"/api/v1/models/{version}")
    row = cast.door.get(f"/api/v1/rounds/{version}")
    accepted = row["tasks"].get("accepted", 0)
    accuracy = ", ".join(f"{e['precision']} {100 * e['accuracy']:.1f} %" for e in model["exports"])
    sent, plain = row["update_bytes"] / 1000, row["update_fp32_bytes"] / 1000
    say(f"round {version}: {accepted} updates, {sent:.0f} kB instead of {plain:.0f}; {accuracy}; {took_s:.0f} s")


def _all_installed(cast: Cast, version: int) -> bool:
    return all(device["model_version"] == version for device in cast.door.every("/api/v1/devices"))
