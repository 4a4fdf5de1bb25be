"""Run a program that dies with its parent: `python tether.py PARENT_PID PROGRAM ARGUMENT…`.

On Linux the kernel is asked to kill this process when the thread that started it ends, and then this process becomes
the program. So a `kill -9` of the aggregator leaves no broker that holds the port. Elsewhere the program simply runs.

A program of its own and not a `preexec_fn`: Python code between fork and exec can deadlock in a process with threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie this process to its parent and become the program."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent died before its child began")
    os.execvp(program[0], program)  # noqa: S606 (becoming the program is the purpose)


if __name__ == "__main__":
    main()
