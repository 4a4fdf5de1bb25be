"""What a file is told to be: rows of the table at its precision, with their bits, bytes and operations."""

from collections.abc import Callable

import pytest

from export.describe import Description, describe
from export.passes import to_onnx
from export.passes.attach_metadata import attach_metadata
from export.writer import serialize
from protocol.architecture import Architecture, Tensors
from protocol.energy import bops
from protocol.networks import binary18, resnet18
from protocol.precision import Precision

MakeTensors = Callable[[Architecture, Precision], Tensors]
Describe = Callable[[Architecture, str], Description]


@pytest.fixture
def described(make_tensors: MakeTensors) -> Describe:
    def make(network: Architecture, name: str) -> Description:
        precision = Precision.parse(name)
        model = to_onnx(network, precision, make_tensors(network, precision))
        return describe(serialize(attach_metadata(model, {"architecture": network.spec, "precision": name})))

    return make


def test_rows_tell_weights_activations_and_operations(described: Describe) -> None:
    network = resnet18(width=0.0625, input_shape=(1, 16, 16))
    rows = {row.name: row for row in described(network, "W4A3").rows}
    stem, narrowed, conv, add = (rows[name] for name in ("stem.conv", "layer1.0.in", "layer1.0.conv1", "layer1.0.add"))
    assert (stem.weight_bits, stem.activation_bits, stem.bops) == (8, 8, stem.multiply_adds * 64)
    assert (narrowed.kind, narrowed.weight_bits, narrowed.activation_bits, narrowed.bops) == ("recode", None, 3, 0)
    assert (conv.weight_bits, conv.activation_bits, conv.bops) == (4, 3, conv.multiply_adds * 12)
    assert add.activation_bits == 8
    assert rows["classifier"].activation_bits is None
    weight_bytes = 4 * 4 * 9 // 2
    assert weight_bytes < conv.stored_bytes <= weight_bytes + 8 * 4 + 4  # scale and bias per channel, one step


def test_rows_that_do_nothing_are_not_there(described: Describe) -> None:
    network = resnet18(width=0.0625, input_shape=(1, 16, 16))
    assert "recode" not in {row.kind for row in described(network, "W4A8").rows}


@pytest.mark.parametrize("name", ["fp32", "W8A8", "W4A4", "W1A1"])
def test_the_total_is_the_energy_models(name: str, described: Describe) -> None:
    network = binary18(width=0.0625, input_shape=(1, 16, 16))
    description = described(network, name)
    assert description.bops == sum(row.bops for row in description.rows) == bops(network, Precision.parse(name))
