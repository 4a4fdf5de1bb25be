"""Small networks and real digits for the trainer's tests."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from edge.data import Dataset
from edge.training.quantizers import kernel
from protocol.architecture import Architecture
from protocol.networks import resnet18


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module", params=kernel.available())
def each_kernel(request: pytest.FixtureRequest) -> Iterator[None]:
    """Quantizers with every kernel that there is, one after the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "chosen", lambda: kernel.available()[request.param])
        yield


@pytest.fixture(scope="session")
def network() -> Architecture:
    return resnet18(width=0.0625, input_shape=(1, 16, 16))


@pytest.fixture(scope="session")
def digits() -> Dataset:
    source = load_digits()
    pictures = (source.images[:240] * 255 / 16).astype(np.uint8)
    grown = [np.asarray(Image.fromarray(picture).resize((16, 16), Image.Resampling.BICUBIC)) for picture in pictures]
    return Dataset(np.stack(grown)[:, None], source.target[:240].astype(np.int64), tuple("0123456789"))
