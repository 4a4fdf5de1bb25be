"""Every method: one contract for all, and what each adds."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from edge.data import Dataset
from edge.training.methods import method_for
from edge.training.methods.kurtosis import UNIFORM_KURTOSIS, kurtosis
from edge.training.methods.several import Several
from edge.training.model import Model
from edge.training.task import TrainerError, TrainingTask
from edge.training.trainer import train
from protocol.architecture import MOMENTS, Architecture, Norm, Role, Tensors
from protocol.initial import derive_profile, initial_tensors
from protocol.method import METHODS, Method
from protocol.networks import cnn4
from protocol.precision import max_code, parse_several, quantize_weight, step_of

NETWORK = cnn4(width=0.5, input_shape=(1, 16, 16))
NESTED = cnn4(width=0.5, input_shape=(1, 16, 16), nested=True)
MANY = "W8A8+W4A8+W2A8+W1A8"
PRECISION = {"fp32": "fp32", "apqn": "W4A32", "fbq": "W3A32", "mqat": MANY}
CASES = [(name, PRECISION.get(name, "W4A8"), NETWORK) for name in METHODS] + [("best", MANY, NESTED)]


def base_for(network: Architecture, precision: str) -> Tensors:
    precisions = parse_several(precision)
    tensors = initial_tensors(network, precisions[0], seed=2)
    shared = {spec.name: tensors[spec.name] for spec in network.tensors(precisions[0]) if not spec.profile}
    for other in precisions[1:]:
        profile = derive_profile(network, other, shared)
        tensors |= {f"{other}/{name}": value for name, value in profile.items()}
    return tensors


def task_for(network: Architecture, method: str, precision: str, **changes: object) -> TrainingTask:
    task = TrainingTask(network.spec, precision, 1, 16, 0.05, 5, calibrate_steps=True, held_out=0.0, method=method)
    return replace(task, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("method", "precision", "network"), CASES)
class TestEveryMethod:
    def test_it_learns_the_digits(self, method: str, precision: str, network: Architecture, digits: Dataset) -> None:
        task = task_for(network, method, precision, epochs=14, held_out=0.25)
        result = train(task, base_for(network, precision), digits, lambda _: None)
        assert result.report.accuracy >= 0.7
        assert all(np.isfinite(value).all() for value in result.tensors.values())

    def test_it_repeats_itself_bit_for_bit_and_names_every_tensor(
        self, method: str, precision: str, network: Architecture, digits: Dataset
    ) -> None:
        task, base = task_for(network, method, precision), base_for(network, precision)
        first, again = (train(task, base, digits, lambda _: None).tensors for _ in range(2))
        assert list(first) == [spec.name for spec in network.tensors(*parse_several(precision))]
        assert all(np.array_equal(first[name], again[name]) for name in first)

    def test_every_precision_measures_its_own_moments(
        self, method: str, precision: str, network: Architecture, digits: Dataset
    ) -> None:
        result = train(task_for(network, method, precision), base_for(network, precision), digits, lambda _: None)
        variances = [spec.name for spec in network.tensors(*parse_several(precision)) if spec.role is Role.VARIANCE]
        assert len(variances) == 4 * len(parse_several(precision))
        assert all((result.tensors[name] != 1).any() for name in variances)


def test_moments_are_left_alone_when_none_are_asked_for(digits: Dataset) -> None:
    base = base_for(NETWORK, MANY)
    result = train(task_for(NETWORK, "mqat", MANY, moment_pictures=0), base, digits, lambda _: None)
    for spec in NETWORK.tensors(*parse_several(MANY)):
        if spec.role in MOMENTS:
            np.testing.assert_array_equal(result.tensors[spec.name], base[spec.name])


def test_the_sandwich_has_the_ends_in_every_step_and_everything_between_in_turn() -> None:
    model = Model(NETWORK, parse_several(MANY), base_for(NETWORK, MANY))
    method = method_for(Method.parse("mqat"), model, seed=1)
    assert isinstance(method, Several)
    drawn = [[str(precision) for precision in method._drawn()] for _ in range(40)]
    assert {(first, last) for first, _, last in drawn} == {("W8A8", "W1A8")}
    assert {between for _, between, _ in drawn} == {"W4A8", "W2A8"}


def test_kurtosis_of_known_laws() -> None:
    generator = torch.Generator().manual_seed(0)
    assert kurtosis(torch.rand(200_000, generator=generator)) == pytest.approx(UNIFORM_KURTOSIS, abs=0.01)
    assert kurtosis(torch.randn(200_000, generator=generator)) == pytest.approx(3, abs=0.05)
    assert kurtosis(torch.tensor([-1.0, 1.0])) == 1
    assert kurtosis(torch.zeros(5)) == 0


def test_the_kurtosis_term_shapes_the_weights(digits: Dataset) -> None:
    def gap(method: str) -> float:
        base = base_for(NETWORK, "fp32")
        result = train(task_for(NETWORK, method, "fp32", epochs=8), base, digits, lambda _: None)
        trained = [torch.from_numpy(base[name] + result.tensors[name]) for name in base if name.endswith("2.weight")]
        return abs(float(kurtosis(trained[0])) - UNIFORM_KURTOSIS)

    assert gap("kure") < 0.3 < gap("fp32")


def test_min_max_steps_end_where_the_weights_end(digits: Dataset) -> None:
    base = base_for(NETWORK, "W3A8")
    result = train(task_for(NETWORK, "qat", "W3A8"), base, digits, lambda _: None)
    weight = base["conv3.weight"] + result.tensors["conv3.weight"]
    step_O = step_of(base["conv3.weight_log_step"] + result.tensors["conv3.weight_log_step"])
    np.testing.assert_allclose(step_O, np.abs(weight).reshape(len(weight), -1).max(axis=1) / max_code(3), rtol=1e-4)
    assert (np.abs(quantize_weight(weight, step_O, 3)).reshape(len(weight), -1).max(axis=1) == 3).all()


def test_networks_of_one_model_share_the_shared_tensors() -> None:
    model = Model(NETWORK, parse_several("W8A8+W1A8"), base_for(NETWORK, "W8A8+W1A8"))
    wide, narrow = model.networks.values()
    assert wide.value("conv2", Role.WEIGHT) is narrow.value("conv2", Role.WEIGHT)
    assert wide.value("conv2", Role.MEAN) is not narrow.value("conv2", Role.MEAN)


@pytest.mark.parametrize("log_step", [np.nan, np.inf, -np.inf, -200.0])
def test_a_step_that_is_lost_stops_training_with_its_name(digits: Dataset, log_step: float) -> None:
    base = base_for(NETWORK, "W4A8")
    base["conv2.weight_log_step"][1] = log_step
    with pytest.raises(TrainerError, match=r"conv2\.weight_log_step|loss nan"):
        train(task_for(NETWORK, "oqfl", "W4A8", calibrate_steps=False), base, digits, lambda _: None)


def test_a_single_picture_needs_more_than_its_own_statistics(digits: Dataset) -> None:
    small = cnn4(width=0.5, input_shape=(1, 16, 16))
    one = digits.take(np.arange(1))
    with pytest.raises(TrainerError, match=r"1 pictures in batches of 16 make a batch of 1, which conv4"):
        train(task_for(small, "fp32", "fp32"), base_for(small, "fp32"), one, lambda _: None)
    grouped = cnn4(width=0.5, input_shape=(1, 16, 16), norm=Norm.GROUP)
    result = train(task_for(grouped, "fp32", "fp32"), base_for(grouped, "fp32"), one, lambda _: None)
    assert np.isfinite(result.report.loss)


def test_several_precisions_upload_their_learned_steps(digits: Dataset) -> None:
    base = base_for(NETWORK, MANY)
    result = train(task_for(NETWORK, "mqat", MANY, calibrate_steps=False), base, digits, lambda _: None)
    hidden = [f"{precision}/conv{number}.weight_log_step" for precision in ("W4A8", "W2A8") for number in (2, 3, 4)]
    assert all(result.tensors[name].any() for name in hidden)
    assert "W1A8/conv2.weight_log_step" not in result.tensors
