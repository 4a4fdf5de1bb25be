"""A Flower client whose training is our trainer's: its process, its lines of JSON (`edge.training.worker`).

    python flower_client.py ADDRESS PLAN.json

PLAN names the trainer's command, the task without its seed, the device's number and pictures, and a folder. What goes
up are the trained arrays in float32, as any Flower client's.
"""

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from flwr.client import NumPyClient, start_client


class Trained(NumPyClient):  # type: ignore[misc]  # Flower lives in another environment
    """One device."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan, self._folder = plan, Path(plan["folder"])
        self._trainer = subprocess.Popen(plan["trainer"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def fit(self, parameters: list[Any], config: dict[str, Any]) -> tuple[list[Any], int, dict[str, Any]]:
        """Train from what came down."""
        base = dict(zip(self._plan["names"], parameters, strict=True))
        np.savez(self._folder / "base.npz", **base)
        number = config["round"]
        rate = self._plan["task"]["learning_rate"] * self._plan["learning_rate_decay"] ** (number - 1)
        task = self._plan["task"] | {"seed": 1000 * number + self._plan["device"], "learning_rate": rate}
        files = {"base": str(self._folder / "base.npz"), "result": str(self._folder / "result.npz")}
        tasks, answers = self._trainer.stdin, self._trainer.stdout
        assert tasks is not None
        assert answers is not None
        tasks.write(json.dumps({"task": task, "data": self._plan["data"], "classes": None} | files) + "\n")
        tasks.flush()
        while True:
            answer = json.loads(answers.readline())
            if answer["event"] == "error":
                sys.exit(answer["message"])
            if answer["event"] == "done":
                break
        with np.load(files["result"]) as result:
            samples = json.loads(str(result["report"]))["samples"]
            update = {name: result[name] for name in base}
        absolute = set(self._plan["absolute"])
        return [update[name] + (0 if name in absolute else base[name]) for name in base], samples, {}


def main() -> None:
    logging.getLogger("flwr").setLevel(logging.ERROR)
    plan = json.loads(Path(sys.argv[2]).read_text())
    start_client(server_address=sys.argv[1], client=Trained(plan).to_client())


if __name__ == "__main__":
    main()
