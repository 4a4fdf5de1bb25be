"""What a network expects of its pictures disappears into its first layer.

Elsewhere pictures are normalised before they reach the network, (x − m)/s with x in [0, 1] and a mean m and deviation
s per colour; here a network reads x − g, g being one grey for all colours (`Architecture.zero`). With the first
convolution's weights w,

    Σ w·(x − m)/s  =  Σ (w/s)·(x − g) − c,      c = Σ w·(m − g)/s  over colours and taps

so the weights are divided by s, and c, a constant per channel, joins the mean of the normalisation that follows.

**Borders.** A convolution pads with zeros after normalising, so that around the picture it sees the mean; ours sees the
grey g, which is the nearest to all colours' means there is among 256. Every tap outside the picture then misses
w·(m − g)/s: next to nothing where colours have one mean, and little where they differ, as ImageNet's do. No weights can
mend that, since a pixel inside and one outside would need different ones, so what it comes to is said (`Border`).
"""

from dataclasses import dataclass
from math import isfinite
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from export.errors import ExportError
from export.reference.windows import columns, patches, planes
from protocol.architecture import NORM_EPSILON, Layer
from protocol.precision import Float32

Float64 = npt.NDArray[np.float64]

IMAGENET: Final = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Of the red, green and blue of ImageNet's training pictures, as torchvision's and timm's ResNets expect."""
EXAMPLE: Final = "imagenet, none, or MEAN/DEVIATION such as 0.5,0.5,0.5/0.25,0.25,0.25"


@dataclass(frozen=True, slots=True)
class Border:
    """How far the outputs of the first convolution are off where its window leaves the picture.

    Attributes:
        share: of its outputs that see past an edge.
        shift: root of the mean square of what they are off by, over those outputs and all channels, in deviations of
            the channel.
    """

    share: float
    shift: float


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """(x − mean)/deviation per colour, for x in [0, 1]; empty tuples for x as it is."""

    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `imagenet`, `none` or MEAN/DEVIATION.

        Raises:
            ExportError: it is none of these.
        """
        if text == "none":
            return cls()
        if text == "imagenet":
            return cls(*IMAGENET)
        try:
            mean, deviation = (tuple(map(float, part.split(","))) for part in text.split("/"))
        except ValueError as error:
            raise ExportError(f"--normalize {text!r}: expected {EXAMPLE}") from error
        usable = len(mean) == len(deviation) and all(map(isfinite, mean + deviation)) and min(deviation) > 0
        if not usable:
            raise ExportError(f"--normalize {text!r}: expected as many deviations above 0 as means; {EXAMPLE}")
        return cls(mean, deviation)

    @property
    def zero(self) -> int:
        """The grey of 0 to 255 that is nearest to all colours' means."""
        return int(np.clip(round(255 * sum(self.mean) / len(self.mean)), 0, 255)) if self.mean else 0

    def absorb(self, weight_OIKK: Float32, mean_O: Float32) -> tuple[Float32, Float32]:
        """Weights and normalisation mean of the first convolution, for x − g instead of the normalised picture.

        Raises:
            ExportError: the convolution reads another number of colours.
        """
        if not self.mean:
            return weight_OIKK, mean_O
        scaled, missed = self._split(weight_OIKK)
        return scaled.astype(np.float32), (mean_O + missed.sum(axis=(1, 2, 3))).astype(np.float32)

    def border(self, stem: Layer, weight_OIKK: Float32, variance_O: Float32) -> Border:
        """What padding with the grey instead of the mean comes to.

        Args:
            stem: the first convolution's row.
            weight_OIKK: its weights as they were, for normalised pictures.
            variance_O: of the normalisation behind it.
        """
        if not self.mean:
            return Border(0.0, 0.0)
        _, missed = self._split(weight_OIKK)
        inside = patches(stem, np.ones((1, *stem.in_shape)))
        seen = planes(stem, inside @ columns(stem, missed))[0]
        cut = planes(stem, inside.sum(axis=3, keepdims=True).repeat(len(missed), axis=3))[0, 0] < missed[0].size
        off = (seen - missed.sum(axis=(1, 2, 3)).reshape(-1, 1, 1))[:, cut]
        deviation_O = np.sqrt(variance_O.astype(np.float64) + NORM_EPSILON)
        shift = float(np.sqrt(np.square(off / deviation_O[:, None]).mean())) if cut.any() else 0.0
        return Border(float(cut.mean()), shift)

    def _split(self, weight_OIKK: Float32) -> tuple[Float64, Float64]:
        """w/s, and w·(m − g)/s, float64 in the weight's shape."""
        if weight_OIKK.shape[1] != len(self.mean):
            raise ExportError(
                f"--normalize has {len(self.mean)} colours: expected {weight_OIKK.shape[1]}, those conv1 reads"
            )
        mean, deviation = (np.array(part).reshape(1, -1, 1, 1) for part in (self.mean, self.deviation))
        scaled = weight_OIKK / deviation
        return scaled, scaled * (mean - self.zero / 255)
