"""A bar for every run under way: round, loss, last accuracy, time left."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from simulation.checkpoint import State
from simulation.setup import Setup

SPEED_OVER_S: Final = 600.0
"""A round may take minutes; the time left is guessed from at least one."""


@dataclass(frozen=True)
class Bar:
    """The bar of one run, counted in updates."""

    progress: Progress
    task: TaskID
    setup: Setup

    def tick(self) -> None:
        """One more device is done; after a run that failed some still come in, and its bar is gone."""
        with suppress(KeyError):
            self.progress.advance(self.task)

    def show(self, state: State) -> None:
        """Show what a round came to."""
        self.progress.update(self.task, completed=state.number * self.setup.sampled, said=said(self.setup, state))


class Bars(AbstractContextManager["Bars"]):
    """All bars, on standard error, and what else is to be said there."""

    def __init__(self, show: bool) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[said]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=self._console,
            speed_estimate_period=SPEED_OVER_S,
            disable=not show,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """One line, above the bars."""
        self._console.print(f"[simulate] {text}", markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, setup: Setup, state: State) -> Iterator[Bar]:
        """The bar of one run, until the block is left."""
        task = self._progress.add_task(
            named(setup),
            total=setup.rounds * setup.sampled,
            completed=state.number * setup.sampled,
            said=said(setup, state),
        )
        try:
            yield Bar(self._progress, task, setup)
        finally:
            self._progress.remove_task(task)


def named(setup: Setup) -> str:
    """A run in few words."""
    family = setup.network.partition(":")[0]
    return f"{family} {setup.method} {setup.precision} {setup.recipe} seed {setup.seed}"


def said(setup: Setup, state: State) -> str:
    """How far a run is and how well it does."""
    words = [f"round {state.number}/{setup.rounds}"]
    if state.loss:
        words.append(f"loss {state.loss[-1]:.3f}")
    words += [f"{name} {100 * values[-1]:.1f} %" for name, values in list(state.accuracy.items())[:1]]
    return "  ".join(words)
