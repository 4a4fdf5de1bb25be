"""Prints what a process grows by, in bytes, from loading a model and running it once: MODEL ARCHITECTURE.

A process of its own, in which no other model has been and nothing large was imported and freed again.
"""

import sys
from pathlib import Path

import psutil

from export import ort
from export.pictures import synthetic
from export.writer import LOGITS
from protocol import networks


def main() -> None:
    path, spec = sys.argv[1:]
    picture = synthetic(networks.parse(spec)).pictures_NCHW[:1]
    process = psutil.Process()
    before = process.memory_info().rss
    session = ort.session(Path(path).read_bytes())
    ort.run(session, picture, [LOGITS])
    print(process.memory_info().rss - before)


if __name__ == "__main__":
    main()
