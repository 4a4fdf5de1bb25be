"""Which tensors serve which precision, from files of one profile or several."""

from collections.abc import Callable

import numpy as np
import pytest

from export.errors import ExportError
from export.weights import Weights
from protocol.architecture import PROFILE, Architecture, Tensors
from protocol.networks import cnn4
from protocol.precision import FP32, Precision, parse_several

MakeTensors = Callable[[Architecture, Precision], Tensors]
Make = Callable[[str], Weights]

NETWORK = cnn4(width=0.25)


@pytest.fixture
def weights() -> Make:
    """Every tensor is filled with the number of its profile, counted from 1; shared ones with 0.5."""

    def make(names: str) -> Weights:
        precisions = parse_several(names)
        number = {"": 0.5} | {str(precision): n for n, precision in enumerate(precisions, start=1)}
        specs = NETWORK.tensors(*precisions)
        filled = {spec.name: np.full(spec.shape, number[spec.profile], np.float32) for spec in specs}
        return Weights(NETWORK, precisions, filled)

    return make


@pytest.mark.parametrize(("name", "number"), [("W8A8", 1), ("W4A8", 2), ("W2A2", 3)])
def test_a_precision_in_the_file_gets_its_own_profile_under_plain_names(name: str, number: int, weights: Make) -> None:
    precision = Precision.parse(name)
    tensors = weights("W8A8+W4A8+W2A2").at(precision)
    assert tensors.keys() == {spec.name for spec in NETWORK.tensors(precision)}
    for spec in NETWORK.tensors(precision):
        assert (tensors[spec.name] == (number if spec.role in PROFILE else 0.5)).all()


@pytest.mark.parametrize(
    ("name", "lender"),
    [("W3A8", "W4A8"), ("W1A8", "W4A8"), ("W6A8", "W8A8"), ("W1A2", "W2A2"), ("W8A8", "W8A8"), ("fp32", "W8A8")],
)
def test_another_borrows_from_the_nearest_with_equal_activations(name: str, lender: str, weights: Make) -> None:
    file, precision = weights("W4A8+W8A8+W2A2"), Precision.parse(name)
    assert str(file.lender(precision)) == lender
    tensors = file.at(precision)
    assert tensors.keys() == {spec.name for spec in NETWORK.tensors(precision)}
    own = file.at(file.lender(precision))
    assert np.array_equal(tensors["conv2.mean"], own["conv2.mean"])


@pytest.mark.parametrize(("held", "wanted"), [("fp32", "W8A8"), ("W8A8", "W8A4"), ("W4A4+W2A2", "W4A3")])
def test_steps_of_other_activations_are_not_lent(held: str, wanted: str, weights: Make) -> None:
    bits = Precision.parse(wanted).activation_bits
    with pytest.raises(ExportError, match=f"hold no steps of {bits}-bit activations: expected a WxA{bits} file"):
        weights(held).at(Precision.parse(wanted))


def test_fp32_needs_no_steps(weights: Make) -> None:
    assert weights("fp32").at(FP32).keys() == {spec.name for spec in NETWORK.tensors(FP32)}
