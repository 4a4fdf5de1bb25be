"""A small federation of real processes over a real broker, restarted by a supervisor whenever one of them dies.

Everything random follows from the job's seed, so that two federations that merge the same updates end with the same
bits, whatever happened to their processes on the way.
"""

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import urllib3
from sklearn.datasets import load_digits

HERE = Path(__file__).parent
NETWORK = "resnet18:width=0.0625,stem=3x3,input=1x8x8,classes=10"
DEVICES = ("pi-0", "pi-1")
PICTURES = 24
ENVIRONMENT = os.environ | {"PYTHONPATH": str(HERE.parent.parent), "OMP_NUM_THREADS": "1"}
"""Children import the packages of this checkout, and compute on one thread, so that sums do not depend on cores."""


@dataclass
class Supervised:
    """A process that is started again when it was killed, as systemd would."""

    command: list[str]
    log: Path
    deaths: int = 0
    process: subprocess.Popen[bytes] | None = None

    def watch(self) -> None:
        if self.process is not None and self.process.poll() is not None:
            assert self.process.returncode == -9, (
                f"exit code {self.process.returncode}:\n{self.log.read_text()[-3000:]}"
            )
            self.deaths += 1
            self.process = None
        if self.process is None:
            with self.log.open("ab") as output:
                self.process = subprocess.Popen(
                    self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=ENVIRONMENT
                )

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@dataclass
class Federation:
    """One aggregator, its broker and two agents in `folder`."""

    folder: Path
    rounds: int
    broker: str
    job: dict[str, Any] = field(default_factory=dict)
    aggregator_dies_at: list[str] = field(default_factory=list)
    agents_die_at: dict[str, list[str]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._stack = ExitStack()
        self._http = self._stack.enter_context(urllib3.PoolManager(timeout=10.0, retries=False))
        self.agents: dict[str, Supervised] = {}
        self.aggregator = self._supervise(
            "aggregator", "mortal_aggregator.py", self._settings(), self.aggregator_dies_at
        )
        self._until(lambda: (self.state / "endpoint.json").exists() and self.ready(), 40)
        for index, name in enumerate(DEVICES):
            self._start_agent(index, name)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def state(self) -> Path:
        return self.folder / "aggregator"

    def get(self, path: str) -> Any:
        url = json.loads((self.state / "endpoint.json").read_text())["http"]
        response = self._http.request("GET", f"{url}/api/v1{path}")
        assert response.status == 200, f"{path}: {response.status} {response.data!r}"
        return response.json()

    def ready(self) -> bool:
        try:
            self.get("/status")
        except (urllib3.exceptions.HTTPError, OSError):
            return False
        return True

    def status(self) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = self.get("/status")
        except (urllib3.exceptions.HTTPError, OSError):
            return {"round": 0, "state": "", "model_version": 0}
        return answer

    def finish(self, timeout_s: float = 150) -> str:
        """Wait for the last round; returns the SHA-256 of the final weights."""
        self._until(lambda: self._over(self.status()), timeout_s)
        newest = max(self.get("/models"), key=lambda model: model["version"])
        assert newest["version"] == self.rounds
        return str(newest["digest"])

    def until(self, state: str, number: int = 1, timeout_s: float = 60) -> None:
        """Wait for a round to be in a state."""
        self._until(lambda: self.status().items() >= {"round": number, "state": state}.items(), timeout_s)

    def counted(self) -> dict[tuple[int, str], int]:
        """Accepted updates by round and device."""
        result: dict[tuple[int, str], int] = {}
        for update in self.get("/updates"):
            assert update["accepted"], update
            key = (update["round"], update["device"])
            result[key] = result.get(key, 0) + 1
        return result

    def everything_counted_once(self) -> bool:
        return self.counted() == {(number, name): 1 for number in range(1, self.rounds + 1) for name in DEVICES}

    def unsent(self) -> list[Path]:
        """Updates that still wait for a receipt."""
        return [path for name in DEVICES for path in (self.folder / name / "outbox").glob("*")]

    def _over(self, status: dict[str, Any]) -> bool:
        return status["model_version"] == self.rounds and status["state"] == "announced" and not self.unsent()

    def _until(self, condition: Any, timeout_s: float) -> None:
        give_up_at = time.monotonic() + timeout_s
        while not condition():
            for process in (self.aggregator, *self.agents.values()):
                process.watch()
            if time.monotonic() > give_up_at:
                logs = "\n".join(f"--- {log.name}\n{log.read_text()[-2500:]}" for log in self.folder.glob("*.log"))
                raise AssertionError(f"not within {timeout_s} s: {self.status()}\n{logs}")
            time.sleep(0.1)

    def _settings(self) -> dict[str, Any]:
        job = {
            "architecture": NETWORK,
            "rounds": self.rounds,
            "precisions": ["W4A8"],
            "min_devices": len(DEVICES),
            "quorum": 1.0,
            "deadline_s": 120.0,
            "batch": 8,
            "seed": 5,
        }
        return {
            "fleet": "chaos",
            "state_dir": str(self.state),
            "http_port": 0,
            "broker_port": 0,
            "broker": self.broker,
            "page": False,
            "job": job | self.job,
        }

    def _start_agent(self, index: int, name: str) -> None:
        folder = self.folder / name
        folder.mkdir()
        digits = load_digits()
        mine = slice(index * PICTURES, (index + 1) * PICTURES)
        pictures = (digits.images[mine, None] * (255 / 16)).astype(np.uint8)
        np.savez(folder / "pictures.npz", pictures=pictures, labels=digits.target[mine])
        (folder / "token").write_text(self._token())
        endpoint = json.loads((self.state / "endpoint.json").read_text())
        settings = {
            "state_dir": str(folder),
            "device": name,
            "aggregator": endpoint["http"],
            "data": str(folder / "pictures.npz"),
            "max_backoff_s": 2.0,  # devices that wait minutes after the fifth kill would make this a test of patience
        }
        dies_at = self.agents_die_at.get(name, [])
        self.agents[name] = self._supervise(name, "mortal_agent.py", settings, dies_at)

    def _token(self) -> str:
        url = json.loads((self.state / "endpoint.json").read_text())["http"]
        admin = (self.state / "admin-token").read_text().strip()
        headers = {"Authorization": f"Bearer {admin}"}
        response = self._http.request("POST", f"{url}/api/v1/tokens", json={"uses": 1}, headers=headers)
        return str(response.json()["token"])

    def _supervise(self, name: str, script: str, settings: dict[str, Any], dies_at: list[str]) -> Supervised:
        config, schedule = self.folder / f"{name}.toml", self.folder / f"{name}.schedule"
        job = settings.pop("job", None)
        lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        if job:
            lines += ["[job]", *(f"{key} = {json.dumps(value)}" for key, value in job.items())]
        config.write_text("\n".join(lines) + "\n")
        schedule.write_text("\n".join(dies_at))
        command = [sys.executable, str(HERE / script), str(config), str(schedule)]
        process = Supervised(command, self.folder / f"{name}.log")
        self._stack.callback(process.stop)
        process.watch()
        return process
