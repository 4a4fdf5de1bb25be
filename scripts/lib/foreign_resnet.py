"""A ResNet18 in torch as torchvision writes it, with its names, written here again: torchvision is not installed."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Pictures = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

MEAN, DEVIATION = 0.3, 0.4
"""Of the pictures as this network is shown them."""


class Block(nn.Module):
    """torchvision's BasicBlock."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1 or channels_in != channels:
            projection = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """float32[N, C, H, W] to the same, of the block's channels and stride."""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """The block of a ResNet50."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        inner = channels // 4
        self.conv1, self.bn1 = nn.Conv2d(channels_in, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, channels, 1, bias=False), nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.downsample = None
        if stride != 1 or channels_in != channels:
            projection = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """float32[N, C, H, W] to the same, of the block's channels and stride."""
        y = self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))
        return self.relu(self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """torchvision's ResNet; with kernel 3 the stem for small pictures, stride 1 and no pooling."""

    def __init__(
        self,
        *,
        blocks: tuple[int, ...] = (2, 2, 2, 2),
        width: int = 16,
        kernel: int = 3,
        colours: int = 1,
        classes: int = 10,
        block: type[nn.Module] = Block,
    ) -> None:
        super().__init__()
        small = kernel == 3
        self.conv1 = nn.Conv2d(colours, width, kernel, 1 if small else 2, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        channels = width
        for stage, count in enumerate(blocks):
            layers = []
            for number in range(count):
                stride = 2 if stage and number == 0 else 1
                layers.append(block(channels, width << stage, stride))
                channels = width << stage
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits float32[N, classes]."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for name in ("layer1", "layer2", "layer3", "layer4"):
            x = getattr(self, name)(x)
        return self.fc(self.avgpool(x).flatten(1))


def normalised(pictures_NCHW: Pictures, mean: float = MEAN, deviation: float = DEVIATION) -> Tensor:
    """As torchvision's transforms would show them to the network."""
    return (torch.from_numpy(pictures_NCHW).float() / 255 - mean) / deviation


@torch.no_grad()
def logits(network: nn.Module, x: Tensor) -> npt.NDArray[np.float32]:
    """float32[N, classes] of pictures that are normalised already."""
    network.eval()
    return np.concatenate([network(part).numpy() for part in torch.split(x, 128)])


def lively(network: nn.Module, seed: int = 0) -> nn.Module:
    """Moments and gains as after training, not 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 2.0),
            ):
                assert values is not None  # they are, with statistics of their own
                values.data = torch.rand(values.shape, generator=generator) * (high - low) + low
    return network.eval()


def trained(pictures_NCHW: Pictures, labels_N: Labels, *, epochs: int, seed: int = 0, **shape: int) -> nn.Module:
    """A network that has learned the pictures, as anybody would train it: normalised, at full precision, with Adam."""
    torch.manual_seed(seed)
    network = ResNet(**shape)  # type: ignore[arg-type]
    x, y = normalised(pictures_NCHW), torch.from_numpy(labels_N)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for epoch in range(epochs):
        network.train()
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - epoch / epochs)
        for part in torch.split(torch.randperm(len(x)), 64):
            optimizer.zero_grad()
            loss: Tensor = nn.functional.cross_entropy(network(x[part]), y[part])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return network.eval()
