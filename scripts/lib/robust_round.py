"""A round merged by a rule, for `bench_robust`: run as a process, for its memory and its time.

    python robust_round.py ARCHITECTURE RULE UPDATES PAYLOAD...

takes the payloads over and over until there were so many updates, and prints JSON: processor seconds, wall seconds,
megabytes that the resident set grew by at its peak, and megabytes on disk meanwhile.
"""

import itertools
import json
import sys
import tempfile
import time
from pathlib import Path

from merge_round import PRECISION, peak_mb

from aggregator.merge import PartialSum
from aggregator.model import GlobalModel
from aggregator.robust import Entry, Merging, settle
from protocol.codec.payload import read
from protocol.precision import Precision

SAMPLES = 500


def main() -> None:
    _, architecture, rule, updates, *files = sys.argv
    base = GlobalModel.fresh(architecture, seed=0).with_profile(Precision.parse(PRECISION))
    taken = dict(zip(range(int(updates)), itertools.cycle(files), strict=False))
    merging = Merging.parse(rule)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is held now (man 5 proc)
    before_mb, began_s, spool_bytes = peak_mb(), time.perf_counter(), 0
    used_s = time.process_time()
    if merging.is_plain:
        total = PartialSum(architecture)
        for file in taken.values():
            total.add(read(Path(file).read_bytes()), SAMPLES)
        total.finish(base)
    else:
        entries = [Entry(str(index), f"{index:04d}", SAMPLES) for index in taken]
        with tempfile.TemporaryDirectory(dir=Path(files[0]).parent) as folder:
            settled = settle(base, merging, entries, lambda name: Path(taken[int(name)]).read_bytes(), Path(folder))
        spool_bytes = settled.spool_bytes
    print(
        json.dumps(
            {
                "cpu_s": time.process_time() - used_s,
                "wall_s": time.perf_counter() - began_s,
                "peak_mb": peak_mb() - before_mb,
                "spool_mb": spool_bytes / 1e6,
            }
        )
    )


if __name__ == "__main__":
    main()
