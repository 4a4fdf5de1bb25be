"""How the demo speaks: one line an event, and one kind of failure."""

from rich.console import Console

console = Console(highlight=False)


class DemoError(Exception):
    """The demo cannot go on; the message says which part failed and how it ended."""


def say(text: str) -> None:
    """One line."""
    console.print(f"[demo] {text}", markup=False, soft_wrap=True)
