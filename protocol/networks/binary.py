"""A residual network for binary activations.

Z. Liu et al., "Bi-Real Net", ECCV 2018, arXiv 1808.00278: a shortcut around every single convolution, so that the
8-bit stream survives the 1-bit convolutions. Z. Liu et al., "ReActNet", ECCV 2020, arXiv 2003.03488: the threshold of
every sign and the shifts around every PReLU are learned per channel.
"""

from typing import Final

from protocol.architecture import INPUT, Architecture, Norm, Shape
from protocol.networks.builder import Builder, scaled
from protocol.networks.resnet import BLOCKS, STAGES
from protocol.networks.spec import Family, Options, register


def binary18(
    *,
    width: float = 1.0,
    input_shape: Shape = (3, 32, 32),
    classes: int = 10,
    norm: Norm = Norm.BATCH,
    nested: bool = False,
) -> Architecture:
    """ResNet18's stages with a shortcut around each of the 16 convolutions.

    Args and errors as for `resnet18`.
    """
    return FAMILY.make(Options(width, input_shape, classes, norm, nested))


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


FAMILY: Final = register(Family("binary18", _rows))
