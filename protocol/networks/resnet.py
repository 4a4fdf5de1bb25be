"""ResNet18.

K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv 1512.03385.
"""

from typing import Final

from protocol.architecture import INPUT
from protocol.networks.builder import Builder, scaled
from protocol.networks.spec import Family, Options, register

STAGES: Final = ((64, 1), (128, 2), (256, 2), (512, 2))
"""Channels at full width and stride of the first block."""
BLOCKS: Final = 2


def _rows(builder: Builder, options: Options) -> str:
    channels = [scaled(base, options.width) for base, _ in STAGES]
    if options.stem == "3x3":
        x = builder.conv("stem.conv", INPUT, channels[0], 3, 1, scale="stream1", wide=True, pinned=True)
    else:
        x = builder.conv("stem.conv", INPUT, channels[0], 7, 2, scale="stream1", wide=True, pinned=True)
        x = builder.maxpool("stem.pool", x, 3, 2, padding=1)
    for stage, (_, stride) in enumerate(STAGES, start=1):
        for block in range(BLOCKS):
            x = _basic_block(builder, x, f"layer{stage}.{block}", channels[stage - 1], stride if block == 0 else 1)
    return builder.avgpool(x)


def _basic_block(builder: Builder, x: str, name: str, channels: int, stride: int) -> str:
    """Two 3×3 convolutions and a shortcut, projected by a 1×1 convolution where the shape changes."""
    stream = f"stream{name.removeprefix('layer').split('.')[0]}"
    narrow = builder.recode(f"{name}.in", x)
    y = builder.conv(f"{name}.conv1", narrow, channels, 3, stride, scale=f"{name}.mid")
    y = builder.conv(f"{name}.conv2", y, channels, 3, 1, relu=False, scale=stream, wide=True)
    if stride != 1 or builder.shape(x)[0] != channels:
        x = builder.conv(f"{name}.shortcut", narrow, channels, 1, stride, relu=False, scale=stream, wide=True)
    return builder.add(f"{name}.add", y, x, scale=stream)


resnet18: Final = register(Family("resnet18", _rows, stems=("3x3", "7x7")))
"""Stem `3x3` for small pictures (stride 1, no pooling), `7x7` for 224×224 (stride 2, max pooling).

At full width 11.17 M parameters with the 3×3 stem and 10 classes, 11.69 M with the 7×7 stem and 1000 classes.
"""
