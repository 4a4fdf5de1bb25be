"""Whole runs: several at once over one crew, each from its last checkpoint to its outcome.

A run's rounds follow one another, but what its devices do in a round does not; so one run keeps all workers busy
while devices train, and as many runs as workers keep them busy while models are merged and judged, too. Every piece
of work is the same in whichever worker, and sums are exact: results do not depend on the number of workers.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from evidence import commit, machine

from aggregator.model import GlobalModel, ModelError
from edge.files import AlreadyRunning, only_one, set_aside
from protocol.method import Method
from protocol.precision import Precision
from simulation import rounds
from simulation.checkpoint import Shelf, State
from simulation.crew import Crew
from simulation.errors import Interrupted, SimulationError
from simulation.judge import arithmetic_of
from simulation.partition import test_pictures
from simulation.progress import Bars
from simulation.setup import Outcome, Setup

PACKAGES: Final = ("bitfleet", "numpy", "onnxruntime", "torch")


def run(setups: Sequence[Setup], folder: Path, workers: int, device: str, show: bool) -> list[Outcome]:
    """Play every run to its end, from where it was left; finished ones are only read.

    Args:
        setups: what to run.
        folder: for checkpoints, outcomes and models; made if it is not there.
        workers: processes, and runs at once.
        device: `cpu`, `cuda`, or `auto` for an accelerator if torch sees one.
        show: whether to draw a bar for every run under way.

    Returns:
        An outcome for each setup, in their order.

    Raises:
        SimulationError: a run failed; the others were played to their end first.
        Interrupted: Ctrl-C; the message says what was kept.
    """
    processor = processor_of(device)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SimulationError(f"folder {folder}: cannot be made: {error.strerror}") from error
    shelves = [Shelf(folder, setup) for setup in dict.fromkeys(setups)]
    with Bars(show) as bars:
        waiting = [shelf for shelf in shelves if _finished(shelf, bars) is None]
        if waiting:
            _play_all(waiting, workers, processor, bars)
    return [outcome for setup in setups if (outcome := Shelf(folder, setup).finished())]


def final_model(setup: Setup, folder: Path) -> GlobalModel:
    """The final model of a finished run, calibrated at every precision it was judged at.

    Raises:
        SimulationError: the run is not finished here, or its model is damaged.
    """
    shelf = Shelf(folder, setup)
    try:
        return GlobalModel.from_bytes(shelf.model.read_bytes())
    except FileNotFoundError as error:
        raise SimulationError(
            f"{shelf.model}: expected the model of a finished run; run it in {folder} first"
        ) from error
    except ModelError as error:
        raise SimulationError(f"{shelf.model}: {error}") from error


def forget(setups: Sequence[Setup], folder: Path) -> None:
    """Remove what `folder` has of these runs."""
    for setup in setups:
        Shelf(folder, setup).clear()


def processor_of(device: str) -> str:
    """Torch's name of what computes.

    Raises:
        SimulationError: it is none of auto, cpu and cuda, or torch sees no accelerator.
    """
    if device not in {"auto", "cpu", "cuda"}:
        raise SimulationError(f"device {device!r}: expected auto, cpu or cuda")
    seen = torch.cuda.is_available()
    if device == "cuda" and not seen:
        raise SimulationError("device 'cuda': torch sees no accelerator, expected one; cpu and auto do without")
    return "cuda" if seen and device != "cpu" else "cpu"


def _play_all(shelves: Sequence[Shelf], workers: int, processor: str, bars: Bars) -> None:
    """Play runs to their end, as many at once as there are workers. The crew leaves first, and so frees the threads."""
    kept: dict[str, int] = {}
    try:
        with ThreadPoolExecutor(min(workers, len(shelves))) as threads, Crew(workers, processor) as crew:
            plays = [threads.submit(_play_alone, shelf, crew, bars, kept) for shelf in shelves]
            try:
                wait(plays)
            except KeyboardInterrupt:
                for play in plays:
                    play.cancel()
                raise
    except KeyboardInterrupt:
        raise Interrupted(_left(shelves)) from None
    errors = [error for play in plays if (error := play.exception())]
    for error in errors[1:]:
        bars.say(str(error))
    if errors:
        raise errors[0]


def _left(shelves: Sequence[Shelf]) -> str:
    """What an interruption left, now that nobody writes any more."""
    names = []
    for shelf in shelves:
        with suppress(SimulationError):
            state = shelf.load()
            if state is not None:
                names.append(f"run {shelf.setup.digest} is kept as after round {state.number} of {shelf.setup.rounds}")
    return "; ".join(["interrupted", *names, "the same command goes on from there"])


def _play_alone(shelf: Shelf, crew: Crew, bars: Bars, kept: dict[str, int]) -> None:
    """Play one run, unless another process does."""
    name = f"run {shelf.setup.digest}"
    try:
        with only_one(shelf.lock):
            _play(shelf, crew, bars, kept)
    except AlreadyRunning as error:
        raise SimulationError(f"{name}: another process plays it in {shelf.folder}; expected one at a time") from error
    except SimulationError as error:
        raise SimulationError(f"{name}: {error}") from error
    except BrokenProcessPool as error:
        raise SimulationError(
            f"{name}: a worker ended in round {kept.get(shelf.setup.digest, 0) + 1}, perhaps for want of memory; the"
            " same command goes on from the round before, with fewer workers if need be"
        ) from error


def _play(shelf: Shelf, crew: Crew, bars: Bars, kept: dict[str, int]) -> None:
    setup = shelf.setup
    pictures = crew.submit(test_pictures, setup).result()
    state = _loaded(shelf, bars) or rounds.start(setup)
    with bars.bar(setup, state) as bar:
        while True:
            kept[setup.digest] = state.number
            began_s, model = time.monotonic(), None
            state = rounds.learn(setup, state, crew, bar.tick)
            if state.number > setup.rounds - setup.judged_rounds:
                state, model = rounds.judged(setup, state, pictures, crew)
            state = replace(state, wall_s=state.wall_s + time.monotonic() - began_s)
            bar.show(state)
            if model is not None and state.number == setup.rounds:
                shelf.finish(_outcome(setup, state, crew), model)
                return
            shelf.keep(state)


def _finished(shelf: Shelf, bars: Bars) -> Outcome | None:
    try:
        return shelf.finished()
    except SimulationError as error:
        bars.say(f"{error}; set aside as {set_aside(shelf.outcome).name}, the run starts over")
        return None


def _loaded(shelf: Shelf, bars: Bars) -> State | None:
    try:
        return shelf.load()
    except SimulationError as error:
        bars.say(f"{error}; set aside as {set_aside(shelf.checkpoint).name}, the run starts over")
        return None


def _outcome(setup: Setup, state: State, crew: Crew) -> Outcome:
    method = Method.parse(setup.method)
    return Outcome(
        setup=setup,
        accuracy=state.accuracy,
        arithmetic={name: arithmetic_of(method, Precision.parse(name)) for name in setup.evaluate},
        loss=state.loss,
        up_bytes=state.up_bytes,
        down_bytes=state.down_bytes,
        calibration_bytes=state.calibration_bytes,
        wall_s=round(state.wall_s, 1),
        up_mj=list(state.past.up_mj),
        down_mj=list(state.past.down_mj),
        rates=[[rates.up[0], rates.down] for rates in state.past.rates],
        machine={**machine(PACKAGES), "commit": commit(), "processor": crew.processor, "workers": crew.workers},
    )
