"""Plain chains of convolutions: the small CNN of the experiments, VGG-small, and FedZip's own network."""

from typing import Final

from protocol.architecture import INPUT
from protocol.networks.builder import Builder, scaled
from protocol.networks.spec import Family, Options, register


def _cnn4(builder: Builder, options: Options) -> str:
    x = builder.conv("conv1", INPUT, scaled(16, options.width), 3, 2, pinned=True)
    for number, channels in enumerate((32, 64, 128), start=2):
        x = builder.conv(f"conv{number}", x, scaled(channels, options.width), 3, 2)
    return builder.avgpool(x)


def _vgg_small(builder: Builder, options: Options) -> str:
    x = INPUT
    for stage, channels in enumerate((128, 256, 512), start=1):
        for number in (1, 2):
            first, last = stage == number == 1, (stage, number) == (3, 2)
            name = f"conv{stage}.{number}"
            x = builder.conv(name, x, scaled(channels, options.width), pinned=first, wide=last)
        x = builder.maxpool(f"pool{stage}", x, 2, 2)
    return x


def _fedzip_cnn(builder: Builder, options: Options) -> str:
    x = builder.conv("conv1", INPUT, scaled(32, options.width), padding=0, norm=False, pinned=True)
    x = builder.conv("conv2", x, scaled(64, options.width), padding=0, norm=False)
    x = builder.maxpool("pool", x, 2, 2)
    return builder.linear("hidden", x, scaled(128, options.width), wide=True)


cnn4: Final = register(Family("cnn4", _cnn4, input_shape=(1, 28, 28)))
"""Four 3×3 convolutions of stride 2 and global average pooling: 98,682 parameters at width 1."""

vgg_small: Final = register(Family("vgg-small", _vgg_small))
"""Six 3×3 convolutions, pooled after every second one, and one linear layer: 4.66 M parameters at width 1.

The network on which low-bit quantizers are usually compared on 32×32 pictures (D. Zhang et al., "LQ-Nets", ECCV 2018,
arXiv 1807.10029).
"""

fedzip_cnn: Final = register(Family("fedzip-cnn", _fedzip_cnn, input_shape=(1, 28, 28), normalised=False))
"""Two unpadded 3×3 convolutions, max pooling, a hidden layer of 128: 1,199,882 parameters at width 1.

A. Malekijoo et al., "FedZip", arXiv 2102.01593: 98 % of its weights lie in the hidden layer. It has biases instead of
normalisation.
"""
