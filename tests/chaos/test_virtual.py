"""A fleet of virtual devices in trouble: the service killed at random, a bad network, no broker, no space.

Each must end with every update counted once and the bits of the run in which nothing happens. `scripts/bench/chaos`
does the same with hundreds of kills.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lossy import LossyNetwork, available
from programs import needs_mosquitto
from virtual import accountant, ledger
from virtual.killing import digests, job, killed, undisturbed
from virtual.stage import Stage

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240), needs_mosquitto]

DEVICES, ROUNDS = 4, 2
WITHIN_S = 90.0


@pytest.fixture(scope="module")
def peace(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """The digests of the models when nothing happens; as many rounds as any test makes."""
    outcome = undisturbed(tmp_path_factory.mktemp("peace"), DEVICES, ROUNDS + 1, WITHIN_S)
    assert outcome.verdict.faults == []
    return outcome.digests


def test_the_service_is_killed_at_random(tmp_path: Path, peace: dict[int, str]) -> None:
    """BF-024, BF-026."""
    outcome = killed(tmp_path, DEVICES, 4, mean_life_s=0.8, seed=3, within_s=WITHIN_S)
    assert outcome.verdict.faults == []
    assert outcome.killed_in.total() == 4
    both = outcome.digests.keys() & peace.keys()
    assert both
    assert {number: outcome.digests[number] for number in both} == {number: peace[number] for number in both}


@pytest.mark.skipif(not available(), reason="network namespaces need root and /dev/net/tun")
def test_packets_are_late_and_lost_the_network_parts_and_the_broker_dies(tmp_path: Path, peace: dict[int, str]) -> None:
    """BF-020, BF-024, BF-025, BF-027: real packets between two namespaces."""
    with LossyNetwork(delay_s=0.03, loss=0.05) as network:
        where = {"http_host": network.near, "broker_host": network.near, "tls": "off"}
        with Stage(tmp_path, job(DEVICES, ROUNDS), where) as stage:
            stage.populate(DEVICES, 1, prefix=network.prefix, training_s=1.0)
            stage.until(
                lambda: "round 1: collecting" in stage.aggregator.last_lines(200), "a round", WITHIN_S, every_s=0.05
            )
            network.parted.set()
            broker = stage.broker()
            assert broker is not None
            broker.kill()
            time.sleep(2)
            network.parted.clear()
            _finish(stage, peace)
        assert network.lost > 5
        assert network.carried > 100


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[None]:
    folder.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_the_disk_is_full_for_a_while(tmp_path: Path, peace: dict[int, str]) -> None:
    """BF-026: nothing accepted is lost, and it goes on by itself when there is room."""
    with (
        small_disk(tmp_path / "aggregator", kilobytes=8192),
        Stage(tmp_path, job(DEVICES, ROUNDS), {"keep_free_mb": 0}) as stage,
    ):
        stage.populate(DEVICES, 1, training_s=1.0)
        stage.until(
            lambda: "round 1: collecting" in stage.aggregator.last_lines(200), "a round", WITHIN_S, every_s=0.05
        )
        ballast = stage.state / "ballast"
        _fill(ballast)
        stage.until(lambda: "is full" in stage.aggregator.last_lines(200), "the service says so", WITHIN_S)
        ballast.unlink()
        _finish(stage, peace)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def _finish(stage: Stage, peace: dict[int, str]) -> None:
    stage.until(lambda: max(digests(stage), default=0) >= ROUNDS, "the rounds end", WITHIN_S)
    stage.settle(WITHIN_S)
    stage.finish()
    assert accountant.judge(ledger.read(stage.ledgers), stage.state).faults == []
    assert digests(stage) == {number: peace[number] for number in range(1, ROUNDS + 1)}
