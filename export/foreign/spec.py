"""Which network of ours a set of arrays is: read from shapes, and refused with every layer that does not fit.

Width is that of the first convolution, the stem its kernel, the classes those of `fc`. How large pictures are does not
show in a convolutional network's tensors: it is given, or the size the stem was made for.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from export.errors import ExportError
from export.foreign.found import Arrays, shape_in_words
from export.foreign.names import foreign_name, module_of
from protocol.architecture import Architecture, Shape
from protocol.errors import RemoteProtocolError
from protocol.networks import resnet18
from protocol.precision import FP32

FULL_WIDTH: Final = 64
"""Channels of the first convolution at width 1."""
USUAL_EDGE: Final = {7: 224, 3: 32}
"""Pixels that a stem's kernel was made for."""
MOST_NAMED: Final = 12
"""Layers that an error lists; the first dozen tell which network it is."""
EXPECTED: Final = "a ResNet18 as torchvision and timm name its layers"


def recognise(arrays: Arrays, input_shape: Shape | None, zero: int = 0) -> Architecture:
    """The network whose tensors these arrays are.

    Args:
        arrays: under torchvision's names, prefixes removed.
        input_shape: (C, H, W) of a picture, or None for the stem's usual size.
        zero: the grey that stands for 0 in a picture.

    Raises:
        ExportError: they are no ResNet18; the message names every layer that is missing, of another shape or not
            known.
    """
    first, classifier = _shape(arrays, "conv1.weight", 4), _shape(arrays, "fc.weight", 2)
    channels, colours, kernel, _ = first
    if kernel not in USUAL_EDGE:
        raise ExportError(f"conv1 has a kernel of {kernel}×{first[3]}: expected 7×7 or 3×3")
    shape = input_shape or (colours, USUAL_EDGE[kernel], USUAL_EDGE[kernel])
    if shape[0] != colours:
        raise ExportError(f"input {shape_in_words(shape)} has {shape[0]} channels: conv1 reads {colours}")
    try:
        stem, width = f"{kernel}x{kernel}", channels / FULL_WIDTH
        network = resnet18(width=width, stem=stem, input_shape=shape, classes=classifier[0], zero=zero)
    except RemoteProtocolError as error:
        raise ExportError(f"conv1 has {channels} channels, fc {classifier[0]} classes: {error}") from error
    _check_all(arrays, {foreign_name(network, spec): spec.shape for spec in network.tensors(FP32)})
    return network


def _shape(arrays: Arrays, name: str, axes: int) -> Shape:
    if name not in arrays:
        raise ExportError(f"no {name}: expected {EXPECTED}; found {_listed(map(module_of, arrays)) or 'nothing'}")
    shape = tuple(arrays[name].shape)
    if len(shape) != axes or 0 in shape:
        raise ExportError(f"{name} is {shape_in_words(shape)}: expected {axes} axes")
    return shape


def _check_all(arrays: Arrays, wanted: Mapping[str, Shape]) -> None:
    known, there = ({module_of(name) for name in names} for names in (wanted, arrays))
    stray = [name for name in arrays if name not in wanted and module_of(name) in known]
    missing = [name for name in wanted if name not in arrays and module_of(name) in there]
    differing = [
        f"{name} {shape_in_words(arrays[name].shape)} (expected {shape_in_words(shape)})"
        for name, shape in wanted.items()
        if name in arrays and arrays[name].shape != shape
    ]
    faults = {
        "unsupported layers": sorted(there - known),
        "unsupported tensors": stray,
        "missing layers": sorted(known - there),
        "missing tensors": missing,
        "other shapes": differing,
    }
    told = [f"{fault}: {_listed(names)}" for fault, names in faults.items() if names]
    if told:
        raise ExportError(f"not {EXPECTED}; {'; '.join(told)}")


def _listed(names: Iterable[str]) -> str:
    """The first `MOST_NAMED`, each once, and how many more there are."""
    every = list(dict.fromkeys(names))
    more = f" and {len(every) - MOST_NAMED} more" if len(every) > MOST_NAMED else ""
    return ", ".join(every[:MOST_NAMED]) + more
