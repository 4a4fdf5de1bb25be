"""How much of the disk is left, and that no round is opened when it is too little: one that begins should also end."""

import logging
import shutil
from pathlib import Path
from typing import Final

MB: Final = 1_000_000
KEEP_FREE_MB: Final = 200
"""A round of some hundred devices with one bit a weight of a full ResNet18; four of its models."""

log = logging.getLogger("bitfleet.aggregator")


class Space:
    """The disk of one folder.

    Args:
        folder: on that disk.
        keep_free_mb: how many megabytes must be free before a round is opened; 0 for none.
    """

    def __init__(self, folder: Path, keep_free_mb: int) -> None:
        self._folder, self._keep_free_mb, self._told = folder, keep_free_mb, False

    @property
    def complaint(self) -> str:
        """What is wrong, as a sentence; empty while there is enough."""
        free_mb = shutil.disk_usage(self._folder).free // MB
        if free_mb >= self._keep_free_mb:
            return ""
        return f"the disk of {self._folder} has {free_mb} MB left, below keep_free_mb = {self._keep_free_mb}: make room"

    def is_short(self) -> bool:
        """Whether no round should be opened; told in the log when that changes."""
        complaint = self.complaint
        if bool(complaint) != self._told:
            self._told = bool(complaint)
            log.warning("%s", f"no round is opened: {complaint}" if complaint else "there is room on the disk again")
        return bool(complaint)
