"""A child's ends of the pipes to its agent."""

import os
import queue
import threading
from typing import TextIO


def take_standard_output() -> TextIO:
    """The stream to the agent; whatever else prints in this process goes to standard error from now on."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def read_ahead(source: TextIO) -> "queue.Queue[str]":
    """Lines as they come, read by a thread that ends the process at the end of input, in mid-task too."""
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in source:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, name="read-ahead", daemon=True).start()
    return lines
