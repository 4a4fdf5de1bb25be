"""A round as the aggregator merges it, for `bench_merge`: timed there, and run as a process here for its memory.

    python merge_round.py ARCHITECTURE CODEC UPDATES PAYLOAD...

reads one payload at a time, over and over until there were so many updates, and prints the megabytes that its resident
set grew by at its peak.
"""

import itertools
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aggregator.merge import PartialSum
from aggregator.model import GlobalModel
from protocol.codec.payload import read
from protocol.precision import Precision

PRECISION: Final = "W4A8"


@dataclass(frozen=True)
class Case:
    """A codec, how many times as fast as Flower it has to be, and whether all devices have one step and weight."""

    name: str
    limit: float
    announced: bool = False

    def samples(self, device: int) -> int:
        """Pictures that the device trained on."""
        return 500 if self.announced else 500 + device


CASES: Final = (Case("stosign", 100, announced=True), Case("sign", 15), Case("eden:1", 15), Case("fp32", 2))


def base_of(architecture: str) -> GlobalModel:
    """A model as the round finds it: with the profile of the precision that devices run."""
    return GlobalModel.fresh(architecture, seed=0).with_profile(Precision.parse(PRECISION))


def merged(base: GlobalModel, case: Case, payloads: Iterable[bytes], updates: int) -> GlobalModel:
    """So many updates from their bytes to the merged model."""
    total = PartialSum(base.architecture)
    for device, payload in zip(range(updates), payloads, strict=False):
        total.add(read(payload), case.samples(device))
    return total.finish(base)


def main() -> None:
    _, architecture, name, updates, *files = sys.argv
    (case,) = (case for case in CASES if case.name == name)
    base = base_of(architecture)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is held now (man 5 proc)
    before_mb = peak_mb()
    merged(base, case, (Path(file).read_bytes() for file in itertools.cycle(files)), int(updates))
    print(peak_mb() - before_mb)


def peak_mb() -> float:
    """Of this process alone; what `getrusage` says begins with the peak of its parent."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
