"""One federated job, first on Flower and then here: the same network, pictures, processes, rounds and trainer.

    scripts/bench/flower                        4 devices, a ResNet18 of an eighth of the width, 20 rounds
    scripts/bench/flower --quick                2 devices, digits, 3 rounds
    scripts/bench/flower --json docs/results/bench/flower.json

Flower runs its gRPC server and a client a device (`start_server`, `start_client`: one server process, less than what
its SuperLink needs), float32 both ways; the client's training is our trainer in its own process, as in our agent. Here
the aggregator, its Mosquitto and the agents run as installed, one bit a weight up, and the way down by steps.

Server CPU here is all of it: the service, which also checks every update, journals it on disk and exports and checks an
ONNX model in every round, and the broker. Bytes are payloads. The first round, in which everybody loads torch, is left
out of medians; accuracy is that of the last three rounds' models, in float32, on pictures that nobody trained on.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Final

import numpy as np
import psutil
from evidence import Figure, write
from pictures import FASHION_MNIST, SHAPE, Fleet, gather
from processes import Children
from rich.console import Console
from rich.table import Table
from sqlalchemy import func, select
from virtual.stage import Stage

from aggregator import exports
from aggregator.blobs import BlobReader
from aggregator.model import GlobalModel
from aggregator.ports import free_port
from aggregator.room import noise
from aggregator.state_dir import BLOBS, DATABASE
from aggregator.store import Model, StoreReader, Update
from edge.data import Dataset, load
from edge.training.task import TrainingTask
from edge.training.trainer import train
from protocol import networks
from protocol.architecture import MOMENTS, Tensors
from protocol.precision import FP32

HOST: Final = "127.0.0.1"
LAST: Final = 3
TEST_PICTURES: Final = 4000
FLOWER: Final = "BITFLEET_FLOWER"


@dataclass(frozen=True)
class Job:
    """What both do."""

    architecture: str
    devices: int
    rounds: int
    epochs: int
    batch: int
    learning_rate: float
    learning_rate_decay: float
    fleet: Fleet
    test: Dataset
    patience_s: float

    @property
    def start(self) -> GlobalModel:
        """Where both begin."""
        return GlobalModel.fresh(self.architecture, seed=0).with_profile(FP32)

    def task(self, seed: int) -> TrainingTask:
        """A device's work in a round; two epochs of the same pictures the same way."""
        return TrainingTask(self.architecture, "fp32", self.epochs, self.batch, self.learning_rate, seed)


@dataclass
class Ran:
    """How one of the two did."""

    round_s: list[float]
    cpu_s: list[float]
    up_bytes: list[int]
    accuracy: list[float]
    broker_cpu_s: list[float] = field(default_factory=list)
    export_cpu_s: float = 0.0


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaves through the context managers, as Ctrl-C does
    arguments = _arguments()
    began_s = time.perf_counter()
    console, job = Console(stderr=True), _job(arguments)
    with tempfile.TemporaryDirectory(prefix="bitfleet-flower-") as name:
        folder = Path(name)
        with console.status("Flower"):
            theirs = _flower(job, _made(folder / "flower"))
        console.print(f"Flower: {median(theirs.round_s):.1f} s a round, accuracy {mean(theirs.accuracy):.3f}")
        with console.status("bitfleet"):
            ours = _bitfleet(job, folder / "bitfleet")
        console.print(f"bitfleet: {median(ours.round_s):.1f} s a round, accuracy {mean(ours.accuracy):.3f}")
    figures = list(_figures(job, theirs, ours, limited=not arguments.quick))
    table = Table("figure", "value", "limit", "met", "note")
    for figure in figures:
        met = "" if figure.met is None else str(figure.met)
        table.add_row(figure.name, f"{figure.value:g} {figure.unit}", figure.limit or "", met, figure.note)
    Console().print(table)
    if arguments.json is not None:
        wall_s = time.perf_counter() - began_s
        write(arguments.json, "bench/flower", figures, wall_s=wall_s, packages=("numpy", "torch", "sqlalchemy"))
    sys.exit(any(figure.met is False for figure in figures))


def _job(arguments: argparse.Namespace) -> Job:
    quick = arguments.quick
    devices, rounds = (2, 3) if quick else (arguments.devices, arguments.rounds)
    source = "digits" if quick or not FASHION_MNIST.is_dir() else "fashion-mnist"
    fleet = gather(source, devices, alpha=100.0, seed=1)
    test = Dataset(fleet.held_out_NCHW, fleet.held_out_N, fleet.class_names)
    if source == "fashion-mnist":
        whole = load(FASHION_MNIST, input_shape=SHAPE)
        test = Dataset(whole.pictures_NCHW[-TEST_PICTURES:], whole.labels_N[-TEST_PICTURES:], whole.class_names)
    width = 0.0625 if quick else arguments.width
    architecture = networks.parse(f"resnet18:width={width},stem=3x3,input={'x'.join(map(str, SHAPE))},classes=10").spec
    return Job(architecture, devices, rounds, arguments.epochs, 32, 0.1, 0.9, fleet, test, arguments.patience)


