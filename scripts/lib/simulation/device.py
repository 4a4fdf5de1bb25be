"""One virtual device: a base model's bytes in, an update's bytes out, by the product's own trainer and codec.

Both functions run in a worker process. Whatever is random follows from the run's seed, the round and the device, so
it is the same in whichever process, and again after an interruption.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edge.data import Dataset
from edge.training.task import Progress, TrainingResult, TrainingTask
from edge.training.trainer import train
from protocol import networks
from protocol.architecture import Tensors
from protocol.codec.feedback import encode_with_feedback
from protocol.codec.payload import Content, Header, Payload, decode, encode, header_seed
from protocol.codec.recipe import Recipe
from simulation.partition import gather
from simulation.seeds import generator, seed_of
from simulation.setup import Setup


@dataclass(frozen=True, slots=True)
class Order:
    """What a device is asked to do.

    Attributes:
        setup: of the run.
        number: of the round, from 1.
        device: from 0.
        base: payload of the model to start from; its header names the precisions.
        fresh: whether activation steps are set from the first pictures.
        processor: torch's name of what computes, such as `cpu`.
        recipe: of the update, where there is to be one.
    """

    setup: Setup
    number: int
    device: int
    base: bytes
    fresh: bool
    processor: str
    recipe: str = ""


@dataclass(frozen=True, slots=True)
class Update:
    """What a device answers.

    Attributes:
        payload: what would go over the air.
        samples: pictures behind it.
        loss: mean training loss, in nats.
        residual: what the codec dropped, which the device keeps; empty without error feedback.
    """

    payload: bytes
    samples: int
    loss: float
    residual: Tensors


def learn(order: Order, residual: Tensors, steps: Sequence[float] = ()) -> Update:
    """Train one round and encode the update, with the steps that were announced, if any.

    Moments are not measured: nothing reads them before the calibration that precedes a judgement.

    Raises:
        TrainerError: the loss or a step left the finite numbers, or the pictures do not do.
        LocalProtocolError: the update cannot be encoded.
    """
    setup, base = order.setup, decode(order.base)
    result = _train(order, base, _pictures(order), epochs=setup.epochs, moment_pictures=0)
    recipe = Recipe.parse(order.recipe).in_round(order.number)
    seed = header_seed(recipe, seed_of(setup.seed, order.number, "codec"))
    header = replace(base.header, recipe=str(recipe), content=Content.DELTA, pictures=0, seed=seed)
    rng = generator(setup.seed, order.number, f"rounding {order.device}")
    attack = setup.attack_of(order.device)
    payload, residual = encode_with_feedback(header, attack.tensors(result.tensors, rng), residual, rng, steps)
    return Update(attack.payload(payload), result.report.samples, result.report.loss, residual)


def measure(order: Order) -> Update:
    """Measure the base model on drawn pictures: moments, and activation steps where they are fresh.

    Raises:
        TrainerError: a step left the finite numbers, or the pictures do not do.
        LocalProtocolError: what was measured cannot be encoded.
    """
    setup, base = order.setup, decode(order.base)
    pictures = _pictures(order)
    rng = generator(setup.seed, order.number, f"calibration {order.device}")
    drawn = pictures.take(rng.permutation(len(pictures))[: setup.calibration_pictures])
    result = _train(order, base, drawn, epochs=0, moment_pictures=None)
    header = _calibration_header(base.header, setup.recipe, result.report.samples)
    attack = setup.attack_of(order.device)
    payload = attack.payload(encode(header, attack.tensors(result.tensors, rng), rng))
    return Update(payload, result.report.samples, result.report.loss, {})


def _calibration_header(base: Header, recipe: str, pictures: int) -> Header:
    """Error feedback is for weights, and calibration sends none."""
    plain = str(Recipe.parse(recipe).without_feedback)
    return replace(base, recipe=plain, content=Content.PROFILES, pictures=pictures)


def _pictures(order: Order) -> Dataset:
    deal = gather(order.setup)
    pictures, classes = deal.train.take(deal.parts[order.device]), networks.parse(order.setup.network).classes
    return order.setup.attack_of(order.device).pictures(pictures, classes)


def _train(
    order: Order, base: Payload, pictures: Dataset, *, epochs: int, moment_pictures: int | None
) -> TrainingResult:
    setup = order.setup
    task = TrainingTask(
        architecture=base.header.architecture,
        precision=base.header.precision,
        epochs=epochs,
        batch=setup.batch,
        learning_rate=setup.learning_rate * setup.decay ** (order.number - 1),
        seed=seed_of(setup.seed, order.number, f"training {order.device}"),
        calibrate_steps=order.fresh,
        held_out=0.0,
        method=setup.method,
        moment_pictures=moment_pictures,
        augment=setup.augment,
    )
    return train(task, base.tensors, pictures, _unwatched, device=order.processor)


def _unwatched(_: Progress) -> None:
    """The run's bar moves by devices, not by steps."""
