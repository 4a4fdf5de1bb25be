"""What commands of `bitfleet-aggregator` share: who they ask, and how they show the answer."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

from aggregator.client import Client, find


def client(url: str | None, state: Path) -> Client:
    """The aggregator that options, environment and state directory mean."""
    return find(url, state, os.environ)


def show(answer: Any, table: Callable[[Any], RenderableType], *, as_json: bool) -> None:
    """Print an answer for people, or for scripts."""
    if as_json:
        print(json.dumps(answer, indent=2))
    else:
        Console().print(table(answer), highlight=False)
