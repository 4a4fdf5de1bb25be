"""Local training on real digits: it learns, it repeats itself bit for bit, it says when it cannot."""

from dataclasses import replace

import numpy as np
import pytest

from edge.data import Dataset
from edge.training.augment import MAX_SHIFT, shifted
from edge.training.model import Model
from edge.training.optimizer import optimizer_for
from edge.training.task import Progress, TrainerError, TrainingResult, TrainingTask
from edge.training.trainer import train
from protocol.architecture import MOMENTS, Architecture, Role, Tensors
from protocol.initial import initial_tensors
from protocol.precision import Precision

PRECISIONS = ("fp32", "W8A8", "W4A8", "W2A8", "W1A8")


def task_for(network: Architecture, precision: str, **changes: object) -> TrainingTask:
    task = TrainingTask(network.spec, precision, epochs=1, batch=16, learning_rate=0.05, seed=5, calibrate_steps=True)
    return replace(task, **changes)  # type: ignore[arg-type]


def base_for(network: Architecture, precision: str) -> Tensors:
    return initial_tensors(network, Precision.parse(precision), seed=2)


def run(network: Architecture, precision: str, digits: Dataset, **changes: object) -> TrainingResult:
    task = task_for(network, precision, **changes)
    return train(task, base_for(network, precision), digits, ignore)


def ignore(progress: Progress) -> None:
    pass


def applied(base: Tensors, result: TrainingResult) -> Tensors:
    moments = (".mean", ".variance")
    return {name: value if name.endswith(moments) else base[name] + value for name, value in result.tensors.items()}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_few_epochs_learn_the_digits(network: Architecture, digits: Dataset, precision: str) -> None:
    result = run(network, precision, digits, epochs=12, held_out=0.25)
    assert result.report.samples == 184
    assert result.report.accuracy == result.report.held_out_accuracy
    assert result.report.accuracy >= 0.8
    assert result.report.loss < 1.0


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_same_task_gives_the_same_bits_and_another_seed_others(
    network: Architecture, digits: Dataset, precision: str
) -> None:
    first, again, other = (run(network, precision, digits, seed=seed) for seed in (5, 5, 6))
    assert list(first.tensors) == list(again.tensors)
    assert all(np.array_equal(first.tensors[name], again.tensors[name]) for name in first.tensors)
    assert (first.report.loss, first.report.accuracy) == (again.report.loss, again.report.accuracy)
    assert any(not np.array_equal(first.tensors[name], other.tensors[name]) for name in first.tensors)


@pytest.mark.parametrize("precision", ["fp32", "W1A8"])
def test_an_update_has_every_tensor_of_the_table_as_float32(
    network: Architecture, digits: Dataset, precision: str
) -> None:
    result = run(network, precision, digits)
    specs = network.tensors(Precision.parse(precision))
    assert [(spec.name, spec.shape) for spec in specs] == [(k, v.shape) for k, v in result.tensors.items()]
    assert all(value.dtype == np.float32 and np.isfinite(value).all() for value in result.tensors.values())


def test_moments_are_absolute_and_measured_under_the_final_weights(network: Architecture, digits: Dataset) -> None:
    trained = run(network, "W4A8", digits)
    merged = applied(base_for(network, "W4A8"), trained)
    task = task_for(network, "W4A8", epochs=0, calibrate_steps=False)
    measured = train(task, merged, digits, ignore)
    for spec in network.tensors(Precision.parse("W4A8")):
        if spec.role in MOMENTS:
            np.testing.assert_allclose(measured.tensors[spec.name], trained.tensors[spec.name], rtol=2e-2, atol=1e-3)


def test_no_epochs_measure_moments_and_change_nothing_else(network: Architecture, digits: Dataset) -> None:
    result = run(network, "W1A8", digits, epochs=0, calibrate_steps=False)
    roles = {spec.name: spec.role for spec in network.tensors(Precision.parse("W1A8"))}
    assert all(not value.any() for name, value in result.tensors.items() if roles[name] not in MOMENTS)
    assert result.tensors["stem.conv.variance"].all()
    assert result.report.loss > 0


