"""A round that costs accuracy is rolled back, and an operator can go back to any version."""

from dataclasses import replace

import numpy as np
import pytest
from fleet import JOB, Fleet, Opener
from sqlalchemy import update

from aggregator import handlers
from aggregator.handlers import CommandRefused
from aggregator.room import HoldOut, noise
from aggregator.store import Export, Model, Round
from protocol import networks
from protocol.messages import ModelOffer


def rated(open_fleet: Opener, gate_points: float) -> Fleet:
    """A fleet that has committed version 1, which everybody believes is perfect."""
    pictures = noise(networks.parse(JOB.architecture)).pictures_NCHW
    labels = np.arange(len(pictures)) % 10
    fleet = open_fleet(replace(JOB, rounds=3, gate_points=gate_points), hold_out=HoldOut(pictures, labels))
    fleet.connected("a")
    fleet.complete()
    with fleet.room.store.transaction() as session:
        session.execute(update(Export).values(accuracy=1.0))
    return fleet


def test_a_round_that_costs_too_much_leaves_the_model_and_says_why(open_fleet: Opener) -> None:
    fleet = rated(open_fleet, gate_points=5.0)
    fleet.complete()
    second = fleet.rows(Round)[1]
    assert fleet.states(2)[-1] == "rolled-back"
    assert second.note.startswith("rolled back: W8A8 falls from 100.00% to ")
    assert second.candidate in fleet.room.blobs
    assert fleet.version() == 1
    fleet.run()
    assert len(fleet.rows(Round)) == 2, "it rests first"
    fleet.clock.pass_(fleet.room.job.extension_s + 1)
    fleet.run()
    assert fleet.rows(Round)[2].base_version == 1


@pytest.mark.parametrize("gate_points", [0.0, 100.0])
def test_a_round_within_the_limit_is_committed(open_fleet: Opener, gate_points: float) -> None:
    fleet = rated(open_fleet, gate_points)
    fleet.complete()
    assert fleet.version() == 2


def test_an_operator_goes_back_and_the_fleet_follows(open_fleet: Opener) -> None:
    fleet = open_fleet(replace(JOB, rounds=3))
    (device,) = fleet.connected("a")
    fleet.complete()
    fleet.complete()
    handlers.pause(fleet.room)
    fleet.run()
    with pytest.raises(CommandRefused, match=r"round 3 is .*: abort it"):
        handlers.go_back(fleet.room, 1)
    handlers.abort_round(fleet.room)
    device.inbox.clear()
    assert handlers.go_back(fleet.room, 1) == 4
    fleet.deliver()
    (offer,) = device.take(ModelOffer)
    models = {model.version: model.digest for model in fleet.rows(Model)}
    assert (models[4], offer.version) == (models[1], 4)
    assert models[2] != models[1], "and what came between is still there"


def test_there_is_no_going_back_to_what_never_was(fleet: Fleet) -> None:
    with pytest.raises(CommandRefused, match="version 9 is not known"):
        handlers.go_back(fleet.room, 9)
