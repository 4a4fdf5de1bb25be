"""Uploads being put together, in memory: chunks arrive, a payload comes out.

Nothing here survives a restart, and nothing needs to: a device repeats its manifest until it has a receipt, and is
told what is missing. Memory is bounded by a quota over what all open manifests announce; one device has one upload
at a time.
"""

from dataclasses import dataclass, field
from typing import Final

from protocol.chunks import Assembly
from protocol.errors import RemoteProtocolError
from protocol.messages import Manifest

DEFAULT_QUOTA_BYTES: Final = 1 << 30
"""Twenty-odd full-width ResNet18 updates at fp32 side by side, or several hundred at 1 bit."""
MAX_FAILURES: Final = 3
"""Digest failures after which an upload is refused: a device that hashes wrongly would be asked for ever."""


@dataclass
class Upload:
    """One upload on its way in."""

    manifest: Manifest
    assembly: Assembly
    failures: int = 0

    def payload(self) -> bytes | None:
        """The whole payload; None when its digest was wrong and every chunk is asked for again.

        Raises:
            RemoteProtocolError: the digest was wrong for the last time.
        """
        try:
            return self.assembly.payload()
        except RemoteProtocolError:
            self.failures += 1
            if self.failures >= MAX_FAILURES:
                raise
            return None


@dataclass
class Uploads:
    """Open uploads by device."""

    quota_bytes: int = DEFAULT_QUOTA_BYTES
    _open: dict[str, Upload] = field(default_factory=dict, init=False)

    def begin(self, device: str, manifest: Manifest) -> Upload | None:
        """The upload a manifest speaks of: the one already open, if it is the same, else a fresh one.

        Returns:
            None while the quota leaves no room; the device will repeat its manifest.

        Raises:
            Malformed: the announced sizes are out of bounds.
        """
        current = self._open.get(device)
        if current is not None and _same(current.manifest, manifest):
            return current
        upload = Upload(manifest, Assembly(manifest.payload_bytes, manifest.chunk_bytes, manifest.digest))
        self._open.pop(device, None)
        if self.announced_bytes + manifest.payload_bytes > self.quota_bytes:
            return None
        self._open[device] = upload
        return upload

    def of(self, device: str, task: str) -> Upload | None:
        """The open upload of a device for a task."""
        upload = self._open.get(device)
        return upload if upload is not None and upload.manifest.task == task else None

    def drop(self, device: str) -> None:
        """Forget a device's upload, if it has one."""
        self._open.pop(device, None)

    def clear(self) -> None:
        """Forget every upload: the round they belong to takes no more."""
        self._open.clear()

    @property
    def announced_bytes(self) -> int:
        """What all open uploads may grow to."""
        return sum(upload.manifest.payload_bytes for upload in self._open.values())


def _same(one: Manifest, other: Manifest) -> bool:
    keys = ("task", "digest", "payload_bytes", "chunk_bytes")
    return all(getattr(one, key) == getattr(other, key) for key in keys)