def test_calibration_moves_the_activation_steps_of_a_fresh_model(network: Architecture, digits: Dataset) -> None:
    calibrated = run(network, "W8A8", digits, epochs=0)
    untouched = run(network, "W8A8", digits, epochs=0, calibrate_steps=False)
    for scale in network.at(Precision(8, 8)).scales:
        name = f"{scale}.{Role.ACTIVATION_LOG_STEP}"
        assert calibrated.tensors[name].all()
        assert not untouched.tensors[name].any()


def test_progress_rises_to_one_and_counts_epochs(network: Architecture, digits: Dataset) -> None:
    seen: list[Progress] = []
    task = task_for(network, "fp32", epochs=2, batch=64, held_out=0)
    train(task, base_for(network, "fp32"), digits, seen.append)
    assert [progress.fraction for progress in seen] == [step / 8 for step in range(1, 9)]
    assert [progress.epoch for progress in seen] == [1] * 4 + [2] * 4


def test_a_loss_that_is_not_finite_stops_training_and_says_so(network: Architecture, digits: Dataset) -> None:
    base = base_for(network, "fp32")
    base["classifier.bias"][0] = np.nan
    with pytest.raises(TrainerError, match="loss nan in epoch 1, step 1 of 14: expected a finite number"):
        train(task_for(network, "fp32"), base, digits, ignore)


@pytest.mark.parametrize("log_step", [-200.0, 200.0])
def test_a_step_that_vanishes_stops_training_and_its_layer_is_named(
    network: Architecture, digits: Dataset, log_step: float
) -> None:
    base = base_for(network, "W4A8")
    base["layer1.0.conv1.weight_log_step"][:] = log_step
    with pytest.raises(
        TrainerError, match=r"tensor layer1\.0\.conv1\.weight_log_step stands for a step of (0|nan|inf)"
    ):
        train(replace(task_for(network, "W4A8"), calibrate_steps=False), base, digits, ignore)


def test_pictures_that_do_not_fit_the_network_are_refused(network: Architecture, digits: Dataset) -> None:
    task, base = task_for(network, "fp32"), base_for(network, "fp32")
    smaller = replace(digits, pictures_NCHW=digits.pictures_NCHW[:, :, :8])
    with pytest.raises(TrainerError, match=r"pictures of shape \(1, 8, 16\): expected \(1, 16, 16\)"):
        train(task, base, smaller, ignore)
    with pytest.raises(TrainerError, match="label 10: expected below 10"):
        train(task, base, replace(digits, labels_N=digits.labels_N + 1), ignore)
    with pytest.raises(TrainerError, match="no pictures to train on"):
        train(task, base, digits.take(np.arange(0)), ignore)


@pytest.mark.parametrize("count", [1, 2, 17])
def test_very_few_pictures_of_one_class_still_train(network: Architecture, digits: Dataset, count: int) -> None:
    few = replace(digits.take(np.arange(count)), labels_N=np.full(count, 7))
    result = train(task_for(network, "W2A8"), base_for(network, "W2A8"), few, ignore)
    assert all(np.isfinite(value).all() for value in result.tensors.values())


@pytest.mark.parametrize(
    "change", [{"epochs": -1}, {"batch": 0}, {"learning_rate": float("nan")}, {"seed": -1}, {"held_out": 1.0}]
)
def test_a_task_out_of_bounds_is_refused_by_field_and_value(network: Architecture, change: dict[str, float]) -> None:
    ((field, value),) = change.items()
    with pytest.raises(TrainerError, match=f"task {field} {value}: expected"):
        task_for(network, "fp32", **change)


def test_binary_latents_steps_and_normalisation_do_not_decay(network: Architecture) -> None:
    model = Model(network, (Precision.parse("W1A8"),), base_for(network, "W1A8"))
    decayed = {id(v) for g in optimizer_for(model, 0.1).param_groups if g["weight_decay"] for v in g["params"]}
    names = {name for name, value in model.values.items() if id(value) in decayed}
    assert names == {"stem.conv.weight", "classifier.weight"}


def test_a_shift_moves_a_picture_by_at_most_its_bound(digits: Dataset) -> None:
    pictures = np.zeros((200, 1, 16, 16), dtype=np.uint8)
    pictures[:, :, 8, 8] = 255
    moved = np.argwhere(shifted(pictures, np.random.default_rng(0)))
    assert len(moved) == 200
    assert set(np.unique(moved[:, 2:] - 8)) == set(range(-MAX_SHIFT, MAX_SHIFT + 1))
