"""Two walks over the same pictures: at full precision for the size of activations, quantized for what was lost."""

from typing import Final

import numpy as np

from export.arithmetic import Coding, UInt8, dequantize, plain_coding, require_supported, store
from export.calibration.moments import Moments, matched, measured
from export.calibration.steps import best_step
from export.calibration.walk import Walk
from export.errors import ExportError
from export.graph import is_signed_recode
from export.reference.windows import Values, per_channel
from export.weights import Weights
from protocol.architecture import NORM_EPSILON, PROFILE, Architecture, Layer, Role, Tensors
from protocol.initial import derive_profile
from protocol.precision import FP32, Float32, Precision, step_of
from protocol.weights import coded_weight, latent_weight

PICTURES: Final = 256
"""Each shows every layer at least one window, most of them hundreds; more cost time in proportion."""
HELD_VALUES: Final = 1 << 26
"""Of the widest row over all pictures: 256 MB in float32, of which a few are alive at once."""


def chosen(pictures_NCHW: UInt8, architecture: Architecture) -> UInt8:
    """Up to `PICTURES` of them, spread over all, since folders come class by class; fewer where rows are wide."""
    widest = max(int(np.prod(layer.out_shape)) for layer in architecture.layers)
    count = max(1, min(PICTURES, HELD_VALUES // widest, len(pictures_NCHW)))
    return pictures_NCHW[np.linspace(0, len(pictures_NCHW) - 1, count).astype(np.int64)]


def calibrated(weights: Weights, precision: Precision, pictures_NCHW: UInt8) -> Tensors:
    """Tensors for export at a precision, whether or not it was trained, as `Weights.at` gives them.

    The weights stay as they are; the precision's profile is made anew.

    Args:
        weights: of the network; the profile they hold nearest to full precision says how activations are normalised.
        precision: fp32 (nothing to calibrate), or one that the exporter writes.
        pictures_NCHW: uint8[N, C, H, W], at least one; no labels are needed.

    Raises:
        ExportError: the exporter does not write this precision, or the network narrows signed activations there, whose
            learned zeros no search sets.
    """
    network = weights.architecture
    require_supported(precision, nested=network.nested)
    floats = weights.at(FP32)
    if precision.is_float:
        return floats
    _require_searchable(network, precision)
    shared = {spec.name: floats[spec.name] for spec in network.tensors(FP32) if spec.role not in PROFILE}
    tensors = shared | derive_profile(network, precision, shared, floats)
    pictures = chosen(pictures_NCHW, network)
    before = _Observer(network, precision, floats)
    before.walk(pictures)
    tensors |= before.log_steps()
    _Corrector(network, precision, tensors, before.moments).walk(pictures)
    return tensors


def calibrated_weights(weights: Weights, precision: Precision, pictures_NCHW: UInt8) -> Weights:
    """The same as weights of one profile, to be kept as a file.

    Raises:
        ExportError: as `calibrated`.
    """
    return Weights(weights.architecture, (precision,), calibrated(weights, precision, pictures_NCHW))


def _require_searchable(network: Architecture, precision: Precision) -> None:
    for layer in network.at(precision).layers:
        if is_signed_recode(layer):
            raise ExportError(
                f"layer {layer.name} narrows signed activations at {precision}, around a zero that is learned:"
                " train it in a federation, or calibrate 8-bit activations"
            )


class _Observer:
    """The float network, watched: moments of every normalised layer, and the step that every row asks for."""

    def __init__(self, network: Architecture, precision: Precision, floats: Tensors) -> None:
        self._network, self._precision, self._tensors = network, precision, floats
        self._rows = network.at(precision)
        self.moments: dict[str, Moments] = {}
        self._steps: dict[str, np.float32] = {}

    def walk(self, pictures_NCHW: UInt8) -> None:
        """See all pictures."""
        weighted = (layer for layer in self._rows.layers if layer.weight_shape is not None)
        weights = {layer.name: latent_weight(self._network, layer, self._tensors) for layer in weighted}
        Walk(self._rows, self._tensors, weights, self._normalise, self._store).run(pictures_NCHW)

    def log_steps(self) -> Tensors:
        """What the scale groups got, as tensors: the largest step that any of their rows asks for."""
        return {
            f"{scale}.{Role.ACTIVATION_LOG_STEP}": np.log(np.array([step], np.float32))
            for scale, step in self._steps.items()
        }

    def _normalise(self, layer: Layer, sums: Values) -> Values:
        self.moments[layer.name] = measured(sums)
        return _normalised(layer, sums, self._tensors)

    def _store(self, layer: Layer, y: Values) -> Values:
        y = np.maximum(y, 0) if layer.relu else y
        bits = self._network.activation_bits(layer.scale, self._precision)
        asked = best_step(y, bits, signed=layer.signed)
        self._steps[layer.scale] = max(asked, self._steps.get(layer.scale, asked))
        return y


class _Corrector:
    """The quantized network; each layer's moments are set in `tensors` as soon as its inputs are final."""

    def __init__(
        self, network: Architecture, precision: Precision, tensors: Tensors, before: dict[str, Moments]
    ) -> None:
        self._network, self._precision, self._tensors, self._before = network, precision, tensors, before
        self._rows = network.at(precision)

    def walk(self, pictures_NCHW: UInt8) -> None:
        """See all pictures."""
        weighted = [layer for layer in self._rows.layers if layer.weight_shape is not None]
        weights = {layer.name: self._weight(layer) for layer in weighted}
        Walk(self._rows, self._tensors, weights, self._normalise, self._store).run(pictures_NCHW)

    def _weight(self, layer: Layer) -> Float32:
        coded = coded_weight(self._network, layer, self._precision, self._tensors)
        step = coded.step_O.reshape(-1, *(1,) * (coded.codes_OX.ndim - 1))
        return (coded.codes_OX * step).astype(np.float32)

    def _normalise(self, layer: Layer, sums: Values) -> Values:
        mean, variance = (f"{layer.name}.{role}" for role in (Role.MEAN, Role.VARIANCE))
        trained = self._tensors[mean], self._tensors[variance]
        self._tensors[mean], self._tensors[variance] = matched(*trained, self._before[layer.name], measured(sums))
        return _normalised(layer, sums, self._tensors)

    def _store(self, layer: Layer, y: Values) -> Values:
        coding = self._coding(layer)
        return dequantize(store(y / coding.step, coding), coding)

    def _coding(self, layer: Layer) -> Coding:
        step = step_of(self._tensors[f"{layer.scale}.{Role.ACTIVATION_LOG_STEP}"])[0]
        return plain_coding(step, self._network.activation_bits(layer.scale, self._precision), signed=layer.signed)


def _normalised(layer: Layer, sums: Values, tensors: Tensors) -> Values:
    gamma_O, beta_O, mean_O, variance_O = (
        tensors[f"{layer.name}.{role}"] for role in (Role.GAMMA, Role.BETA, Role.MEAN, Role.VARIANCE)
    )
    gain_O = gamma_O / np.sqrt(variance_O.astype(np.float64) + NORM_EPSILON)
    constant_O = beta_O - mean_O * gain_O
    return sums * per_channel(gain_O.astype(np.float32)) + per_channel(constant_O.astype(np.float32))
