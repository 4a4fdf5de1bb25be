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


def _rows(builder: Builder, options: Options) -> str:
    x = builder.conv(
        "stem.conv", INPUT, scaled(STAGES[0][0], options.width), relu=False, scale="stream1", wide=True, pinned=True
    )
    for stage, (channels, stride) in enumerate(STAGES, start=1):
        for block in range(2 * BLOCKS):
            x = _block(builder, x, stage, block, scaled(channels, options.width), stride if block == 0 else 1)
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


binary18: Final = register(Family("binary18", _rows))
"""ResNet18's stages with a shortcut around each of the 16 convolutions."""
