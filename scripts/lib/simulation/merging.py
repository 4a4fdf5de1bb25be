"""What comes back from devices, through the checks of the aggregator's door, merged as the run says.

Without an attack whatever fails is a fault of ours and ends the run. Under one, updates that the door would refuse are
left out, and so are devices whose training left the finite numbers, as a device that cannot train declines.
"""

import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from hashlib import sha256
from pathlib import Path

from aggregator.job import NORM_LIMIT
from aggregator.merge import MergeError, PartialSum, check_headroom
from aggregator.model import GlobalModel
from aggregator.rates.base import Reach
from aggregator.robust import Entry, Merging, settle
from aggregator.robust.clipping import whole_norm
from edge.training.task import TrainerError
from protocol.codec.payload import read
from protocol.errors import ProtocolError
from simulation.device import Update
from simulation.errors import SimulationError
from simulation.setup import Setup

Answer = tuple[int, Future[Update]]
"""A device, and what it will send."""


def merged(
    setup: Setup, base: GlobalModel, answers: Sequence[Answer], number: int
) -> tuple[GlobalModel, Reach, Mapping[int, Update]]:
    """The merged model, how far the updates reach, and each that counts, by device, in the order of `answers`.

    Raises:
        SimulationError: a device of an honest fleet failed, or too few updates are left for the rule.
    """
    updates = _delivered(setup, answers, number)
    reach, merging = Reach(), Merging.parse(setup.merge)
    if not updates:
        return base, reach, updates
    try:
        if merging.is_plain:
            return _added(setup, base, updates, reach), reach, updates
        payloads = {sha256(update.payload).hexdigest(): update.payload for update in updates.values()}
        entries = [
            Entry(str(index), sha256(update.payload).hexdigest(), update.samples) for index, update in updates.items()
        ]
        with tempfile.TemporaryDirectory() as folder:
            settled = settle(base, merging, entries, payloads.__getitem__, Path(folder), reach.add)
    except MergeError as error:
        raise SimulationError(f"round {number}: {error}") from error
    return settled.model, reach, updates


def _added(setup: Setup, base: GlobalModel, updates: Mapping[int, Update], reach: Reach) -> GlobalModel:
    total = PartialSum(base.architecture, vote=setup.vote)
    for update in updates.values():
        payload = read(update.payload)
        total.add(payload, update.samples)
        reach.add(payload)
    return total.finish(base)


def _delivered(setup: Setup, answers: Sequence[Answer], number: int) -> dict[int, Update]:
    found = {}
    for index, answer in answers:
        try:
            update = answer.result()
            _admit(update)
        except (TrainerError, ProtocolError, MergeError) as error:
            if setup.attack:
                continue
            for _, rest in answers:
                rest.cancel()
            raise SimulationError(f"round {number}, device {index}: {error}") from error
        found[index] = update
    return found


def _admit(update: Update) -> None:
    """As `aggregator.ingest` does."""
    payload = read(update.payload)
    norm = whole_norm(payload)
    if not norm <= NORM_LIMIT:
        raise MergeError(f"norm of the update is {norm:g}: expected at most {NORM_LIMIT:g}")
    check_headroom(payload, update.samples)
