"""A residual network for binary activations.

Z. Liu et al., "Bi-Real Net", ECCV 2018, arXiv 1808.00278: a shortcut around every single convolution, so that the
8-bit stream survives the 1-bit convolutions. Z. Liu et al., "ReActNet", ECCV 2020, arXiv 2003.03488: the threshold of
every sign and the shifts around every PReLU are learned per channel.
"""

from typing import Final

from protocol.architecture import INPUT
from protocol.networks.builder import Builder, scaled
from protocol.networks.resnet import BLOCKS, STAGES
from protocol.networks.spec import Family, Options, register

LARGE: Final = "3x3s2"


def _rows(builder: Builder, options: Options) -> str:
    large, channels = options.stem == LARGE, scaled(STAGES[0][0], options.width)
    stride, scale = (2, "stem") if large else (1, "stream1")
    x = builder.conv("stem.conv", INPUT, channels, 3, stride, relu=False, scale=scale, wide=True, pinned=True)
    for stage, (channels, stride) in enumerate(STAGES, start=1):
        first = 2 if large and stage == 1 else stride
        for block in range(2 * BLOCKS):
            x = _block(builder, x, stage, block, scaled(channels, options.width), first if block == 0 else 1)
    return builder.avgpool(x)


def _block(builder: Builder, x: str, stage: int, block: int, channels: int, stride: int) -> str:
    """Narrowed input → 3×3 convolution, plus the stream as it is (projected where its shape changes) → PReLU."""
    name, stream = f"layer{stage}.{block}", f"stream{stage}"
    y = builder.recode(f"{name}.in", x)
    y = builder.conv(f"{name}.conv", y, channels, 3, stride, relu=False, scale=stream, wide=True)
    if stride != 1 or builder.shape(x)[0] != channels:
        x = builder.conv(f"{name}.shortcut", x, channels, 1, stride, relu=False, scale=stream, wide=True, pinned=True)
    total = builder.add(f"{name}.add", y, x, scale=stream, relu=False)
    return builder.prelu(f"{name}.prelu", total, scale=stream)


binary18: Final = register(Family("binary18", _rows, stems=("", LARGE)))
"""ResNet18's stages with a shortcut around each of the 16 convolutions.

For small pictures the stem has a stride of 1; with stem `3x3s2`, for 224×224, it has one of 2, and so has the first
block, as in ReActNet. ResNet18's 7×7 stem alone would take nearly half as long as all binary convolutions together, and
its pooling pads with zeros, which win over the negative values of a signed stream.
"""
