"""Normalisation of pictures inside the first layer: exact but for the edges, and what the edges come to."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from foreign_resnet import DEVIATION, MEAN, logits, normalised
from torch import nn

from export.errors import ExportError
from export.foreign import Preprocessing, adopt, read_checkpoint
from export.foreign.preprocess import IMAGENET
from export.reference import FloatNetwork
from protocol.architecture import INPUT, Kind, Layer

Digits = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
STEM = Layer("stem.conv", Kind.CONV, (INPUT,), (2, 8, 8), (3, 8, 8), 3, 1, 1, norm=True, relu=True, scale="x")
LARGE = Layer("stem.conv", Kind.CONV, (INPUT,), (3, 224, 224), (4, 112, 112), 7, 2, 3, norm=True, relu=True, scale="x")


def test_the_three_ways_to_say_it() -> None:
    assert Preprocessing.parse("none") == Preprocessing()
    assert Preprocessing.parse("imagenet") == Preprocessing(*IMAGENET)
    assert Preprocessing.parse("0.5,0.4/0.25,0.2") == Preprocessing((0.5, 0.4), (0.25, 0.2))


@pytest.mark.parametrize(
    "text", ["", "cifar", "0.5", "0.5/0", "0.5/-1", "0.5/nan", "inf/1", "0.5,0.5/0.2", "1/1/1", "/"]
)
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ExportError, match=r"--normalize .*expected .*0\.5,0\.5,0\.5/0\.25,0\.25,0\.25"):
        Preprocessing.parse(text)


def convolved(weight_OIKK: torch.Tensor, x_NCHW: torch.Tensor) -> torch.Tensor:
    return nn.functional.conv2d(x_NCHW.double(), weight_OIKK.double(), padding=1)


def test_inside_the_picture_nothing_changes_and_the_border_is_off_as_it_says() -> None:
    """The law of the file: sums of normalised pictures against sums of pictures as they are."""
    generator = torch.Generator().manual_seed(0)
    weight, pictures = torch.randn(3, 2, 3, 3, generator=generator), torch.rand(5, 2, 8, 8, generator=generator)
    mean_O, variance_O = torch.randn(3, generator=generator).numpy(), np.array([0.5, 1.0, 4.0], np.float32)
    way = Preprocessing((0.5, 0.25), (0.25, 0.5))
    mean, deviation = (torch.tensor(part).reshape(1, 2, 1, 1) for part in (way.mean, way.deviation))
    expected = convolved(weight, (pictures - mean) / deviation).numpy() - mean_O.reshape(-1, 1, 1)
    absorbed, new_mean_O = way.absorb(weight.numpy(), mean_O)
    found = convolved(torch.from_numpy(absorbed), pictures - way.zero / 255).numpy() - new_mean_O.reshape(-1, 1, 1)
    off = (found - expected) / np.sqrt(variance_O + 1e-5).reshape(-1, 1, 1)
    np.testing.assert_allclose(off[:, :, 1:-1, 1:-1], 0, atol=1e-5)
    edge = np.ones((8, 8), bool)
    edge[1:-1, 1:-1] = False
    border = way.border(STEM, weight.numpy(), variance_O)
    assert border.share == edge.mean()
    assert border.shift == pytest.approx(np.sqrt(np.square(off[0][:, edge]).mean()), rel=1e-5)
    np.testing.assert_allclose(off[0], off[4], atol=1e-5)  # whatever the picture


def test_a_large_stem_has_a_small_border() -> None:
    weight = np.random.default_rng(0).normal(0, 0.1, (4, 3, 7, 7)).astype(np.float32)
    border = Preprocessing(*IMAGENET).border(LARGE, weight, np.ones(4, np.float32))
    assert border.share == pytest.approx(1 - (109 / 112) ** 2)
    assert border.shift > 0


def test_a_mean_of_zero_has_no_border(foreign: nn.Module, saved: Path, digits: Digits) -> None:
    made = adopt(read_checkpoint(saved), Preprocessing((0.0,), (DEVIATION,)))
    found = FloatNetwork(made.architecture, made.tensors).logits(digits[0][:30])
    expected = logits(foreign, normalised(digits[0][:30], mean=0.0))
    assert made.border.shift == 0
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(("mean", "most"), [(77 / 255, 1e-5), (MEAN, 5e-3)], ids=["a grey", "between two"])
def test_with_one_mean_the_whole_network_is_the_same(
    mean: float, most: float, foreign: nn.Module, saved: Path, digits: Digits
) -> None:
    """But for the half of a grey by which 0.3 misses the nearest one, along the edges."""
    made = adopt(read_checkpoint(saved), Preprocessing((mean,), (DEVIATION,)))
    found = FloatNetwork(made.architecture, made.tensors).logits(digits[0][:30])
    expected = logits(foreign, normalised(digits[0][:30], mean=mean))
    assert 0 < made.border.share < 0.13
    assert np.abs(found - expected).max() < most * np.abs(expected).max()


def test_the_grey_is_the_nearest_to_all_colours() -> None:
    assert Preprocessing().zero == 0
    assert Preprocessing(*IMAGENET).zero == round(255 * np.mean(IMAGENET[0]))
    assert Preprocessing((2.0,), (1.0,)).zero == 255
    assert Preprocessing((-1.0,), (1.0,)).zero == 0


def test_the_number_of_colours_must_be_the_networks(saved: Path) -> None:
    with pytest.raises(ExportError, match="--normalize has 3 colours: expected 1, those conv1 reads"):
        adopt(read_checkpoint(saved), Preprocessing(*IMAGENET))
