"""Tensors find their place, or are refused by name."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from export.errors import ExportError
from export.graph import build
from protocol.architecture import INPUT, Architecture, Tensors
from protocol.precision import FP32, Precision, binary_step

MakeTensors = Callable[[Architecture, Precision], Tensors]

W8A8, W1A8 = Precision(8, 8), Precision(1, 8)


def test_every_layer_with_weights_becomes_a_node(small: Architecture, make_tensors: MakeTensors) -> None:
    graph = build(small, W8A8, make_tensors(small, W8A8))
    assert list(graph.nodes) == [layer.name for layer in small.layers if layer.weight_shape]
    assert graph.nodes["classifier"].norm is None
    assert graph.nodes["stem.conv"].bias_O is None


def test_steps_are_exponentials_and_the_picture_has_its_own(small: Architecture, make_tensors: MakeTensors) -> None:
    tensors = make_tensors(small, W8A8)
    graph = build(small, W8A8, tensors)
    assert graph.steps[INPUT] == np.float32(1 / 255)
    assert graph.steps["pool"] == pytest.approx(np.exp(tensors["pool.activation_log_step"][0]))
    assert set(graph.steps) == {INPUT, *small.scales}


def test_binary_layers_step_by_their_mean_magnitude_and_pinned_ones_as_learned(
    small: Architecture, make_tensors: MakeTensors
) -> None:
    tensors = make_tensors(small, W1A8)
    graph = build(small, W1A8, tensors)
    weight = tensors["layer1.0.conv1.weight"]
    assert np.array_equal(graph.nodes["layer1.0.conv1"].step_O, binary_step(weight))
    assert np.allclose(graph.nodes["stem.conv"].step_O, np.exp(tensors["stem.conv.weight_log_step"]))


def test_float_networks_have_no_steps(small: Architecture, make_tensors: MakeTensors) -> None:
    graph = build(small, FP32, make_tensors(small, FP32))
    assert graph.steps == {}
    assert graph.nodes["stem.conv"].step_O is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("classifier.weight", None, "tensor classifier.weight is missing"),
        ("classifier.bias", np.zeros(3, np.float32), r"is float32\[3\]: expected float32\[10\]"),
        ("classifier.bias", np.zeros(10), r"is float64\[10\]: expected float32\[10\]"),
        ("classifier.bias", np.full(10, np.nan, np.float32), "10 of 10 values are NaN or infinite"),
        ("stem.conv.gamma", np.array([1, np.inf, 1, 1], np.float32), "1 of 4 values are NaN or infinite"),
        ("stem.conv.variance", np.full(4, -1, np.float32), "holds -1: expected variances of at least 0"),
        ("pool.activation_log_step", np.full(1, -30, np.float32), "holds -30: expected log steps within ±25"),
        ("stem.conv.weight_log_step", np.full(4, 26, np.float32), "holds 26: expected log steps within ±25"),
    ],
)
def test_an_unusable_tensor_is_named_with_what_was_expected(
    small: Architecture, make_tensors: MakeTensors, name: str, value: Any, message: str
) -> None:
    tensors = make_tensors(small, W8A8)
    tensors[name] = value
    if value is None:
        del tensors[name]
    with pytest.raises(ExportError, match=message):
        build(small, W8A8, tensors)
