"""A depthwise-separable network: A. G. Howard et al., "MobileNets", arXiv 1704.04861, for small pictures."""

from typing import Final

from protocol.architecture import INPUT
from protocol.networks.builder import Builder, scaled
from protocol.networks.spec import Family, Options, register

BLOCKS: Final = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1))
"""Channels at full width and stride: MobileNet's first blocks, with its five equal ones left out."""


def _rows(builder: Builder, options: Options) -> str:
    x = builder.conv("stem", INPUT, scaled(32, options.width), 3, 2, pinned=True)
    for number, (channels, stride) in enumerate(BLOCKS, start=1):
        x = builder.conv(f"block{number}.depthwise", x, builder.shape(x)[0], 3, stride, depthwise=True)
        x = builder.conv(f"block{number}.pointwise", x, scaled(channels, options.width), 1)
    return builder.avgpool(x)


mobile: Final = register(Family("mobile", _rows))
"""A 3×3 stem of stride 2 and seven pairs of a depthwise 3×3 and a pointwise 1×1 convolution."""
