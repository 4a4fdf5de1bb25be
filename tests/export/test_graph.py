"""Tensors find their place, or are refused by name."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from export.errors import ExportError
from export.graph import BatchNorm, Bias, GroupNorm, build
from protocol.architecture import INPUT, Architecture, Norm, Tensors
from protocol.networks import binary18, cnn4
from protocol.precision import FP32, Precision

MakeTensors = Callable[[Architecture, Precision], Tensors]

W8A8 = Precision(8, 8)


def test_every_layer_with_weights_becomes_a_node(small: Architecture, make_tensors: MakeTensors) -> None:
    graph = build(small, W8A8, make_tensors(small, W8A8))
    assert list(graph.nodes) == [layer.name for layer in small.layers if layer.weight_shape]
    assert isinstance(graph.nodes["classifier"], Bias)
    assert isinstance(graph.nodes["stem.conv"], BatchNorm)


def test_group_norm_takes_the_tables_groups(make_tensors: MakeTensors) -> None:
    network = cnn4(norm=Norm.GROUP)
    node = build(network, W8A8, make_tensors(network, W8A8)).nodes["conv1"]
    assert isinstance(node, GroupNorm)
    assert node.groups == 4


def test_steps_are_exponentials_and_the_picture_has_its_own(small: Architecture, make_tensors: MakeTensors) -> None:
    tensors = make_tensors(small, W8A8)
    graph = build(small, W8A8, tensors)
    assert graph.codings[INPUT].step == np.float32(1 / 255)
    assert graph.codings["pool"].step == pytest.approx(np.exp(tensors["pool.activation_log_step"][0]))
    assert set(graph.codings) == {INPUT, *(layer.name for layer in small.at(W8A8).layers if layer.scale)}


def test_float_networks_have_no_steps(small: Architecture, make_tensors: MakeTensors) -> None:
    assert build(small, FP32, make_tensors(small, FP32)).codings == {}


def test_streams_keep_8_bits_where_the_rest_is_narrow(make_tensors: MakeTensors) -> None:
    network = binary18(width=0.0625, input_shape=(1, 16, 16))
    codings = build(network, Precision(2, 3), make_tensors(network, Precision(2, 3))).codings
    assert (codings["layer1.0.add"].zero, codings["layer1.0.add"].high) == (128, 255)
    narrowed = codings["layer1.0.in"]
    assert (narrowed.low, narrowed.high) == (0, 7)
    assert narrowed.pad == narrowed.zero


def test_one_bit_streams_have_thresholds_and_wider_ones_a_zero(make_tensors: MakeTensors) -> None:
    network = binary18(width=0.0625, input_shape=(1, 16, 16))
    tensors = make_tensors(network, Precision(1, 1))
    graph = build(network, Precision(1, 1), tensors)
    assert np.array_equal(graph.thresholds_C["layer1.0.in"], tensors["layer1.0.in.activation_offset"])
    assert graph.codings["layer1.0.in"].high == 2
    assert build(network, Precision(1, 2), make_tensors(network, Precision(1, 2))).thresholds_C == {}


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
