"""The global model: its file, its profiles, and what devices download."""

import numpy as np
import pytest
from fleet import delta_tensors
from strategies import SMALL

from aggregator.model import GlobalModel, ModelError, base_payload, profile_specs
from protocol.codec.payload import Content, decode
from protocol.precision import Precision

W8, W4, W1 = Precision(8, 8), Precision(4, 8), Precision(1, 8)


def trained(*precisions: Precision) -> GlobalModel:
    model = GlobalModel.fresh(SMALL.spec, seed=1)
    profiles = {
        str(precision): {
            spec.name: delta_tensors(precision, seed=index)[spec.name] for spec in profile_specs(SMALL, precision)
        }
        for index, precision in enumerate(precisions)
    }
    return GlobalModel(SMALL.spec, model.shared, profiles)


def test_a_model_comes_back_from_its_file_bit_by_bit() -> None:
    model = trained(W8, W1)
    again = GlobalModel.from_bytes(model.to_bytes())
    assert again.architecture == SMALL.spec
    assert again.to_bytes() == model.to_bytes()
    for name, values in model.tensors(W1).items():
        np.testing.assert_array_equal(again.tensors(W1)[name], values)


def test_equal_models_have_equal_files_whatever_the_order_of_profiles() -> None:
    model = trained(W8, W1)
    turned = GlobalModel(SMALL.spec, model.shared, dict(reversed(model.profiles.items())))
    assert turned.to_bytes() == model.to_bytes()


def test_every_truncation_is_refused() -> None:
    data = trained(W8).to_bytes()
    lengths = [*range(120), *range(120, len(data), 997)]
    for length in lengths:
        with pytest.raises(ModelError, match=f"of {length} bytes"):
            GlobalModel.from_bytes(data[:length])


@pytest.mark.parametrize("position", range(60))
def test_damaged_headers_raise_nothing_else(position: int) -> None:
    data = bytearray(trained(W8).to_bytes())
    data[position] ^= 0xFF
    with pytest.raises(ModelError):
        GlobalModel.from_bytes(bytes(data))


def test_a_value_that_is_not_finite_is_refused() -> None:
    model = trained(W8)
    model.shared["stem.conv.weight"].flat[0] = np.nan
    with pytest.raises(ModelError, match=r"stem\.conv\.weight.*finite"):
        GlobalModel.from_bytes(model.to_bytes())


def test_a_fresh_model_depends_on_its_seed_alone() -> None:
    assert GlobalModel.fresh(SMALL.spec, 1).to_bytes() == GlobalModel.fresh(SMALL.spec, 1).to_bytes()
    assert GlobalModel.fresh(SMALL.spec, 1).to_bytes() != GlobalModel.fresh(SMALL.spec, 2).to_bytes()


def test_a_missing_profile_starts_from_the_nearest() -> None:
    model = trained(W8, W1)
    name = "stem.conv.mean"
    np.testing.assert_array_equal(model.tensors(W4)[name], model.profiles["W1A8"][name])
    np.testing.assert_array_equal(trained(W8).tensors(W4)[name], trained(W8).profiles["W8A8"][name])


def test_a_trained_profile_is_not_derived_again() -> None:
    model = trained(W8)
    assert model.with_profile(W8) is model


@pytest.mark.parametrize("recipe", ["fp32", "uniform:8"])
def test_a_base_payload_is_deterministic_and_holds_every_tensor(recipe: str) -> None:
    model = trained(W8)
    data = base_payload(model, [W8], recipe, seed=9)
    assert data == base_payload(model, [W8], recipe, seed=9)
    payload = decode(data)
    assert payload.header.content is Content.WEIGHTS
    assert set(payload.tensors) == {spec.name for spec in SMALL.tensors(W8)}
    for name, values in model.tensors(W8).items():
        span = float(np.ptp(values))
        atol = 0.0 if recipe == "fp32" else span / 255 + 1e-3 * float(np.abs(values).max())
        np.testing.assert_allclose(payload.tensors[name], values, rtol=0, atol=atol)
