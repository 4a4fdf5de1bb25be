"""What can go wrong with a run, each with a message for the person who started it."""


class SimulationError(Exception):
    """A run cannot go on; the message names the thing, the value and what was expected."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C; the message says what was kept and how to go on."""
