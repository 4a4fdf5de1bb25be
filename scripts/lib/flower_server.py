"""Flower's server for one job, in the virtual environment it was installed in; nothing of ours.

    python flower_server.py ADDRESS INITIAL.npz ROUNDS CLIENTS FOLDER

After every round a line of JSON, {"round": 1, "at_s": clock, "cpu_s": of this process so far, "up_bytes": of the
round}, and the averaged arrays as FOLDER/round-1.npz; what writing them costs is not counted.
"""

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from flwr.common import ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server import ServerConfig, start_server
from flwr.server.strategy import FedAvg


class Told(FedAvg):  # type: ignore[misc]  # Flower lives in another environment
    """Flower's own averaging, which tells how a round went."""

    def __init__(self, names: list[str], folder: Path, **options: Any) -> None:
        super().__init__(**options)
        self._names, self._folder, self._writing_s = names, folder, 0.0

    def aggregate_fit(self, server_round: int, results: list[Any], failures: list[Any]) -> tuple[Any, Any]:
        """Average as ever."""
        if failures:
            sys.exit(f"round {server_round}: {failures[0]!r}")
        averaged, metrics = super().aggregate_fit(server_round, results, failures)
        begin_s = time.process_time()
        up_bytes = sum(len(tensor) for _, fitted in results for tensor in fitted.parameters.tensors)
        told = {"round": server_round, "at_s": time.time(), "cpu_s": begin_s - self._writing_s, "up_bytes": up_bytes}
        arrays = dict(zip(self._names, parameters_to_ndarrays(averaged), strict=True))
        np.savez(self._folder / f"round-{server_round}.npz", **arrays)
        print(json.dumps(told), flush=True)
        self._writing_s += time.process_time() - begin_s
        return averaged, metrics


def main() -> None:
    logging.getLogger("flwr").setLevel(logging.ERROR)
    address, initial, rounds, clients, folder = sys.argv[1:]
    arrays = dict(np.load(initial))
    count = int(clients)
    strategy = Told(
        list(arrays),
        Path(folder),
        fraction_evaluate=0.0,
        min_fit_clients=count,
        min_available_clients=count,
        initial_parameters=ndarrays_to_parameters(list(arrays.values())),
        on_fit_config_fn=lambda server_round: {"round": server_round},
    )
    start_server(server_address=address, config=ServerConfig(num_rounds=int(rounds)), strategy=strategy)


if __name__ == "__main__":
    main()
