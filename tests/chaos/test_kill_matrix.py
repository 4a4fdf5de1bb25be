"""SIGKILL everywhere: the aggregator in each state of a round, the agent in each state of its life, the broker.

Each case must end with every update counted exactly once and the very bits of the undisturbed run.
"""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from federation import DEVICES, Federation
from programs import needs

from aggregator.store import RoundState
from edge.lifecycle import Lifecycle

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

STRAIGHT = ["planned", "offered", "collecting", "merging", "validating", "committed", "announced"]
ROUNDS = len(STRAIGHT)
LIVES = {
    "pi-0": ["joining", "idle", "downloading", "training"],
    "pi-1": ["encoding", "uploading", "await-receipt"],
}
"""Two devices share the states: after five crashes in ten minutes an agent would go into safe mode."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The final weights of a run in which nothing happens."""
    needs("mosquitto")
    with Federation(tmp_path_factory.mktemp("undisturbed"), ROUNDS, "mosquitto") as federation:
        digest = federation.finish()
        assert federation.everything_counted_once()
    return digest


def test_the_schedules_name_every_state() -> None:
    """A state that is added later must be killed in, too."""
    patience = {"extended", "starved"}
    ends = {"aborted", "rolled-back"}  # nothing is done in them
    assert {*STRAIGHT, *patience, *ends} == set(RoundState)
    not_on_the_way = {"unprovisioned", "pending", "sleeping", "throttled", "safe-mode", "revoked"}
    assert {state for states in LIVES.values() for state in states} | not_on_the_way == set(Lifecycle)


def test_the_aggregator_is_killed_in_every_state_of_a_round(tmp_path: Path, undisturbed: str) -> None:
    """BF-024, BF-026: a different state in each of seven rounds."""
    schedule = [f"{number}:{state}" for number, state in enumerate(STRAIGHT, start=1)]
    with Federation(tmp_path, ROUNDS, "mosquitto", aggregator_dies_at=schedule) as federation:
        assert federation.finish() == undisturbed
        assert federation.everything_counted_once()
        assert federation.aggregator.deaths == len(schedule)


def test_an_agent_is_killed_in_every_state_of_its_life(tmp_path: Path, undisturbed: str) -> None:
    """BF-021, BF-024, BF-025: in the outbox it is sent, before that it is trained again, and never both."""
    with Federation(tmp_path, ROUNDS, "mosquitto", agents_die_at=LIVES) as federation:
        assert federation.finish() == undisturbed
        assert federation.everything_counted_once()
        assert {name: agent.deaths for name, agent in federation.agents.items()} == {
            name: len(states) for name, states in LIVES.items()
        }


@pytest.mark.parametrize("broker", ["mosquitto", "embedded"])
def test_the_broker_is_killed_while_updates_are_collected(tmp_path: Path, undisturbed: str, broker: str) -> None:
    """BF-020, BF-025, BF-027: connections, subscriptions and what lay in the broker are lost; updates are not."""
    if broker == "mosquitto":
        needs("mosquitto")
    with Federation(tmp_path, ROUNDS, broker) as federation:
        for number in (1, 3):
            federation.until("collecting", number)
            assert federation.aggregator.process is not None
            os.kill(_broker_of(federation.aggregator.process.pid), signal.SIGKILL)
        assert federation.finish() == undisturbed
        assert federation.everything_counted_once()


def test_the_aggregator_is_killed_while_a_round_is_extended_and_starved(tmp_path: Path, undisturbed: str) -> None:
    """One device is held up until both deadlines have passed; what the other delivered is kept and counted."""
    impatient = {"deadline_s": 3.0, "extension_s": 3.0}
    dies_at = ["1:extended", "1:starved"]
    with Federation(tmp_path, ROUNDS, "mosquitto", impatient, aggregator_dies_at=dies_at) as federation:
        federation.until("collecting")
        held_up = federation.agents[DEVICES[1]].process
        assert held_up is not None
        held_up.send_signal(signal.SIGSTOP)
        federation.until("starved")
        held_up.send_signal(signal.SIGCONT)
        assert federation.finish() == undisturbed
        assert federation.everything_counted_once()
        assert federation.aggregator.deaths == len(dies_at)


def _broker_of(parent: int) -> int:
    """The process id of the aggregator's broker child."""
    found = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(parent)], capture_output=True, text=True, check=True
    )
    (line,) = [line for line in found.stdout.splitlines() if "mosquitto" in line or "embedded_broker" in line]
    return int(line.split()[0])
