from dataclasses import replace

import numpy as np
import pytest

from protocol.architecture import MOMENTS, PROFILE, Kind, Norm, Role
from protocol.errors import Malformed, RemoteProtocolError, Unsupported
from protocol.networks import parse, resnet18
from protocol.precision import FP32, Precision

W4A8, W1A8 = Precision.parse("W4A8"), Precision.parse("W1A8")


def test_resnet18_has_the_published_parameter_counts() -> None:
    """11.17 M with the small stem; 11.69 M as torchvision and the paper count it."""
    assert resnet18().parameters == 11_173_962
    assert resnet18(stem="7x7", input_shape=(3, 224, 224), classes=1000).parameters == 11_689_512


def test_resnet18_has_the_published_multiply_adds() -> None:
    """0.56 G at 32×32; 1.8 G at 224×224 (the paper's table 1)."""
    assert resnet18().multiply_adds == 555_422_720
    assert resnet18(stem="7x7", input_shape=(3, 224, 224), classes=1000).multiply_adds == 1_814_073_344


def test_multiply_adds_of_one_layer_by_hand() -> None:
    layer = resnet18().by_name["layer2.0.conv1"]
    assert layer.weight_shape == (128, 64, 3, 3)
    assert layer.out_shape == (128, 16, 16)
    assert layer.multiply_adds == 128 * 64 * 9 * 256


def test_both_branches_and_the_sum_of_every_add_share_one_scale() -> None:
    network = resnet18(width=0.25)
    adds = [layer for layer in network.layers if layer.kind is Kind.ADD]
    assert len(adds) == 8
    for add in adds:
        assert {network.scale_of(name) for name in add.inputs} == {add.scale}


def test_every_input_exists_and_every_shape_follows_from_it() -> None:
    for network in (resnet18(width=0.5), resnet18(stem="7x7", input_shape=(3, 224, 224))):
        seen = {"input": network.input_shape}
        for layer in network.layers:
            assert layer.in_shape == seen[layer.inputs[0]]
            seen[layer.name] = layer.out_shape


@pytest.mark.parametrize("width", [0.0625, 0.125, 0.5, 1.0, 1.3])
def test_a_spec_names_the_network_it_came_from(width: float) -> None:
    """BF-060."""
    network = resnet18(width=width, input_shape=(1, 28, 30), classes=7)
    assert parse(network.spec).layers == network.layers


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ("", Malformed),
        ("resnet18", Malformed),
        ("resnet18:width=1,stem=5x5,input=3x32x32,classes=10", Unsupported),
        ("resnet18:width=1.0,stem=3x3,input=3x32x32,classes=10", Malformed),
        ("resnet18:width=1,stem=3x7,input=3x32x32,classes=10", Unsupported),
        ("resnet18:width=9,stem=3x3,input=3x32x32,classes=10", Unsupported),
        ("resnet18:width=1,stem=3x3,input=3x99999x32,classes=10", Unsupported),
        ("resnet18:width=1,stem=3x3,input=3x32x32,classes=1", Unsupported),
        ("resnet18:width=1,stem=3x3,input=99x32x32,classes=10", Unsupported),
        ("resnet18:width=0,stem=3x3,input=3x32x32,classes=10", Unsupported),
        ("resnet18:width=1,stem=3x3,input=3x32x32,classes=10\n", Malformed),
    ],
)
def test_a_bad_spec_is_refused_with_its_value(spec: str, error: type[RemoteProtocolError]) -> None:
    """BF-060, BF-041."""
    with pytest.raises(error):
        parse(spec)


def test_tensors_come_shared_first_then_the_profile() -> None:
    """BF-061."""
    specs = resnet18(width=0.125).tensors(W4A8)
    profile = [spec.role in PROFILE for spec in specs]
    assert profile == sorted(profile)
    assert [spec.name for spec in specs[:4]] == [
        "stem.conv.weight",
        "stem.conv.gamma",
        "stem.conv.beta",
        "layer1.0.conv1.weight",
    ]
    assert len({spec.name for spec in specs}) == len(specs)


def test_the_shared_tensors_are_the_same_at_every_precision() -> None:
    """BF-061."""
    network = resnet18(width=0.125)
    shared = [[spec for spec in network.tensors(p) if spec.role not in PROFILE] for p in (FP32, W4A8, W1A8)]
    assert shared[0] == shared[1] == shared[2]


def test_fp32_has_moments_but_no_steps_and_one_bit_weights_no_learned_step() -> None:
    """BF-061, BF-062."""
    network = resnet18(width=0.125)
    assert {spec.role for spec in network.tensors(FP32) if spec.role in PROFILE} == MOMENTS
    stepped = [spec.owner for spec in network.tensors(W1A8) if spec.role is Role.WEIGHT_LOG_STEP]
    assert stepped == ["stem.conv", "classifier"]


def test_the_parameter_count_is_the_size_of_the_trained_tensors() -> None:
    network = resnet18(width=0.25)
    trained = {Role.WEIGHT, Role.BIAS, Role.GAMMA, Role.BETA}
    assert sum(int(np.prod(s.shape)) for s in network.tensors(FP32) if s.role in trained) == network.parameters


def test_the_digest_of_a_table_tells_any_two_apart_and_never_moves() -> None:
    """BF-068: a device of another release compares it with its own, so the number is part of the protocol."""
    networks = [
        resnet18(),
        resnet18(stem="7x7"),
        resnet18(nested=True),
        resnet18(norm=Norm.GROUP),
        resnet18(classes=11),
        parse("cnn4:width=1,input=1x28x28,classes=10"),
    ]
    assert len({network.digest for network in networks}) == len(networks)
    assert resnet18().digest.hex() == "9743ddd18bbf55970bcdf2c6a7084928a2cb2173da5e1597b1a8747f210d1319"


def test_one_row_that_differs_changes_the_digest_of_the_table() -> None:
    network = resnet18()
    changed = replace(network.layers[3], padding=0)
    assert replace(network, layers=(*network.layers[:3], changed, *network.layers[4:])).digest != network.digest
