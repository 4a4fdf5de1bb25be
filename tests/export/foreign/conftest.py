"""A network as somebody else might bring it, with moments and gains as after training."""

from pathlib import Path

import pytest
import torch
from foreign_resnet import ResNet, lively
from torch import nn


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small networks on several threads of a busy machine wait for each other many times as long as they compute."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def foreign() -> nn.Module:
    torch.manual_seed(0)
    return lively(ResNet())


@pytest.fixture
def saved(foreign: nn.Module, tmp_path: Path) -> Path:
    torch.save(foreign.state_dict(), tmp_path / "plain.pt")
    return tmp_path / "plain.pt"
