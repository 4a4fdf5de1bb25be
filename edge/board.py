"""What a board calls itself in its device tree."""

from pathlib import Path
from typing import Final

DEVICE_TREE: Final = Path("/proc/device-tree")


def board_name(device_tree: Path = DEVICE_TREE) -> str | None:
    """For example `Raspberry Pi 5 Model B Rev 1.0`; None where there is no device tree, as on most PCs."""
    try:
        return (device_tree / "model").read_text(encoding="utf-8", errors="replace").rstrip("\0\n")
    except OSError:
        return None
