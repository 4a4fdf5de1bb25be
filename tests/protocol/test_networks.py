"""Every table: shapes follow, specs name it, counts are the published ones."""

from itertools import product

import pytest

from protocol.architecture import INPUT, Architecture, Kind, Norm, Role
from protocol.errors import Malformed, RemoteProtocolError, Unsupported
from protocol.networks import FAMILIES, binary18, cnn4, fedzip_cnn, mobile, parse, resnet18, vgg_small
from protocol.precision import FP32, Precision

W4A4, W1A1 = Precision(4, 4), Precision(1, 1)


def every_network() -> list[Architecture]:
    made = []
    for family, norm, nested in product(FAMILIES.values(), Norm, (False, True)):
        if family.normalised or norm is Norm.BATCH:
            made.append(family(width=0.25, input_shape=(1, 28, 28), norm=norm, nested=nested))
    return made


NETWORKS = every_network()


@pytest.fixture(params=NETWORKS, ids=lambda network: network.spec)
def network(request: pytest.FixtureRequest) -> Architecture:
    return request.param


def test_a_spec_names_the_network_it_came_from(network: Architecture) -> None:
    """BF-060."""
    assert parse(network.spec) == network


@pytest.mark.parametrize("precision", [FP32, W4A4, W1A1, Precision(8, 8)])
def test_every_input_exists_and_every_shape_follows_from_it(network: Architecture, precision: Precision) -> None:
    seen = {INPUT: network.input_shape}
    for layer in network.at(precision).layers:
        assert layer.in_shape == seen[layer.inputs[0]]
        assert {len(seen[name]) for name in layer.inputs} == {len(layer.in_shape)}
        seen[layer.name] = layer.out_shape
    assert list(seen.values())[-1] == (network.classes,)


def test_recode_is_there_below_eight_activation_bits_only(network: Architecture) -> None:
    assert all(layer.kind is not Kind.RECODE for layer in network.at(Precision(4, 8)).layers)
    assert network.at(W4A4) is network


def test_what_meets_in_an_add_shares_a_scale_that_stays_wide(network: Architecture) -> None:
    for add in (layer for layer in network.layers if layer.kind is Kind.ADD):
        assert {network.scale_of(name) for name in add.inputs} == {add.scale}
        assert network.activation_bits(add.scale, W1A1) == 8


def test_a_scale_group_is_wide_as_a_whole(network: Architecture) -> None:
    for scale in network.scales:
        members = {layer.wide for layer in network.layers if layer.scale == scale}
        assert len(members) == 1, scale


def test_the_shared_tensors_are_the_same_at_every_precision(network: Architecture) -> None:
    """BF-061."""
    shared = [[spec for spec in network.tensors(p) if not spec.profile] for p in (FP32, Precision(4, 32), W4A4, W1A1)]
    assert all(specs == shared[0] for specs in shared)
    trained = {Role.WEIGHT, Role.BIAS, Role.GAMMA, Role.BETA, Role.SLOPE, Role.SHIFT_IN, Role.SHIFT_OUT}
    assert sum(spec.size for spec in shared[0] if spec.role in trained) == network.parameters


def test_names_are_unique_with_several_profiles(network: Architecture) -> None:
    """BF-064."""
    specs = network.tensors(W4A4, W1A1, FP32)
    assert len({spec.name for spec in specs}) == len(specs)
    assert [spec.profile for spec in specs] == sorted(
        (spec.profile for spec in specs), key=["", "W4A4", "W1A1", "fp32"].index
    )


def test_only_batch_normalisation_has_moments(network: Architecture) -> None:
    roles = {spec.role for spec in network.tensors(FP32)}
    assert (Role.MEAN in roles) == (network.norm is Norm.BATCH and FAMILIES[network.spec.split(":")[0]].normalised)


def test_nested_codes_have_one_step_for_all_widths(network: Architecture) -> None:
    """BF-061, BF-066."""
    roles = [spec.role for spec in network.tensors(W4A4)]
    weights = sum(layer.weight_shape is not None for layer in network.layers)
    assert roles.count(Role.CODE_LOG_STEP) == (weights if network.nested else 0)
    assert (Role.WEIGHT_LOG_STEP in roles) != network.nested


@pytest.mark.parametrize(
    ("made", "parameters"),
    [
        (cnn4(), 98_682),
        (fedzip_cnn(), 1_199_882),  # arXiv 2102.01593: 1.20 M, of which the hidden layer has 1.18 M
        (vgg_small(), 4_660_106),
        (mobile(), 543_050),
        (binary18(), 11_185_482),
        (resnet18(), 11_173_962),
    ],
)
def test_parameter_counts_by_hand(made: Architecture, parameters: int) -> None:
    assert made.parameters == parameters


def test_a_depthwise_convolution_has_one_filter_a_channel() -> None:
    layer = mobile().by_name["block2.depthwise"]
    assert layer.weight_shape == (64, 1, 3, 3)
    assert layer.multiply_adds == 64 * 9 * 8 * 8


def test_binary18_has_a_shortcut_around_every_convolution() -> None:
    network = binary18(width=0.25)
    convolutions = [layer for layer in network.layers if layer.name.endswith(".conv") and not layer.pinned]
    assert len(convolutions) == 16
    assert sum(layer.kind is Kind.ADD for layer in network.layers) == 16
    assert all(network.activation_bits(network.scale_of(layer.inputs[0]), W1A1) == 1 for layer in convolutions)


def test_a_signed_recode_learns_a_zero_and_at_one_bit_a_threshold_a_channel() -> None:
    offsets = {p: [s.shape for s in binary18().tensors(p) if s.role is Role.ACTIVATION_OFFSET] for p in (W4A4, W1A1)}
    assert set(offsets[W4A4]) == {(1,)}
    assert set(offsets[W1A1]) == {(64,), (128,), (256,), (512,)}


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ("resnet19:width=1,input=1x28x28,classes=10", Unsupported),
        ("cnn4:width=1,stem=3x3,input=1x28x28,classes=10", Unsupported),
        ("resnet18:width=1,input=1x28x28,classes=10", Unsupported),
        ("fedzip-cnn:width=1,input=1x28x28,classes=10,norm=group", Unsupported),
        ("cnn4:width=1,input=1x28x28,classes=10,norm=batch", Malformed),
        ("cnn4:width=1,input=1x28x28,classes=10,codes=nested,norm=group", Malformed),
        ("cnn4:width=0.001,input=1x28x28,classes=10", Unsupported),
        ("cnn4:width=1,input=1x4x28,classes=10", Unsupported),
    ],
)
def test_a_bad_spec_is_refused_with_its_value(spec: str, error: type[RemoteProtocolError]) -> None:
    """BF-060, BF-041."""
    with pytest.raises(error):
        parse(spec)


def test_norm_groups_divide_the_channels() -> None:
    network = cnn4(norm=Norm.GROUP)
    assert [network.norm_groups(channels) for channels in (4, 6, 8, 16, 32, 64, 512)] == [1, 1, 2, 4, 8, 8, 8]
