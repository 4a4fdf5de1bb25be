"""A network whose middle is ours: two TUN devices, one of them in a namespace of its own, and real packets in between.

They are held back, lost or all dropped as a test says; TCP does what it does then. (`tc netem` is the usual means,
and is not in every kernel.)
"""

import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

TUN: Final = Path("/dev/net/tun")
TUNSETIFF: Final = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
MTU: Final = 1500
NEAR, FAR = "10.213.77.1", "10.213.77.2"


def available() -> bool:
    """Whether this process may make namespaces and devices."""
    return os.geteuid() == 0 and TUN.exists() and _works("ip", "netns", "list")


class LossyNetwork:
    """`near` is this namespace's address; whatever starts with `prefix` lives at the far end.

    Args:
        delay_s: of every packet, each way.
        loss: share of packets that are lost, each way.
        seed: of which.
    """

    near: Final = NEAR

    def __init__(self, *, delay_s: float, loss: float, seed: int = 0) -> None:
        self._delay_s, self._loss, self._rng = delay_s, loss, random.Random(seed)
        self._name = f"bitfleet-{os.getpid()}"
        self.parted, self._closing = threading.Event(), threading.Event()
        self.carried = self.lost = 0
        self._pump = threading.Thread(target=self._run, name="lossy", daemon=True)

    @property
    def prefix(self) -> tuple[str, ...]:
        """Stands before a command that runs at the far end."""
        return ("ip", "netns", "exec", self._name)

    def __enter__(self) -> Self:
        self._ends = [_tun(f"bf{end}{os.getpid()}") for end in "nf"]
        near, far = (f"bf{end}{os.getpid()}" for end in "nf")
        _ip("netns", "add", self._name)
        _ip("link", "set", far, "netns", self._name)
        _ip("address", "add", f"{NEAR}/30", "dev", near)
        _ip("link", "set", near, "up")
        _ip("-n", self._name, "address", "add", f"{FAR}/30", "dev", far)
        _ip("-n", self._name, "link", "set", far, "up")
        self._pump.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._closing.set()
        self._pump.join()
        for end in self._ends:
            os.close(end)
        _ip("netns", "delete", self._name)

    def _run(self) -> None:
        waiting: list[tuple[float, int, int, bytes]] = []
        number = 0
        while not self._closing.is_set():
            pause_s = min(0.1, max(0.0, waiting[0][0] - time.monotonic())) if waiting else 0.1
            for end in select.select(self._ends, [], [], pause_s)[0]:
                packet, other = os.read(end, MTU + 64), self._ends[end == self._ends[0]]
                number += 1
                if self.parted.is_set() or self._rng.random() < self._loss:
                    self.lost += 1
                else:
                    heapq.heappush(waiting, (time.monotonic() + self._delay_s, number, other, packet))
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, other, packet = heapq.heappop(waiting)
                os.write(other, packet)
                self.carried += 1


def _tun(name: str) -> int:
    end = os.open(TUN, os.O_RDWR)
    fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return end


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _works(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
