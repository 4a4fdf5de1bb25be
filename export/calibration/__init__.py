"""A profile for a precision that nobody trained, from pictures: quantization after training, without torch.

1. weight steps of least squared error, for each output channel (`protocol.precision.fitted_step`)
2. activation steps of least squared error, on the float network's activations (`steps`)
3. moments of the normalisations, so that what is normalised stays what it was (`moments`)

`walk` computes a network over all pictures, a row of the table at a time; `calibrate` does it once at full precision
and once as quantized.
"""

from export.calibration.calibrate import calibrated, calibrated_weights, chosen

__all__ = ["calibrated", "calibrated_weights", "chosen"]
