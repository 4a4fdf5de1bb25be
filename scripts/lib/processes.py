"""Children of the demo: started with a log file, ended without leaving one behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

TETHER = Path(__file__).parent.parent.parent / "aggregator" / "tether.py"
"""Ends a child when this process dies, even by SIGKILL."""
GRACE_S = 8.0


class Child:
    """One process with its output in `log`."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name, self.command, self.log = name, tuple(command), log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                (sys.executable, str(TETHER), str(os.getpid()), *self.command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C reaches the demo alone, which then ends everything in order
            )

    @property
    def pid(self) -> int:
        """Its process id, 0 before the first start."""
        return self._process.pid if self._process else 0

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll() if self._process else None

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Ask with SIGTERM, insist with SIGKILL."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def last_lines(self, count: int = 12) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:]) if self.log.exists() else ""


class Children(AbstractContextManager["Children"]):
    """All children; leaving the block ends them, the last started first."""

    def __init__(self, logs: Path) -> None:
        self._logs, self._children = logs, list[Child]()

    def start(self, name: str, program: str, *arguments: str) -> Child:
        """Start one of our commands, as installed beside this Python, as a child."""
        command = (str(Path(sys.executable).with_name(program)), *arguments)
        child = Child(name, command, self._logs / f"{name}.log")
        self._children.append(child)
        child.start()
        return child

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not orphan anybody
        try:
            for child in reversed(self._children):
                child.stop()
        finally:
            signal.signal(signal.SIGINT, previous)
