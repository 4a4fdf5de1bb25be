"""Two models on the same pictures: flips are those of their logits, and a bad pair is refused."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from export import ort
from export.bundle import export_model
from export.compare import compare, require_alike
from export.errors import ExportError
from export.writer import LOGITS
from protocol.architecture import Architecture, Tensors
from protocol.networks import resnet18
from protocol.precision import FP32, Precision

MakeTensors = Callable[[Architecture, Precision], Tensors]
Digits = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]


def _model(network: Architecture, make_tensors: MakeTensors, precision: Precision, digits: Digits) -> bytes:
    tensors = make_tensors(network, precision)
    return export_model(network, precision, tensors, pictures_NCHW=digits[0][:4], metadata={}).model


def test_a_model_agrees_with_itself(small: Architecture, make_tensors: MakeTensors, digits: Digits) -> None:
    model = _model(small, make_tensors, FP32, digits)
    found = compare(model, model, digits[0][:40], digits[1][:40])
    assert (found.agreement, found.flips, found.largest_difference) == (1.0, (), 0.0)
    assert found.first_accuracy == found.second_accuracy
    assert 0.5 < found.speed.ratio < 2.0


def test_flips_are_where_the_largest_logit_moved(
    small: Architecture, make_tensors: MakeTensors, digits: Digits
) -> None:
    tensors = make_tensors(small, FP32)
    bias = tensors["classifier.bias"] + np.random.default_rng(0).normal(scale=1.0, size=10).astype(np.float32)
    models = [
        export_model(small, FP32, changed, pictures_NCHW=digits[0][:4], metadata={}).model
        for changed in (tensors, tensors | {"classifier.bias": bias})
    ]
    pictures, labels = digits[0][:200], digits[1][:200]
    found = compare(*models, pictures, labels)
    named = [ort.run(ort.session(model), pictures, [LOGITS])[0].argmax(axis=1) for model in models]
    differing = np.flatnonzero(named[0] != named[1])
    assert len(differing) > 0
    assert [flip.picture for flip in found.flips] == differing.tolist()
    assert found.agreement == pytest.approx(1 - len(differing) / 200)
    gained = ((named[1] == labels).sum() - (named[0] == labels).sum()).item()
    assert found.repaired - found.broken == gained
    assert found.second_accuracy is not None
    assert found.first_accuracy is not None
    assert round(200 * (found.second_accuracy - found.first_accuracy)) == gained


def test_models_of_other_tasks_are_not_compared(small: Architecture) -> None:
    with pytest.raises(ExportError, match="classes 10, the second 7"):
        require_alike(small, resnet18(width=0.0625, input_shape=small.input_shape, classes=7))
