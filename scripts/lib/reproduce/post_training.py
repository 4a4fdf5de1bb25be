"""Quantization after training, done well: what a federation that trained at full precision can still do.

    1. weight steps of least squared error, by search, for each output channel (`protocol.precision.fitted_step`)
    2. activation steps and moments of the quantized network from the devices' own pictures (federated calibration)

Both are free of training, so any method must be compared with both (the strong rival); `naive` leaves out the second,
as is usually done.
"""

from dataclasses import replace
from typing import Final

import numpy as np
import torch
from simulation import device, judge
from simulation.device import Order
from simulation.partition import gather
from simulation.rounds import sampled
from simulation.setup import Setup

from aggregator.merge import PartialSum
from aggregator.model import GlobalModel, base_payload
from edge.training.model import Model
from export import ort
from export.passes import to_onnx
from export.reference import IntegerNetwork
from export.writer import LOGITS, serialize
from protocol.codec.payload import read
from protocol.precision import FP32, Precision
from reproduce.latents import only

PROCESSOR: Final = "cpu"
BATCH: Final = 250


def searched(model: GlobalModel, precision: Precision) -> GlobalModel:
    """The full-precision model and a fresh profile for `precision`: steps by search, moments not yet measured again."""
    return only(model, FP32).with_profile(precision)


def calibrated(setup: Setup, model: GlobalModel, precision: Precision) -> GlobalModel:
    """The model with moments and activation steps of one precision as the devices of the last round measure them."""
    base = base_payload(model, [precision], "fp32", setup.seed)
    setup = _plain(setup)
    merged = PartialSum(model.architecture)
    for index in sampled(setup, setup.rounds):
        order = Order(setup, setup.rounds, index, base, fresh=True, processor=PROCESSOR)
        update = device.measure(order)
        merged.add(read(update.payload), update.samples)
    return merged.finish(model)


def strong(setup: Setup, model: GlobalModel, precision: Precision) -> GlobalModel:
    """The full-precision model quantized after training, with both steps."""
    return calibrated(setup, searched(model, precision), precision)


def accuracy(setup: Setup, model: GlobalModel, precision: Precision) -> float:
    """Fraction of the test pictures that are named right, weights quantized as the profile says."""
    setup, data = _plain(setup), model.to_bytes()
    pictures = len(gather(setup).test)
    right = (judge.right(setup, data, precision, sheet, PROCESSOR) for sheet in judge.sheets_of(pictures))
    return sum(right) / pictures


@torch.no_grad()
def agreement(setup: Setup, model: GlobalModel, precision: Precision) -> dict[str, float]:
    """Whether training, reference and exported file say the same of every test picture.

    Returns:
        `same_class`: fraction of pictures of which the exported integer model names the class that the network with
        fake quantization names; `bit_equal`: fraction whose logits equal those of the integer reference in every bit.
    """
    pictures_NCHW = gather(setup).test.pictures_NCHW
    batches = [pictures_NCHW[start : start + BATCH] for start in range(0, len(pictures_NCHW), BATCH)]
    tensors = model.tensors(precision)
    session = ort.session(serialize(to_onnx(model.network, precision, tensors)))
    reference = IntegerNetwork(model.network, precision, tensors)
    network = Model(model.network, (precision,), tensors).own
    same_class = bit_equal = 0
    for batch in batches:
        found_NL = ort.run(session, batch, [LOGITS])[0]
        expected_NL = reference.logits(batch)
        trained_N = network(torch.from_numpy(batch)).argmax(1).numpy()
        same_class += int((found_NL.argmax(axis=1) == trained_N).sum())
        bit_equal += int((found_NL.view(np.int32) == expected_NL.view(np.int32)).all(axis=1).sum())
    return {"same_class": same_class / len(pictures_NCHW), "bit_equal": bit_equal / len(pictures_NCHW)}


def _plain(setup: Setup) -> Setup:
    """The setup without its method: here nothing is trained, and a method may set steps of its own."""
    return replace(setup, method="fp32")
