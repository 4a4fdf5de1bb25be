"""A model offer's way into the runtime: download, prove, switch, measure."""

from dataclasses import dataclass

from edge.downloads import Downloads
from edge.measure.quick import measure_cost
from edge.meters.base import Meter
from edge.runtime import ModelSlot, Runtime
from edge.session import ModelRefused
from protocol.messages import Cost, ModelOffer


@dataclass(frozen=True)
class Installer:
    """What an installation needs."""

    runtime: Runtime
    downloads: Downloads
    meter: Meter

    @property
    def digest(self) -> bytes:
        """SHA-256 of the model in use, empty for none."""
        slot = self.runtime.current
        return b"" if slot is None else bytes.fromhex(slot.digest)

    @property
    def version(self) -> int:
        """Version of the model in use, 0 for none."""
        slot = self.runtime.current
        return 0 if slot is None else slot.version

    def install(self, offer: ModelOffer) -> Cost:
        """Make the offered model the current one.

        Returns:
            What one inference with it costs here.

        Raises:
            DownloadError: it cannot be fetched.
            ModelRefused: it is not what was promised or fails its self-test; the model before stays.
            RemoteProtocolError: its architecture or precision is unknown here.
            OSError: the disk is full.
        """
        slot = ModelSlot(offer.digest.hex(), offer.version, offer.architecture, offer.precision)
        path = self.downloads.fetch(offer.digest, offer.model_bytes)
        try:
            self.runtime.install(path.read_bytes(), slot)
        except MemoryError as error:
            raise ModelRefused(f"model version {slot.version}: not enough memory for its file") from error
        path.unlink()  # the runtime has its own copy
        return measure_cost(self.runtime, self.meter)