# --- Flower ---


def _flower(job: Job, folder: Path) -> Ran:
    _, files = job.fleet.write(folder)
    tensors = job.start.tensors(FP32)
    np.savez(folder / "initial.npz", **tensors)  # type: ignore[arg-type]
    python = str((Path(os.environ.get(FLOWER, ".venv-flower")) / "bin" / "python").absolute())
    address, here = f"{HOST}:{free_port(HOST)}", Path(__file__).parent
    command = [python, str(here / "flower_server.py"), address, str(folder / "initial.npz")]
    command += [str(job.rounds), str(job.devices), str(folder)]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        _wait_for(address, server, folder / "log")
        clients = [
            subprocess.Popen(
                [python, str(here / "flower_client.py"), address, str(_plan(job, folder, device, file, list(tensors)))],
                stdout=log,
                stderr=log,
            )
            for device, file in enumerate(files)
        ]
        try:
            assert server.stdout is not None
            told = [json.loads(line) for line in server.stdout]
            if len(told) < job.rounds:
                sys.exit(f"Flower ended after {len(told)} rounds:\n{(folder / 'log').read_text()[-3000:]}")
        finally:
            for client in clients:
                client.terminate()
                client.wait()
            server.terminate()
            server.wait()
    ends = [each["at_s"] for each in told]
    spent = [each["cpu_s"] for each in told]
    last = [dict(np.load(folder / f"round-{number}.npz")) for number in range(job.rounds - LAST + 1, job.rounds + 1)]
    return Ran(
        _steps(ends), _steps(spent), [each["up_bytes"] for each in told[1:]], [_accuracy(job, each) for each in last]
    )


def _plan(job: Job, folder: Path, device: int, file: Path, names: Sequence[str]) -> Path:
    own = _made(folder / f"client-{device}")
    specs = networks.parse(job.architecture).tensors(FP32)
    plan = {
        "trainer": [sys.executable, "-m", "edge.training.worker"],
        "task": {name: value for name, value in asdict(job.task(0)).items() if name != "seed"},
        "learning_rate_decay": job.learning_rate_decay,
        "device": device,
        "data": str(file),
        "folder": str(own),
        "names": list(names),
        "absolute": [spec.name for spec in specs if spec.role in MOMENTS],
    }
    path = own / "plan.json"
    path.write_text(json.dumps(plan))
    return path


def _wait_for(address: str, server: subprocess.Popen[str], log: Path) -> None:
    port = int(address.rpartition(":")[2])
    while not any(each.laddr.port == port for each in psutil.Process(server.pid).net_connections("tcp")):
        if server.poll() is not None:
            sys.exit(f"Flower's server ended: {log.read_text()[-3000:]}")
        time.sleep(0.1)


# --- bitfleet ---


def _bitfleet(job: Job, folder: Path) -> Ran:
    settings = {
        "architecture": job.architecture,
        "rounds": job.rounds,
        "recipe": "ef+sign",
        "downlink": "delta:eden:4",
        "precisions": ["fp32"],
        "epochs": job.epochs,
        "batch": job.batch,
        "learning_rate": job.learning_rate,
        "learning_rate_decay": job.learning_rate_decay,
        "min_devices": job.devices,
        "quorum": 1.0,
        "deadline_s": 3600.0,
        "seed": 0,
    }
    with Stage(folder, settings) as stage, Children(folder) as agents:
        _, files = job.fleet.write(folder)
        for index, file in enumerate(files):
            _start_agent(stage, agents, index, file)
        service, broker = psutil.Process(stage.aggregator.pid), stage.broker()
        spent, broker_spent, ends = list[float](), list[float](), list[float]()
        store = StoreReader(stage.state / DATABASE)

        def over() -> bool:
            with store.reading() as session:
                made = session.scalar(select(func.count()).select_from(Model).where(Model.version > 0)) or 0
            if made > len(spent):
                ends.append(time.time())
                spent.append(sum(service.cpu_times()[:2]))
                broker_spent.append(sum(broker.cpu_times()[:2]) if broker else 0.0)
            return made >= job.rounds

        stage.until(over, "the rounds end", job.patience_s, every_s=0.05)
        with store.reading() as session:
            rows = session.execute(select(Update.round, func.sum(Update.payload_bytes)).group_by(Update.round))
            up_bytes = [int(size) for number, size in rows if number > 1]
            models = list(session.scalars(select(Model).order_by(Model.version)))[-LAST:]
        store.close()
        blobs = BlobReader(stage.state / BLOBS)
        last = [GlobalModel.from_bytes(blobs.get(model.digest)) for model in models]
    accuracy = [_accuracy(job, each.tensors(FP32)) for each in last]
    return Ran(_steps(ends), _steps(spent), up_bytes, accuracy, _steps(broker_spent), _export_cpu_s(last))


