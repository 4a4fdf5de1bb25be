"""Appends rows to a table and keeps shapes."""

from typing import Final

from protocol.architecture import INPUT, Kind, Layer, Shape

POOL: Final = "pool"
CLASSIFIER: Final = "classifier"
CHANNEL_MULTIPLE: Final = 4
"""Channel counts are multiples of this, so that rows of 2-bit codes fill whole bytes."""


def scaled(channels: int, width: float) -> int:
    """A channel count times the width multiplier: a multiple of `CHANNEL_MULTIPLE`, at least that."""
    return max(CHANNEL_MULTIPLE, CHANNEL_MULTIPLE * round(channels * width / CHANNEL_MULTIPLE))


class Builder:
    """Rows in the order of computation. Every method returns the name of the row it appended."""

    def __init__(self, input_shape: Shape) -> None:
        self._input_shape = input_shape
        self._layers: dict[str, Layer] = {}

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The rows so far."""
        return tuple(self._layers.values())

    def shape(self, name: str) -> Shape:
        """Output shape of a row, or of the picture."""
        return self._input_shape if name == INPUT else self._layers[name].out_shape

    def conv(
        self,
        name: str,
        x: str,
        channels: int,
        kernel: int = 3,
        stride: int = 1,
        *,
        padding: int | None = None,
        depthwise: bool = False,
        norm: bool = True,
        relu: bool = True,
        scale: str = "",
        wide: bool = False,
        pinned: bool = False,
    ) -> str:
        """A convolution with "same" padding unless told otherwise; by default it has a scale group of its own."""
        shape = self.shape(x)
        padding = kernel // 2 if padding is None else padding
        return self._append(
            Layer(
                name,
                Kind.CONV,
                (x,),
                shape,
                (channels, *_windows(shape, kernel, stride, padding)),
                kernel,
                stride,
                padding,
                groups=channels if depthwise else 1,
                norm=norm,
                relu=relu,
                scale=scale or name,
                wide=wide,
                pinned=pinned,
            )
        )

    def recode(self, name: str, x: str) -> str:
        """Narrows x to the precision's activation bits, in a scale group of its own."""
        shape, relu = self.shape(x), not self._layers[x].signed
        return self._append(Layer(name, Kind.RECODE, (x,), shape, shape, relu=relu, scale=name))

    def prelu(self, name: str, x: str, *, scale: str) -> str:
        """A PReLU with shifts on a stream."""
        shape = self.shape(x)
        return self._append(Layer(name, Kind.PRELU, (x,), shape, shape, scale=scale, wide=True))

    def maxpool(self, name: str, x: str, kernel: int, stride: int, *, padding: int = 0) -> str:
        """Max pooling, which keeps its input's scale."""
        shape, source = self.shape(x), self._layers[x]
        out = (shape[0], *_windows(shape, kernel, stride, padding))
        return self._append(
            Layer(name, Kind.MAXPOOL, (x,), shape, out, kernel, stride, padding, scale=source.scale, wide=source.wide)
        )

    def add(self, name: str, left: str, right: str, *, scale: str, relu: bool = True) -> str:
        """A residual add."""
        shape = self.shape(left)
        return self._append(Layer(name, Kind.ADD, (left, right), shape, shape, relu=relu, scale=scale, wide=True))

    def avgpool(self, x: str) -> str:
        """Global average pooling, wide for the classifier."""
        shape, relu = self.shape(x), not self._layers[x].signed
        return self._append(Layer(POOL, Kind.AVGPOOL, (x,), shape, shape[:1], relu=relu, scale=POOL, wide=True))

    def linear(self, name: str, x: str, channels: int, *, wide: bool = False) -> str:
        """A hidden linear layer with bias and ReLU."""
        shape = (channels,)
        return self._append(Layer(name, Kind.LINEAR, (x,), self.shape(x), shape, relu=True, scale=name, wide=wide))

    def classifier(self, x: str, classes: int) -> str:
        """The last layer, pinned at 8 bits; its logits are not quantized."""
        return self._append(Layer(CLASSIFIER, Kind.LINEAR, (x,), self.shape(x), (classes,), pinned=True))

    def _append(self, layer: Layer) -> str:
        self._layers[layer.name] = layer
        return layer.name


def _windows(shape: Shape, kernel: int, stride: int, padding: int) -> Shape:
    return tuple((edge + 2 * padding - kernel) // stride + 1 for edge in shape[1:])
