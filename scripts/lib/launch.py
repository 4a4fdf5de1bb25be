"""Everyone on stage: the aggregator with its broker, and the agents, each a process with its settings in a file."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from door import Door
from pictures import Fleet
from processes import Child, Children
from telling import DemoError

from protocol.architecture import Architecture
from protocol.energy import MJ_PER_J, inference_energy
from protocol.precision import Precision

INFERENCES_PER_DAY: Final = 100_000
START_WITHIN_S: Final = 60.0


@dataclass(frozen=True)
class Plot:
    """What is to happen.

    Attributes:
        fleet: the pictures, dealt out.
        network: what is learned.
        precisions: best first; devices get budgets for them in turn.
        rounds: of training; one that only calibrates follows.
        broker: as the aggregator understands it.
        seed: of all training.
        folder: for everything that is written.
    """

    fleet: Fleet
    network: Architecture
    precisions: tuple[Precision, ...]
    rounds: int
    broker: str
    seed: int
    folder: Path

    @property
    def budgets_j_per_day(self) -> list[float]:
        """One a device: mains power (0) for the best precision, else a tenth above what the precision needs."""
        needs = [inference_energy(self.network, p).total_mj * INFERENCES_PER_DAY / MJ_PER_J for p in self.precisions]
        levels = [0.0, *(round(1.1 * need, 2) for need in needs[1:])]
        return [levels[index % len(levels)] for index in range(len(self.fleet.parts))]


@dataclass
class Cast:
    """Who is on stage, and who was killed."""

    plot: Plot
    door: Door
    aggregator: Child
    agents: list[Child] = field(default_factory=list)
    killed: dict[str, Any] | None = None


def launch(plot: Plot, children: Children) -> Cast:
    """Start the aggregator, then the agents, each with a join token of its own."""
    held_out, files = plot.fleet.write(plot.folder)
    aggregator = _start_aggregator(plot, children, held_out)
    cast = Cast(plot, _wait_for_door(plot.folder / "aggregator", aggregator), aggregator)
    for index, file in enumerate(files):
        cast.agents.append(_start_agent(cast, children, index, file))
    return cast


def name_of(index: int) -> str:
    """Name of a device."""
    return f"device-{index}"


def check_alive(*children: Child) -> None:
    """Raise DemoError for a child that has ended, with its last words."""
    for child in children:
        if child.exit_code is not None:
            raise DemoError(f"{child.name} ended with exit code {child.exit_code}:\n{child.last_lines()}")


def _start_aggregator(plot: Plot, children: Children, held_out: Path) -> Child:
    settings = {
        "fleet": "demo",
        "state_dir": str(plot.folder / "aggregator"),
        "http_port": 0,
        "broker_port": 0,
        "broker": plot.broker,
        "holdout": str(held_out),
    }
    job = {
        "architecture": plot.network.spec,
        "rounds": plot.rounds,
        "downlink": "delta:eden:4",
        "epochs": 3,
        "learning_rate": 0.1,
        "learning_rate_decay": 0.8,
        "calibrate_last": True,
        "precisions": [str(p) for p in plot.precisions],
        "min_devices": len(plot.fleet.parts),
        "quorum": 1.0,
        "deadline_s": 300.0,
        "seed": plot.seed,
    }
    path = plot.folder / "aggregator.toml"
    path.write_text(_toml(settings) + "\n[job]\n" + _toml(job))
    return children.start("aggregator", "bitfleet-aggregator", "serve", "--config", str(path))


def _wait_for_door(state: Path, aggregator: Child) -> Door:
    give_up_at = time.monotonic() + START_WITHIN_S
    while (door := Door.of(state)) is None:
        check_alive(aggregator)
        if time.monotonic() > give_up_at:
            raise DemoError(f"the aggregator did not open its door within {START_WITHIN_S:.0f} s")
        time.sleep(0.1)
    return door


def _start_agent(cast: Cast, children: Children, index: int, data: Path) -> Child:
    name, folder = name_of(index), cast.plot.folder / name_of(index)
    folder.mkdir()
    token = folder / "join-token"
    token.write_text(cast.door.post("/api/v1/tokens", {"uses": 1})["token"])
    token.chmod(0o600)
    settings = {
        "state_dir": str(folder),
        "device": name,
        "aggregator": cast.door.url,
        "token_file": str(token),
        "data": str(data),
        "budget_j_per_day": cast.plot.budgets_j_per_day[index],
        "inferences_per_day": INFERENCES_PER_DAY,
    }
    path = folder / "edge.toml"
    path.write_text(_toml(settings))
    return children.start(name, "bitfleet-edge", "run", "--config", str(path))


def _toml(table: dict[str, Any]) -> str:
    """TOML of plain values, which JSON spells the same."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
