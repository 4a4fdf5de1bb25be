"""Every network, narrow, at any precision, without training; for what holds exported files to the reference."""

from typing import Final

from pictures import FASHION_MNIST
from simulation.partition import load_both

from edge.data import Dataset
from export.arithmetic import UInt8
from export.calibration import calibrated
from export.weights import Weights
from protocol.architecture import PROFILE, Architecture, Kind, Tensors
from protocol.initial import derive_profile, initial_tensors
from protocol.precision import FP32, Precision

CALIBRATION: Final = 128
SPECS: Final = {
    "resnet18": "resnet18:width=0.125,stem=3x3,input=1x28x28,classes=10",
    "binary18": "binary18:width=0.125,input=1x28x28,classes=10",
    "vgg-small": "vgg-small:width=0.125,input=1x28x28,classes=10",
    "cnn4": "cnn4:width=0.5,input=1x28x28,classes=10",
    "mobile": "mobile:width=0.25,input=1x28x28,classes=10",
    "fedzip-cnn": "fedzip-cnn:width=0.25,input=1x28x28,classes=10",
}


def real_pictures(network: Architecture) -> tuple[Dataset, Dataset]:
    """To calibrate with and to compare on: Fashion-MNIST where Debian's package has put it, else the digits."""
    return load_both("fashion-mnist" if FASHION_MNIST.is_dir() else "digits", network.input_shape)


def quantized(network: Architecture, precision: Precision, pictures_NCHW: UInt8) -> Tensors:
    """Fresh weights with moments and steps from pictures; where no search sets steps, they are those of training."""
    weights = Weights(network, (FP32,), initial_tensors(network, FP32, 0))
    signed = any(row.kind is Kind.RECODE and row.signed for row in network.at(precision).layers)
    if not signed:
        return calibrated(weights, precision, pictures_NCHW)
    wide = calibrated(weights, Precision(precision.weight_bits, 8), pictures_NCHW)
    shared = {spec.name: wide[spec.name] for spec in network.tensors(precision) if spec.role not in PROFILE}
    return shared | derive_profile(network, precision, shared, wide)
