"""A page server as a child process, for tests with a real browser."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TESTS = Path(__file__).parents[2]


class Served:
    """A running `page_server`.

    Attributes:
        url: where it is.
    """

    def __init__(self, child: "subprocess.Popen[str]") -> None:
        self._child = child
        self.url = self._line()

    def tell(self, words: str) -> None:
        """Have something happen to the fleet, and wait until it has."""
        assert self._child.stdin
        print(words, file=self._child.stdin, flush=True)
        assert self._line() == "done"

    def _line(self) -> str:
        assert self._child.stdout
        line = self._child.stdout.readline().strip()
        assert line, "the page server has died; what it said is above"
        return line


@contextmanager
def served(folder: Path, kind: str, *more: str) -> Iterator[Served]:
    """A server for as long as the block runs."""
    folder.mkdir()
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    command = [sys.executable, Path(__file__).with_name("page_server.py"), folder, kind, *more]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, text=True, env={**os.environ, "PYTHONPATH": paths}, cwd=folder
    ) as child:
        try:
            yield Served(child)
        finally:
            assert child.stdin
            child.stdin.close()
            assert child.wait(20) == 0
