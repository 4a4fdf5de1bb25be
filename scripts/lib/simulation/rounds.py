"""A round as the aggregator sees it: sample devices, send a base, merge what comes back; then judge the model.

    state = learn(setup, state, …)                 every round
    state, calibrated = judged(setup, state, …)    after each of the last ones

Training goes on from the merged model. What is judged is a copy that the same devices have calibrated first, as the
product's last round does (`aggregator.job.Job.calibrate_last`).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from aggregator.model import GlobalModel
from aggregator.rates.base import BudgetError, Rates, Spreads, spreads_of_model
from aggregator.steps import announced
from export.errors import ExportError
from protocol import networks
from protocol.architecture import Tensors
from protocol.codec.feedback import aged
from protocol.codec.recipe import Recipe
from protocol.method import Method
from protocol.precision import MAX_PROFILES, Precision
from simulation import device, judge
from simulation.checkpoint import Residual, State
from simulation.crew import Crew
from simulation.device import Order, Update
from simulation.downlink import lowered, whole
from simulation.errors import SimulationError
from simulation.merging import merged
from simulation.rates import decide, spent_mj
from simulation.seeds import generator
from simulation.setup import Setup


def start(setup: Setup) -> State:
    """Before the first round."""
    return State(GlobalModel.fresh(networks.parse(setup.network).spec, setup.seed))


def learn(setup: Setup, state: State, crew: Crew, tick: Callable[[], None]) -> State:
    """The next round of training.

    Args:
        setup: of the run.
        state: after the round before.
        crew: who computes.
        tick: called whenever a device is done.

    Raises:
        SimulationError: training diverged; the message names round and device.
    """
    number = state.number + 1
    devices = sampled(setup, number)
    weights = spreads_of_model(state.model)
    rates = _decided(setup, state, weights, devices)
    base, chain, fetched = lowered(setup, rates.down, state.model, state.chain, number, devices)
    fresh = number == 1 and Method.parse(setup.method).learns_steps
    orders = [
        Order(setup, number, index, base, fresh, crew.processor, recipe)
        for index, recipe in zip(devices, rates.up, strict=True)
    ]
    answers = [
        (order.device, crew.submit(device.learn, order, _residual(state, order), state.steps)) for order in orders
    ]
    for _, answer in answers:
        answer.add_done_callback(lambda _: tick())
    model, reach, updates = merged(setup, state.model, answers, number)
    sent_bytes = {index: len(update.payload) for index, update in updates.items()}
    residuals = {index: Residual(number, update.residual) for index, update in updates.items() if update.residual}
    return replace(
        state,
        model=model,
        steps=announced(state.model, model) if Recipe.parse(setup.recipe).takes_steps else (),
        residuals={**state.residuals, **residuals},
        loss=(*state.loss, _loss(updates.values(), state.loss)),
        up_bytes=(*state.up_bytes, sum(sent_bytes.values())),
        down_bytes=(*state.down_bytes, fetched.total_bytes),
        chain=chain,
        past=state.past.then(rates, weights, reach.mean, *spent_mj(setup, sent_bytes, fetched)),
    )


def judged(setup: Setup, state: State, pictures: int, crew: Crew) -> tuple[State, GlobalModel]:
    """The state with the accuracy of its model on the `pictures` test pictures at every precision.

    Returns:
        The state, and the calibrated copy that was judged.

    Raises:
        SimulationError: calibration left the finite numbers, or the model cannot be exported; the message names the
            round, and the device.
    """
    model, sent_bytes = calibrated(setup, state.model, state.number, crew)
    data, sheets = model.to_bytes(), judge.sheets_of(pictures)
    answers = {
        name: [crew.submit(judge.right, setup, data, Precision.parse(name), sheet, crew.processor) for sheet in sheets]
        for name in setup.evaluate
    }
    try:
        accuracy = {name: sum(answer.result() for answer in parts) / pictures for name, parts in answers.items()}
    except ExportError as error:
        raise SimulationError(f"round {state.number}: the model cannot be exported to judge it: {error}") from error
    seen = {name: (*state.accuracy.get(name, ()), value) for name, value in accuracy.items()}
    return replace(state, accuracy=seen, calibration_bytes=sent_bytes), model


def calibrated(setup: Setup, model: GlobalModel, number: int, crew: Crew) -> tuple[GlobalModel, int]:
    """`model` with profiles that the devices of round `number` have measured, and the bytes they sent.

    A precision whose steps were learned keeps them and gets moments. Any other is quantized after training: its
    weight steps follow from the weights as they are now, its activation steps from the devices' pictures.
    """
    learned = set(setup.precisions) if Method.parse(setup.method).learns_steps else set[Precision]()
    model = replace(model, profiles={str(p): model.profiles[str(p)] for p in learned})
    wanted = [Precision.parse(name) for name in setup.evaluate]
    orders = [
        Order(setup, number, index, whole(setup, model, part, number), fresh, crew.processor)
        for fresh in (False, True)
        for part in _parts([p for p in wanted if (p not in learned) is fresh])
        for index in sampled(setup, number)
    ]
    answers = [(order.device, crew.submit(device.measure, order)) for order in orders]
    measured, _, updates = merged(setup, model, answers, number)
    for precision in wanted:  # whom nobody could measure is judged as it is
        measured = measured.with_profile(precision)
    return measured, sum(len(update.payload) for update in updates.values())


def sampled(setup: Setup, number: int) -> list[int]:
    """The devices of a round, in rising order; how much one holds does not matter."""
    drawn = generator(setup.seed, number, "sampling").choice(setup.devices, setup.sampled, replace=False)
    return sorted(int(index) for index in drawn)


def _decided(setup: Setup, state: State, weights: Spreads, devices: Sequence[int]) -> Rates:
    try:
        return decide(setup, state.past, state.loss, weights, devices)
    except BudgetError as error:
        raise SimulationError(f"round {state.number + 1}: {error}") from error


def _residual(state: State, order: Order) -> Tensors:
    """What counts of what the device's last update left out."""
    kept = state.residuals.get(order.device)
    return aged(kept.tensors, order.number - kept.number) if kept else {}


def _parts(precisions: Sequence[Precision]) -> list[Sequence[Precision]]:
    """As many at a time as one payload carries."""
    return [precisions[start : start + MAX_PROFILES] for start in range(0, len(precisions), MAX_PROFILES)]


def _loss(updates: Iterable[Update], before: Sequence[float]) -> float:
    """Mean over the pictures of a round; that of the round before where nobody delivered."""
    pairs = [(update.loss, update.samples) for update in updates]
    samples = sum(count for _, count in pairs)
    return sum(loss * count for loss, count in pairs) / samples if samples else before[-1] if before else 0.0
