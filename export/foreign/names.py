"""What torchvision and timm call the parts of a ResNet18, and what our table calls them.

    conv1, bn1                                  stem.conv
    layer1.0.conv1, layer1.0.bn1                layer1.0.conv1
    layer2.0.downsample.0, layer2.0.downsample.1    layer2.0.shortcut
    fc                                          classifier

Both libraries have used these names since their first release; those of timm differ for other stems only.
"""

from collections.abc import Iterable
from typing import Any, Final

import numpy.typing as npt

from export.foreign.found import Arrays
from protocol.architecture import Architecture, Layer, Role, TensorSpec

WRAPPERS: Final = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts keep the tensors beside optimizer and epoch."""
PREFIXES: Final = ("module.", "model.", "_orig_mod.")
"""Left by torch's DataParallel, by Lightning, and by torch.compile."""
COUNTERS: Final = "num_batches_tracked"
"""How many batches a moving average has seen: of no use once it stands."""

_OF_NORM: Final = {
    Role.GAMMA: "weight",
    Role.BETA: "bias",
    Role.MEAN: "running_mean",
    Role.VARIANCE: "running_var",
}


def foreign_name(network: Architecture, spec: TensorSpec) -> str:
    """The name torchvision gives a tensor of our ResNet18: `layer1.0.conv1.gamma` is `layer1.0.bn1.weight` there."""
    convolution, norm = _modules(network.by_name[spec.owner])
    return f"{norm}.{_OF_NORM[spec.role]}" if spec.role in _OF_NORM else f"{convolution}.{spec.role}"


def module_of(name: str) -> str:
    """The layer that a tensor belongs to: `layer1.0.bn1` of `layer1.0.bn1.weight`."""
    return name.rpartition(".")[0] or name


def plain(arrays: Arrays) -> dict[str, npt.NDArray[Any]]:
    """The arrays without prefixes that all names share, and without counters."""
    named = {name: values for name, values in arrays.items() if module_of(name) and not name.endswith(COUNTERS)}
    while prefix := next((prefix for prefix in PREFIXES if _all_start(named, prefix)), ""):
        named = {name.removeprefix(prefix): values for name, values in named.items()}
    return named


def _all_start(names: Iterable[str], prefix: str) -> bool:
    found = list(names)
    return bool(found) and all(name.startswith(prefix) for name in found)


def _modules(layer: Layer) -> tuple[str, str]:
    """Convolution and normalisation of a row, or the classifier and nothing."""
    match layer.name.rpartition("."):
        case "stem", _, _:
            return "conv1", "bn1"
        case block, _, "shortcut":
            return f"{block}.downsample.0", f"{block}.downsample.1"
        case block, _, convolution if block:
            return layer.name, f"{block}.{convolution.replace('conv', 'bn')}"
        case _:
            return "fc", ""
