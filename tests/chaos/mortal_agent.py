"""The agent as it is, but mortal: it kills itself where a schedule says so.

    mortal_agent.py CONFIG SCHEDULE

SCHEDULE is a file of lifecycle states, one a line; the process dies with SIGKILL right after the state of the first
line is on its disk, having removed that line.
"""

import os
import signal
import sys
import threading
from pathlib import Path

from urllib3 import PoolManager

from edge.agent import Agent
from edge.assembly import assembled, open_journal
from edge.config import read_config
from edge.lifecycle import Lifecycle
from edge.membership import device_key
from edge.provision import Provisioner


def main() -> None:
    settings, schedule = read_config(Path(sys.argv[1])), Path(sys.argv[2])

    def die_as_told(state: Lifecycle) -> None:
        first, *rest = [*schedule.read_text().splitlines(), ""]
        if first == state:
            schedule.write_text("\n".join(rest))
            os.kill(os.getpid(), signal.SIGKILL)

    with PoolManager() as http:
        journal = open_journal(settings, die_as_told)
        membership = Provisioner(
            settings, journal, device_key(settings.state_dir), http, threading.Event().wait
        ).membership()
        assert membership is not None
        with assembled(settings, membership, journal, http) as parts:
            agent = Agent(parts)
            signal.signal(signal.SIGTERM, lambda *_: agent.stop())
            agent.run()


if __name__ == "__main__":
    main()
