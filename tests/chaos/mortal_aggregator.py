"""The aggregator as it is, but mortal: it kills itself where a schedule says so.

    mortal_aggregator.py CONFIG SCHEDULE

SCHEDULE is a file of lines `round:state`; the process dies with SIGKILL right after the transition of the first line
is committed, having removed that line.
"""

import os
import signal
import sys
from pathlib import Path

from aggregator.config import load
from aggregator.service import open_service
from aggregator.store import RoundState


def main() -> None:
    config, schedule = Path(sys.argv[1]), Path(sys.argv[2])

    def die_as_told(_: str, number: int, state: RoundState) -> None:
        first, *rest = [*schedule.read_text().splitlines(), ""]
        if first == f"{number}:{state}":
            schedule.write_text("\n".join(rest))
            os.kill(os.getpid(), signal.SIGKILL)

    with open_service(load(config, environment={}), on_transition=die_as_told) as service:
        signal.signal(signal.SIGTERM, lambda *_: service.stop())
        service.run()


if __name__ == "__main__":
    main()
