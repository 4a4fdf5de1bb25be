"""What the float and the integer operators share: sliding windows, and a picture laid out as a row."""

from export.writer import Writer
from protocol.architecture import Layer


def window(layer: Layer, *, padding: int | None = None) -> dict[str, list[int]]:
    """The attributes of a sliding window, for convolutions and max pooling alike; `padding` replaces the layer's."""
    return {
        "kernel_shape": [layer.kernel] * 2,
        "strides": [layer.stride] * 2,
        "pads": [layer.padding if padding is None else padding] * 4,
    }


def grouped_window(layer: Layer, *, padding: int | None = None) -> dict[str, int | list[int]]:
    """The same of a convolution, with its groups if it has any."""
    groups = {"group": layer.groups} if layer.groups > 1 else {}
    return {**window(layer, padding=padding), **groups}


def flat(writer: Writer, layer: Layer, x: str) -> str:
    """The input of a linear layer as [N, I], channel by channel."""
    return writer.node("Flatten", [x], f"{layer.name}/flat") if len(layer.in_shape) > 1 else x
