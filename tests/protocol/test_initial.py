"""First tensors: complete, repeatable, and the same weights whatever the precision."""

import numpy as np
import pytest
from strategies import PRECISIONS, SMALL

from protocol.architecture import PROFILE, Role, Tensors
from protocol.initial import derive_profile, initial_tensors
from protocol.networks import resnet18
from protocol.precision import Precision, fitted_step


def shared_of(tensors: Tensors, precision: Precision) -> Tensors:
    return {spec.name: tensors[spec.name] for spec in SMALL.tensors(precision) if spec.role not in PROFILE}


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
def test_a_fresh_model_has_every_tensor_of_its_table(precision: Precision) -> None:
    tensors = initial_tensors(SMALL, precision, seed=1)
    assert {name: value.shape for name, value in tensors.items()} == {s.name: s.shape for s in SMALL.tensors(precision)}
    assert all(value.dtype == np.float32 and np.isfinite(value).all() for value in tensors.values())


def test_the_shared_tensors_depend_on_the_seed_and_not_on_the_precision() -> None:
    models = [shared_of(initial_tensors(SMALL, precision, seed=1), precision) for precision in PRECISIONS]
    for model in models[1:]:
        assert all(np.array_equal(model[name], value) for name, value in models[0].items())
    other = initial_tensors(SMALL, PRECISIONS[0], seed=2)
    assert not np.array_equal(other["stem.conv.weight"], models[0]["stem.conv.weight"])


def test_weights_have_the_deviation_of_he() -> None:
    network = resnet18(width=0.5)
    weight = initial_tensors(network, PRECISIONS[0], seed=1)["layer4.0.conv2.weight"]
    assert weight.std() == pytest.approx(np.sqrt(2 / (256 * 9)), rel=0.01)
    assert abs(weight.mean()) < 1e-3


def test_a_profile_takes_steps_from_weights_and_the_rest_from_its_neighbour() -> None:
    eight, four = Precision.parse("W8A8"), Precision.parse("W4A8")
    model = initial_tensors(SMALL, eight, seed=1)
    model["stem.conv.mean"] += 3
    model["pool.activation_log_step"] += 1
    shared = shared_of(model, eight)
    derived = derive_profile(SMALL, four, shared, like=model)
    assert set(derived) == {spec.name for spec in SMALL.tensors(four) if spec.role in PROFILE}
    assert np.array_equal(derived["stem.conv.mean"], model["stem.conv.mean"])
    assert np.array_equal(derived["pool.activation_log_step"], model["pool.activation_log_step"])
    weight = "layer1.0.conv1"
    expected = np.log(fitted_step(shared[f"{weight}.{Role.WEIGHT}"], 4))
    assert np.array_equal(derived[f"{weight}.{Role.WEIGHT_LOG_STEP}"], expected)
    derived["stem.conv.mean"] += 1
    assert model["stem.conv.mean"][0] == 3


def test_a_profile_without_a_neighbour_normalises_by_nothing() -> None:
    precision = Precision.parse("W1A8")
    model = initial_tensors(SMALL, precision, seed=1)
    derived = derive_profile(SMALL, precision, shared_of(model, precision))
    assert not derived["stem.conv.mean"].any()
    assert (derived["stem.conv.variance"] == 1).all()
    assert np.exp(derived["pool.activation_log_step"]) * 255 == pytest.approx(6)
