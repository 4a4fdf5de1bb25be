"""The same network in every form a checkpoint has: our float reference computes what torch computes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from foreign_resnet import Block, Bottleneck, ResNet, lively, logits
from safetensors.torch import save_file
from torch import nn

from export.errors import ExportError
from export.foreign import Preprocessing, adopt, read_checkpoint
from export.reference import FloatNetwork
from export.weights import load_weights, weights_file
from protocol.networks import resnet18

Digits = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
State = dict[str, torch.Tensor]
NONE = Preprocessing()


def raw(pictures_NCHW: npt.NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(pictures_NCHW).float() / 255


def save_npz(state: State, path: Path) -> None:
    np.savez(path, **{name: values.numpy() for name, values in state.items()})


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": values for name, values in state.items()}


FORMS: dict[str, tuple[str, Callable[[State, Path], Any]]] = {
    "plain": ("a.pt", torch.save),
    "under state_dict, beside optimizer and epoch": (
        "a.pth",
        lambda state, path: torch.save({"epoch": 3, "best": 0.93, "optimizer": {"lr": 0.1}, "state_dict": state}, path),
    ),
    "under model": ("a.tar", lambda state, path: torch.save({"model": state}, path)),
    "DataParallel": ("a.pt", lambda state, path: torch.save(prefixed(state, "module."), path)),
    "Lightning and compile": (
        "a.ckpt",
        lambda s, path: torch.save({"state_dict": prefixed(s, "model._orig_mod.")}, path),
    ),
    "parameters": (
        "a.pt",
        lambda state, path: torch.save(
            {name: nn.Parameter(v) if v.is_floating_point() else v for name, v in state.items()}, path
        ),
    ),
    "float64": ("a.pt", lambda state, path: torch.save({name: v.double() for name, v in state.items()}, path)),
    "turned in memory": (
        "a.pt",
        lambda state, path: torch.save(
            {k: v.contiguous(memory_format=torch.channels_last) if v.dim() == 4 else v for k, v in state.items()}, path
        ),
    ),
    "safetensors": ("a.safetensors", save_file),
    "numpy": ("a.npz", save_npz),
}


@pytest.mark.parametrize("form", FORMS)
def test_logits_are_torchs_whatever_the_form(foreign: nn.Module, digits: Digits, tmp_path: Path, form: str) -> None:
    name, save = FORMS[form]
    save(foreign.state_dict(), tmp_path / name)
    made = adopt(read_checkpoint(tmp_path / name), NONE)
    assert made.architecture == resnet18(width=0.25, input_shape=(1, 32, 32))
    pictures = digits[0][:40]
    found, expected = FloatNetwork(made.architecture, made.tensors).logits(pictures), logits(foreign, raw(pictures))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["half.pt", "half.safetensors"])
def test_half_precision_is_widened_exactly(foreign: nn.Module, tmp_path: Path, dtype: torch.dtype, name: str) -> None:
    state = {key: values.to(dtype) for key, values in foreign.state_dict().items()}
    (save_file if name.endswith("safetensors") else torch.save)(state, tmp_path / name)
    made = adopt(read_checkpoint(tmp_path / name), NONE)
    expected = state["layer2.0.downsample.0.weight"].float().numpy()
    np.testing.assert_array_equal(made.tensors["layer2.0.shortcut.weight"], expected)


def test_the_stem_of_large_pictures_has_its_pool_and_its_usual_size(digits: Digits, tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = lively(ResNet(kernel=7, width=4, colours=3, classes=5))
    torch.save(network.state_dict(), tmp_path / "large.pt")
    assert adopt(read_checkpoint(tmp_path / "large.pt"), NONE).architecture == resnet18(
        width=0.0625, stem="7x7", input_shape=(3, 224, 224), classes=5
    )
    made = adopt(read_checkpoint(tmp_path / "large.pt"), NONE, input_shape=(3, 64, 64))
    pictures = digits[0][:8].repeat(2, axis=2).repeat(2, axis=3).repeat(3, axis=1)
    found, expected = FloatNetwork(made.architecture, made.tensors).logits(pictures), logits(network, raw(pictures))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_what_is_adopted_is_a_weights_file_like_any_other(saved: Path, tmp_path: Path) -> None:
    made = adopt(read_checkpoint(saved), NONE)
    (tmp_path / "w.bf").write_bytes(weights_file(made.weights))
    loaded = load_weights(tmp_path / "w.bf")
    assert loaded.architecture == made.architecture
    assert all(np.array_equal(loaded.tensors[name], values) for name, values in made.tensors.items())


def test_a_new_task_gets_a_fresh_classifier_and_keeps_the_rest(saved: Path) -> None:
    own, other = (adopt(read_checkpoint(saved), NONE, classes=classes) for classes in (None, 4))
    assert other.architecture == resnet18(width=0.25, input_shape=(1, 32, 32), classes=4)
    assert (own.fresh_classifier, other.fresh_classifier) == (False, True)
    assert other.tensors["classifier.weight"].shape == (4, 128)
    assert all(np.array_equal(own.tensors[k], v) for k, v in other.tensors.items() if not k.startswith("classifier"))


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "ResNet34": ({"blocks": (3, 4, 6, 3)}, r"unsupported layers: layer1\.2\.bn1, layer1\.2\.bn2, layer1\.2\.conv1"),
    "ResNet50": (
        {"blocks": (3, 4, 6, 3), "block": Bottleneck},
        r"unsupported layers: layer1\.0\.bn3, layer1\.0\.conv3.*layer1\.0\.conv1\.weight 4×16×1×1 \(expected 16×16×3×3",
    ),
    "too few blocks": (
        {"blocks": (2, 2, 2, 1)},
        r"missing layers: layer4\.1\.bn1, layer4\.1\.bn2, layer4\.1\.conv1, layer4\.1\.conv2$",
    ),
    "another kernel": ({"kernel": 5}, "conv1 has a kernel of 5×5: expected 7×7 or 3×3"),
    "another width": ({"width": 6}, r"layer1\.0\.conv1\.weight 6×6×3×3 \(expected 8×8×3×3\)|conv1 has 6 channels"),
    "one class": ({"classes": 1}, "fc 1 classes: .*expected 2 to"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_networks_are_refused_by_their_layers(tmp_path: Path, name: str) -> None:
    shape, complaint = OTHERS[name]
    torch.save(ResNet(**{"block": Block} | shape).state_dict(), tmp_path / "other.pt")
    with pytest.raises(ExportError, match=complaint):
        adopt(read_checkpoint(tmp_path / "other.pt"), NONE)


def without(state: State, *endings: str) -> State:
    return {name: values for name, values in state.items() if not name.endswith(endings)}


CHANGES: dict[str, tuple[Callable[[State], State], str]] = {
    "no normalisation": (
        lambda state: {name: values for name, values in state.items() if ".bn2." not in name},
        r"missing layers: layer1\.0\.bn2, layer1\.1\.bn2, .*layer4\.1\.bn2$",
    ),
    "no moments": (
        lambda state: without(state, "running_mean"),
        r"missing tensors: bn1\.running_mean, layer1\.0\.bn1\.running",
    ),
    "no classifier": (
        lambda state: without(state, "fc.weight"),
        r"no fc\.weight: expected a ResNet18 .*found conv1, bn1",
    ),
    "other names": (
        lambda state: prefixed(state, "features."),
        r"no conv1\.weight: .*found features\.conv1, features\.bn1",
    ),
    "attention": (
        lambda state: state | {"layer3.1.se.fc1.weight": torch.zeros(4, 4)},
        r"unsupported layers: layer3\.1\.se\.fc1$",
    ),
    "a bias too many": (lambda state: state | {"conv1.bias": torch.zeros(16)}, r"unsupported tensors: conv1\.bias$"),
    "no number": (
        lambda state: state | {"layer1.0.conv1.weight": torch.full((16, 16, 3, 3), torch.nan)},
        r"layer1\.0\.conv1\.weight: 2304 values are NaN or leave float32",
    ),
    "beyond float32": (
        lambda state: state | {"bn1.weight": torch.full((16,), 1e300, dtype=torch.float64)},
        r"bn1\.weight: 16 values are NaN or leave float32",
    ),
    "negative variance": (
        lambda state: state | {"bn1.running_var": -torch.ones(16)},
        r"stem\.conv\.variance holds -1: expected variances",
    ),
    "quantized": (
        lambda state: state | {"conv1.weight": torch.zeros(16, 1, 3, 3, dtype=torch.int8)},
        r"conv1\.weight holds int8: expected floating point",
    ),
    "nothing": (lambda _: {"x": torch.zeros(1)}, r"no conv1\.weight: .*found x"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_layer_that_does_not_fit_is_named(foreign: nn.Module, tmp_path: Path, change: str) -> None:
    alter, complaint = CHANGES[change]
    torch.save(alter(dict(foreign.state_dict())), tmp_path / "changed.pt")
    with pytest.raises(ExportError, match=complaint):
        adopt(read_checkpoint(tmp_path / "changed.pt"), NONE)


def test_channels_of_the_picture_must_be_the_networks(saved: Path) -> None:
    with pytest.raises(ExportError, match="input 3×32×32 has 3 channels: conv1 reads 1"):
        adopt(read_checkpoint(saved), NONE, input_shape=(3, 32, 32))


def test_an_unknown_suffix_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"weights\.h5 ends in '\.h5': expected one of \.npz, \.onnx"):
        read_checkpoint(tmp_path / "weights.h5")
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "gone.pt")
