"""The reference against loops that nobody can misread."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from export.passes import integer_numbers
from export.reference import FloatNetwork, IntegerNetwork
from protocol.architecture import Architecture, Layer, Tensors
from protocol.networks import resnet18
from protocol.precision import FP32, Precision

MakeTensors = Callable[[Architecture, Precision], Tensors]
Values = npt.NDArray[np.int64]

W8A8 = Precision(8, 8)


def looped_sums(layer: Layer, x_CHW: Values, codes_OIKK: Values) -> Values:
    """Σ q_x·q_w as seven loops would, the inner three by numpy."""
    channels, height, width = layer.out_shape
    padded = np.pad(x_CHW, ((0, 0), (layer.padding,) * 2, (layer.padding,) * 2))
    sums = np.zeros((channels, height, width), np.int64)
    for o, row, column in np.ndindex(channels, height, width):
        top, left = row * layer.stride, column * layer.stride
        window = padded[:, top : top + layer.kernel, left : left + layer.kernel]
        sums[o, row, column] = (window * codes_OIKK[o]).sum()
    return sums


@pytest.mark.parametrize("stem", ["3x3", "7x7"])
def test_every_layer_is_what_the_loops_say(stem: str, make_tensors: MakeTensors) -> None:
    architecture = resnet18(width=0.0625, stem=stem, input_shape=(2, 16, 16), classes=3)
    tensors = make_tensors(architecture, W8A8)
    picture = np.random.default_rng(0).integers(0, 256, (1, 2, 16, 16), dtype=np.uint8)
    graph = integer_numbers(architecture, W8A8, tensors)
    table = graph.architecture.by_name
    stored = IntegerNetwork(architecture, W8A8, tensors).activations(picture)
    values = {"input": picture} | stored
    for name in ("stem.conv", "layer2.0.conv1", "layer2.0.shortcut"):
        layer, node = table[name], graph.nodes[name]
        x = values[layer.inputs[0]][0].astype(np.int64)
        sums = looped_sums(layer, x, node.codes_OX.astype(np.int64)) + node.bias_O[:, None, None]
        step = graph.codings[layer.inputs[0]].step
        factor_O = (step * node.scale_O) / graph.codings[name].step
        zero = 128 if layer.signed else 0
        levels = np.rint(sums.astype(np.float32) * factor_O[:, None, None]) + zero
        assert np.array_equal(stored[name][0], np.clip(levels, 0, 255))


def test_max_pooling_takes_the_largest_of_each_window(make_tensors: MakeTensors) -> None:
    architecture = resnet18(width=0.0625, stem="7x7", input_shape=(1, 32, 32))
    picture = np.random.default_rng(0).integers(0, 256, (1, 1, 32, 32), dtype=np.uint8)
    stored = IntegerNetwork(architecture, W8A8, make_tensors(architecture, W8A8)).activations(picture)
    before, after = stored["stem.conv"][0], stored["stem.pool"][0]
    for c, row, column in np.ndindex(*after.shape):
        top, left = max(2 * row - 1, 0), max(2 * column - 1, 0)
        assert after[c, row, column] == before[c, top : 2 * row + 2, left : 2 * column + 2].max()


def test_pictures_are_independent_of_their_batch(small: Architecture, make_tensors: MakeTensors) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (300, 1, 32, 32), dtype=np.uint8)
    reference = IntegerNetwork(small, W8A8, make_tensors(small, W8A8))
    together = reference.logits(pictures)
    assert np.array_equal(together[-2:], reference.logits(pictures[-2:]))
    assert together.shape == (300, 10)
    assert together.dtype == np.float32


def test_no_pictures_give_no_logits(small: Architecture, make_tensors: MakeTensors) -> None:
    reference = FloatNetwork(small, make_tensors(small, FP32))
    assert reference.logits(np.empty((0, 1, 32, 32), np.uint8)).shape == (0, 10)


def test_eight_bits_stay_close_to_float(small: Architecture, make_tensors: MakeTensors) -> None:
    """The same shared tensors and moments at both precisions: quantization moves logits a little, not the meaning."""
    tensors = make_tensors(small, W8A8)
    pictures = np.random.default_rng(0).integers(0, 256, (50, 1, 32, 32), dtype=np.uint8)
    exact = FloatNetwork(small, tensors).logits(pictures)
    integer = IntegerNetwork(small, W8A8, tensors).logits(pictures)
    assert np.abs(integer - exact).mean() < 0.1 * np.abs(exact).mean()
