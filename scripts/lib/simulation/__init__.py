"""A federation in one process: the product's own trainer, codec and merge, without the network between them.

outcomes = run(setups, folder, workers, device, show)
model = final_model(setup, folder)
"""

from simulation.errors import Interrupted, SimulationError
from simulation.run import final_model, forget, run
from simulation.setup import Outcome, Setup

__all__ = ["Interrupted", "Outcome", "Setup", "SimulationError", "final_model", "forget", "run"]