def _export_cpu_s(models: Sequence[GlobalModel]) -> float:
    """CPU seconds of what the service exports in a round, by the same call; the first one loads the libraries."""
    spent_s = []
    for model in [models[0], *models]:
        begin_s = time.process_time()
        exports.job(model, 1, "fp32", shown=noise(model.network), fleet="load").make()
        spent_s.append(time.process_time() - begin_s)
    return median(spent_s[1:])


def _start_agent(stage: Stage, agents: Children, index: int, file: Path) -> None:
    folder = _made(stage.folder / f"device-{index}")
    token = folder / "join-token"
    token.write_text(stage.door.post("/api/v1/tokens", {"uses": 1})["token"])
    token.chmod(0o600)
    settings = {
        "state_dir": str(folder),
        "device": f"device-{index}",
        "aggregator": stage.door.url,
        "token_file": str(token),
        "data": str(file),
    }
    path = folder / "edge.toml"
    path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))
    agents.start(f"device-{index}", "bitfleet-edge", "run", "--config", str(path))


# --- both ---


def _accuracy(job: Job, tensors: Tensors) -> float:
    """Of a model on the test pictures, by the trainer, which measures before it trains no epoch."""
    task = TrainingTask(job.architecture, "fp32", 0, job.batch, 0.0, 0, held_out=0.0, moment_pictures=0)
    return train(task, tensors, job.test, lambda _: None).report.train_accuracy


def _steps(values: Sequence[float]) -> list[float]:
    """From each to the next: the first round, with everybody's start in it, is left out."""
    return [after - before for before, after in pairwise(values)]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _figures(job: Job, theirs: Ran, ours: Ran, *, limited: bool) -> Iterator[Figure]:
    pictures = f"{len(job.fleet.train_N) // job.devices} pictures of {job.fleet.name}"
    what = f"{job.architecture}, {job.devices} devices of {pictures}"

    def ratio(name: str, ours_X: Sequence[float], theirs_X: Sequence[float], most: float | None, note: str) -> Figure:
        value = median(ours_X) / median(theirs_X)
        said, met = (f"<= {most:g}", value <= most) if limited and most is not None else (None, None)
        note = f"{note}; medians {median(ours_X):.3g} here, {median(theirs_X):.3g} there; {what}"
        return Figure(name, round(value, 4), "ratio", said, met, len(ours_X), None, note)

    yield ratio("round.wall", ours.round_s, theirs.round_s, 1.0, "seconds a round, other work on the machine or not")
    both = [service + broker for service, broker in zip(ours.cpu_s, ours.broker_cpu_s, strict=True)]
    yield ratio("server.cpu", both, theirs.cpu_s, 0.2, "CPU seconds a round, broker and ONNX export included")
    bare = [max(0.0, total - ours.export_cpu_s) for total in both]
    note = f"the same without {ours.export_cpu_s:.2f} s for the export of a round, which Flower has no counterpart for"
    yield ratio("server.cpu_without_export", bare, theirs.cpu_s, None, note)
    yield ratio("broker.cpu", ours.broker_cpu_s, theirs.cpu_s, None, "CPU seconds a round of the broker alone")
    yield ratio("bytes.up", ours.up_bytes, theirs.up_bytes, 1 / 25, "payload bytes a round")
    points = 100 * (mean(ours.accuracy) - mean(theirs.accuracy))
    said, met = (">= -0.5", points >= -0.5) if limited else (None, None)
    note = (
        f"{100 * mean(ours.accuracy):.2f} % here, {100 * mean(theirs.accuracy):.2f} % there, models of the last {LAST}"
    )
    yield Figure(
        "accuracy", round(points, 2), "points", said, met, LAST, None, f"{note} of {job.rounds} rounds; {what}"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the evidence document here")
    parser.add_argument("--quick", action="store_true", help="2 devices, digits, 3 rounds; no limits")
    parser.add_argument("--devices", type=int, default=4, help="processes that train (default 4)")
    parser.add_argument("--rounds", type=int, default=20, help="rounds (default 20)")
    parser.add_argument("--epochs", type=int, default=1, help="passes over a device's pictures (default 1)")
    parser.add_argument("--width", type=float, default=0.125, help="of the ResNet18 (default 0.125)")
    parser.add_argument("--patience", type=float, default=3600, help="seconds after which it is given up")
    return parser.parse_args()


if __name__ == "__main__":
    main()
