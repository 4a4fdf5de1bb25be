"""scripts/simulate: deals, rounds, checkpoints and whole runs on a few hundred digits."""

import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import simulate
from rich.console import Console
from simulation import Outcome, Setup, SimulationError, final_model, forget, rounds, run
from simulation.checkpoint import Residual, Shelf, State
from simulation.crew import Crew
from simulation.downlink import Chain, lowered
from simulation.partition import MIN_SHARD, gather, load_both, parts_of, with_minimum
from simulation.report import bits_per_parameter, plot, table
from simulation.tiers import TIERS, Tier

from aggregator.model import GlobalModel
from edge.data import DataError
from edge.files import only_one
from protocol import networks
from protocol.codec.payload import Content, Header, encode
from protocol.messages import Step
from protocol.precision import Precision, parse_several

SPEC = "cnn4:width=0.25,input=1x28x28,classes=10"
ROUNDS = 10
TINY = Setup(
    SPEC,
    precision="W4A8",
    data="digits",
    pictures=300,
    partition="dirichlet:1",
    devices=3,
    sampled=2,
    rounds=ROUNDS,
    batch=16,
    recipe="ef+sign",
    downlink="delta:eden:4",
    evaluate=("W4A8", "W2A8", "W4A32", "fp32"),
    last=2,
    calibration_pictures=32,
)
"""Everything that a checkpoint must carry on: residuals of two in three devices, what each device holds, learned steps,
judged rounds."""

MANY = replace(
    TINY, method="mqat", precision="W8A8+W1A8", recipe="fp32", downlink="fp32", evaluate=("W8A8", "W1A8"), rounds=2
)

pytestmark = pytest.mark.long


# --- deals ---


def test_iid_deals_every_picture_once_in_equal_parts() -> None:
    parts = parts_of("iid", np.zeros(103, dtype=np.int64), 10, np.random.default_rng(0))
    assert sorted(np.concatenate(parts)) == list(range(103))
    assert Counter(map(len, parts)) == {10: 7, 11: 3}


def test_shares_of_a_class_have_the_variance_of_dirichlet() -> None:
    """Var = (1/K)(1 − 1/K)/(Kα + 1) for K devices; the minimum shard is far away with this many pictures."""
    devices, alpha, classes, each = 10, 0.3, 300, 400
    labels_N = np.repeat(np.arange(classes), each)
    parts = parts_of(f"dirichlet:{alpha}", labels_N, devices, np.random.default_rng(1))
    assert sorted(np.concatenate(parts)) == list(range(classes * each))
    share_DC = np.array([np.bincount(labels_N[part], minlength=classes) for part in parts]) / each
    expected = (1 / devices) * (1 - 1 / devices) / (devices * alpha + 1)
    assert share_DC.var() == pytest.approx(expected, rel=0.1)


def test_no_device_goes_empty() -> None:
    labels_N = np.random.default_rng(0).integers(0, 10, 600)
    parts = parts_of("dirichlet:0.01", labels_N, 50, np.random.default_rng(2))
    assert min(map(len, parts)) == MIN_SHARD
    assert sorted(np.concatenate(parts)) == list(range(600))


def test_short_parts_take_from_the_fullest() -> None:
    parts = (np.array([0, 1, 2, 3, 4]), np.array([], dtype=np.int64), np.array([5, 6, 7]))
    filled = with_minimum(parts, 2, np.random.default_rng(0))
    assert [len(part) for part in filled] == [3, 2, 3]
    assert set(filled[1]) < {0, 1, 2, 3, 4}
    assert sorted(np.concatenate(filled)) == list(range(8))


@pytest.mark.parametrize("partition", ["dirichlet", "dirichlet:0", "dirichlet:nan", "dirichlet:x", "even"])
def test_a_wrong_partition_is_named(partition: str) -> None:
    with pytest.raises(SimulationError, match=f"partition '{partition}': expected iid, or dirichlet"):
        parts_of(partition, np.zeros(9, dtype=np.int64), 3, np.random.default_rng(0))


def test_a_deal_follows_from_the_seed() -> None:
    one, same, other = gather(TINY), gather(replace(TINY, method="fp32")), gather(replace(TINY, seed=1))
    assert all((a == b).all() for a, b in zip(one.parts, same.parts, strict=True))
    assert len(np.concatenate(one.parts)) == len(set(np.concatenate(one.parts))) == TINY.pictures
    assert set(np.concatenate(one.parts)) != set(np.concatenate(other.parts))
    assert (one.test.pictures_NCHW == other.test.pictures_NCHW).all()


def test_no_digit_is_both_trained_on_and_judged_by() -> None:
    train, test = load_both("digits", (1, 8, 8))
    assert len(train) + len(test) == 1797
    assert 0.19 < len(test) / 1797 <= 0.2
    assert {p.tobytes() for p in train.pictures_NCHW}.isdisjoint(p.tobytes() for p in test.pictures_NCHW)


def test_published_test_pictures_are_used(tmp_path: Path) -> None:
    write_idx(tmp_path, "train", np.full((6, 5, 5), 1, dtype=np.uint8), [0, 1, 2, 0, 1, 2])
    write_idx(tmp_path, "t10k", np.full((3, 5, 5), 9, dtype=np.uint8), [2, 1, 0])
    train, test = load_both(str(tmp_path), (1, 5, 5))
    assert (len(train), train.pictures_NCHW.max()) == (6, 1)
    assert (len(test), test.pictures_NCHW.min(), test.labels_N.tolist()) == (3, 9, [2, 1, 0])
    write_idx(tmp_path, "t10k", np.full((3, 5, 5), 9, dtype=np.uint8), [2, 1, 3])
    load_both.cache_clear()
    with pytest.raises(DataError, match="labels below 3"):
        load_both(str(tmp_path), (1, 5, 5))


def write_idx(folder: Path, part: str, pictures_NHW: np.ndarray, labels: list[int]) -> None:
    shape = b"".join(size.to_bytes(4, "big") for size in pictures_NHW.shape)
    (folder / f"{part}-images-idx3-ubyte").write_bytes(bytes((0, 0, 8, 3)) + shape + pictures_NHW.tobytes())
    labelled = len(labels).to_bytes(4, "big") + bytes(labels)
    (folder / f"{part}-labels-idx1-ubyte").write_bytes(bytes((0, 0, 8, 1)) + labelled)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"data": "no-such-folder"}, "data no-such-folder: .*found nothing"),
        ({"devices": 301, "sampled": 1}, "pictures 300 for 301 devices"),
        ({"pictures": 5000}, "at most the 14"),
        ({"network": SPEC.replace("classes=10", "classes=9")}, "10 classes, expected 9"),
    ],
)
def test_unusable_pictures_are_named(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(SimulationError, match=complaint):
        gather(replace(TINY, **changes))


# --- rounds ---


def test_sampling_is_drawn_by_the_seed_and_reaches_everybody() -> None:
    setup = replace(TIERS[Tier.F2], rounds=60)
    drawn = [rounds.sampled(setup, number) for number in range(1, 61)]
    assert drawn == [rounds.sampled(setup, number) for number in range(1, 61)]
    assert all(devices == sorted(set(devices)) and len(devices) == 10 for devices in drawn)
    assert set().union(*drawn) == set(range(50))
    assert drawn != [rounds.sampled(replace(setup, seed=1), number) for number in range(1, 61)]


@pytest.fixture(scope="module")
def crew() -> Iterator[Crew]:
    with Crew(1, "cpu") as crew:
        yield crew


def test_a_diverging_run_names_round_and_device(crew: Crew) -> None:
    """Without normalisation, weights of 10¹² overflow float32 in the fourth layer."""
    wild = replace(TINY, network="fedzip-cnn:width=0.25,input=1x28x28,classes=10", precision="fp32")
    model = rounds.start(wild).model
    model = replace(model, shared={name: values * np.float32(1e12) for name, values in model.shared.items()})
    with pytest.raises(SimulationError, match=r"round 3, device \d: loss (nan|inf)"):
        rounds.learn(wild, State(model, loss=(2.0, 9.0)), crew, lambda: None)


def test_a_round_moves_the_model_and_keeps_what_the_codec_dropped(crew: Crew) -> None:
    ticks: list[int] = []
    before = rounds.start(TINY)
    after = rounds.learn(TINY, before, crew, lambda: ticks.append(1))
    assert (after.number, len(ticks)) == (1, 2)
    assert sorted(after.residuals) == rounds.sampled(TINY, 1)
    assert all(residual.number == 1 for residual in after.residuals.values())
    assert not (after.model.shared["conv2.weight"] == before.model.shared["conv2.weight"]).any()
    again = rounds.learn(TINY, before, crew, lambda: None)
    assert again.to_bytes() == after.to_bytes()


# --- checkpoints ---


def example_state() -> State:
    model = GlobalModel.fresh(SPEC, 3).with_profile(Precision(4, 8))
    residual = Residual(2, {"conv1.weight": np.float32([[[[0.1]]]]), "fc.weight": np.float32([[1 / 3]])})
    return State(model, {7: residual}, {"W4A8": (0.1, 1 / 3)}, (2.3, 1.1), (10, 11), (20, 21), 5, 1.25)


def test_a_checkpoint_brings_every_bit_back() -> None:
    chain = Chain(b"state", (Step(b"", b"\1" * 32, 5), Step(b"\2" * 32, b"\3" * 32, 6)), {4: b"\2" * 32})
    state = replace(example_state(), chain=chain, steps=(0.1, 1 / 3))
    back = State.from_bytes(state.to_bytes())
    assert (back.chain, back.steps) == (chain, (0.1, 1 / 3))
    assert back.to_bytes() == state.to_bytes()
    assert (back.loss, back.accuracy, back.up_bytes, back.wall_s) == (
        (2.3, 1.1),
        {"W4A8": (0.1, 1 / 3)},
        (10, 11),
        1.25,
    )
    assert back.residuals[7].number == 2
    assert back.residuals[7].tensors["fc.weight"] == np.float32(1 / 3)
    assert back.model.to_bytes() == state.model.to_bytes()


def test_damage_is_noticed() -> None:
    whole = State(GlobalModel.fresh(SPEC, 0)).to_bytes()
    for length in range(0, len(whole), 997):
        with pytest.raises(SimulationError, match="cannot be read"):
            State.from_bytes(whole[:length])
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    with pytest.raises(SimulationError, match="cannot be read"):
        State.from_bytes(bytes(flipped))


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, TINY)
    shelf.keep(example_state())
    kept = shelf.checkpoint.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(SimulationError, match=r"\.checkpoint: \d+ bytes cannot be written: .*what was there stays"):
            shelf.keep(replace(example_state(), wall_s=2.0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert shelf.checkpoint.read_bytes() == kept
    assert list(tmp_path.iterdir()) == [shelf.checkpoint]


# --- whole runs ---


def told(outcome: Outcome) -> dict[str, object]:
    """An outcome without what may differ between equal runs."""
    return {name: value for name, value in outcome.to_json().items() if name not in {"wall_s", "machine"}}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    run([TINY, MANY], folder, 1, "cpu", show=False)
    return folder


def test_results_do_not_depend_on_the_workers(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Shelf(tmp_path, MANY).checkpoint.write_bytes(b"damaged")
    tiny, many = run([TINY, MANY], tmp_path, 2, "cpu", show=False)
    assert [told(tiny), told(many)] == [told(o) for o in run([TINY, MANY], undisturbed, 1, "cpu", show=False)]
    for setup in (TINY, MANY):
        assert Shelf(tmp_path, setup).model.read_bytes() == Shelf(undisturbed, setup).model.read_bytes()
    assert "set aside as" in capsys.readouterr().err
    assert Shelf(tmp_path, MANY).checkpoint.with_suffix(".checkpoint.damaged").read_bytes() == b"damaged"


def test_an_outcome_says_what_was_judged(undisturbed: Path) -> None:
    tiny, many = run([TINY, MANY], undisturbed, 1, "cpu", show=False)
    assert tiny.arithmetic == {"W4A8": "integer", "W2A8": "integer", "W4A32": "float", "fp32": "float"}
    assert {name: len(values) for name, values in tiny.accuracy.items()} == dict.fromkeys(TINY.evaluate, TINY.last)
    assert len(tiny.loss) == len(tiny.up_bytes) == len(tiny.down_bytes) == ROUNDS
    assert tiny.loss[-1] < tiny.loss[0]
    assert many.mean("W8A8") > 0.2, "ten classes, two rounds"
    assert {"cpu", "commit", "processor", "workers"} <= tiny.machine.keys()
    assert set(TINY.evaluate) <= final_model(TINY, undisturbed).profiles.keys()
    assert set(final_model(MANY, undisturbed).profiles) == {"W8A8", "W1A8"}


def test_bytes_are_those_of_the_payloads(undisturbed: Path) -> None:
    """At fp32 a payload is as long whatever it holds."""
    (many,) = run([MANY], undisturbed, 1, "cpu", show=False)
    network, precisions = networks.parse(SPEC), parse_several(MANY.precision)
    zeros = {spec.name: np.zeros(spec.shape, dtype=np.float32) for spec in network.tensors(*precisions)}

    def length(content: Content, pictures: int) -> int:
        header = Header(SPEC, "fp32", MANY.precision, content, pictures)
        return len(encode(header, zeros, np.random.default_rng(0)))

    assert many.up_bytes == [2 * length(Content.DELTA, 0)] * 2
    assert many.down_bytes == [2 * length(Content.WEIGHTS, 0)] * 2
    assert many.calibration_bytes == 2 * length(Content.PROFILES, MANY.calibration_pictures)


def test_each_device_fetches_the_steps_it_missed() -> None:
    chain, sizes = Chain(), []
    for number in range(1, 5):
        model = GlobalModel.fresh(SPEC, number)
        devices = [0, 1] if number in {1, 4} else [0]
        base, chain, fetched = lowered(TINY, TINY.downlink, model, chain, number, devices)
        sizes.append(chain.steps[-1].payload_bytes)
        missed = sum(sizes[1:]) if number == 4 else sizes[0] if number == 1 else 0
        assert fetched.total_bytes == min(missed, len(base)) + sizes[-1]
        assert fetched.common_bytes == sizes[-1]
        assert base == chain.state
    assert sizes[0] > sizes[1]


def test_a_finished_run_is_not_run_again_until_forgotten(undisturbed: Path, tmp_path: Path) -> None:
    shelf, kept = Shelf(tmp_path, TINY), Shelf(undisturbed, TINY)
    shelf.outcome.write_bytes(kept.outcome.read_bytes())
    (outcome,) = run([TINY], tmp_path, 1, "cpu", show=False)
    assert told(outcome) == told(run([TINY], undisturbed, 1, "cpu", show=False)[0])
    with pytest.raises(SimulationError, match="expected the model of a finished run"):
        final_model(TINY, tmp_path)
    forget([TINY], tmp_path)
    assert shelf.finished() is None


def test_two_processes_do_not_play_one_run(tmp_path: Path) -> None:
    with (
        only_one(Shelf(tmp_path, TINY).lock),
        pytest.raises(SimulationError, match=f"run {TINY.digest}: another process"),
    ):
        run([TINY], tmp_path, 1, "cpu", show=False)


def command_of(setup: Setup, folder: Path) -> list[str]:
    program = Path(__file__).parent.parent.parent / "scripts" / "lib" / "simulate.py"
    options = [option(name, getattr(setup, name)) for name in Setup.__dataclass_fields__ if name != "seed"]
    options += [f"--seeds={setup.seed}", f"--folder={folder}", "--workers=1", "--device=cpu"]
    return [sys.executable, str(program), *options]


def option(name: str, value: object) -> str:
    spelled = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{spelled}" if value else f"--no-{spelled}"
    return f"--{spelled}={','.join(value) if isinstance(value, tuple) else value}"


def started(setup: Setup, folder: Path) -> subprocess.Popen[str]:
    """The command under way, until its first round here is kept."""
    checkpoint = Shelf(folder, setup).checkpoint
    before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
    # A shell lets its background jobs ignore the signal, and so would the command when the suite is one of them.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    running = subprocess.Popen(command_of(setup, folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, handler)
    give_up_at = time.monotonic() + 60
    while not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before:
        assert time.monotonic() < give_up_at
        assert running.poll() is None, running.communicate()
        time.sleep(0.005)
    return running


def test_interrupted_and_killed_it_gives_the_bits_of_an_undisturbed_run(undisturbed: Path, tmp_path: Path) -> None:
    running = started(TINY, tmp_path)
    children = psutil.Process(running.pid).children(recursive=True)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=30)
    assert running.returncode == 130, errors
    assert f"run {TINY.digest} is kept as after round" in errors
    assert "the same command goes on" in errors
    assert "Traceback" not in errors

    running = started(TINY, tmp_path)
    children += psutil.Process(running.pid).children(recursive=True)
    os.kill(running.pid, signal.SIGKILL)
    running.communicate(timeout=30)
    assert len(children) >= 2  # a worker in each
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive, "workers end with the process that started them"

    (outcome,) = run([TINY], tmp_path, 1, "cpu", show=False)
    assert told(outcome) == told(run([TINY], undisturbed, 1, "cpu", show=False)[0])
    assert Shelf(tmp_path, TINY).model.read_bytes() == Shelf(undisturbed, TINY).model.read_bytes()
    assert not Shelf(tmp_path, TINY).checkpoint.exists()


# --- the command ---


def test_every_tier_is_a_setup() -> None:
    for tier, setup in TIERS.items():
        network = networks.parse(setup.network)
        assert setup.evaluate == ("fp32",), tier
        assert network.input_shape[0] == 1, "Fashion-MNIST is grey"
    assert networks.parse(TIERS[Tier.Z].network).parameters == 1_199_882
    assert networks.parse(TIERS[Tier.SMOKE].network).parameters < networks.parse(TIERS[Tier.R].network).parameters / 50


def test_options_replace_the_tier_and_what_follows_from_it() -> None:
    none = dict.fromkeys(Setup.__dataclass_fields__)
    given = {**none, "precision": "W8A8+W4A8", "method": "mqat", "rounds": 3, "devices": 4}
    first, second = simulate.setups_of(TIERS[Tier.F1], "0,7", given)
    assert (first.evaluate, first.last, first.sampled) == (("W8A8", "W4A8"), 3, 4)
    assert (first.network, first.pictures) == (TIERS[Tier.F1].network, 20_000)
    assert second == replace(first, seed=7)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"precision": "W9A9"}, "W9A9"),
        ({"method": "magic"}, "method 'magic'"),
        ({"network": "cnn5:width=1"}, "cnn5"),
        ({"recipe": "zip"}, "recipe 'zip'"),
        ({"rounds": 0}, "rounds = 0"),
        ({"vote": None, "recipe": "eden:1"}, "vote = True"),
        ({"evaluate": "fp32,fp32"}, "each once"),
        ({"devices": 3, "sampled": 4}, "sampled = 4"),
        ({"seeds": "0,x"}, "seeds 0,x"),
        ({"device": "abacus"}, "device 'abacus'"),
        ({"folder": Path("/dev/null/x")}, "/dev/null/x"),
    ],
)
def test_a_wrong_option_is_named(
    options: dict[str, str], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spelled = [
        f"--{name}={value}" if value is not None else f"--{name}"
        for name, value in {"folder": tmp_path, **options}.items()
    ]
    monkeypatch.setattr(sys, "argv", ["simulate", *spelled])
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit, match=complaint):
            simulate.main()
    finally:
        signal.signal(signal.SIGTERM, handler)


# --- tables and curves ---


def made_up(seed: int, *accuracy: float) -> Outcome:
    setup = replace(TINY, evaluate=("fp32",), seed=seed)
    return Outcome(setup, {"fp32": accuracy}, {"fp32": "float"}, [2.0, 1.5], [100, 300], [40], 7, 12.5, {})


def test_the_table_has_means_and_ranges_over_seeds() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table([made_up(0, 0.5, 0.7), made_up(1, 0.8, 0.8)], "smoke run"))
    text = console.export_text()
    assert text.startswith("smoke run")
    row = next(line.split() for line in text.splitlines() if "accuracy fp32" in line)
    assert row[2:5] == ["70.00", "60.00", "80.00"]


def test_bits_per_parameter_by_hand() -> None:
    assert bits_per_parameter(TINY, [100, 300]) == 8 * 200 / 2 / networks.parse(SPEC).parameters


def test_a_curve_is_drawn_where_there_is_one() -> None:
    outcomes = [made_up(0, 0.5, 0.7), made_up(1, 0.8, 0.8)]
    assert b"<svg" in plot(outcomes, "x", "svg")
    assert plot(outcomes, "x", "png").startswith(b"\x89PNG")
    with pytest.raises(SimulationError, match="plot 'gif'"):
        plot(outcomes, "x", "gif")
    with pytest.raises(SimulationError, match="expected --judged 2"):
        plot([replace(made_up(0, 0.5), setup=replace(TINY, last=1))], "x", "svg")


def test_outcomes_survive_json(undisturbed: Path) -> None:
    document = json.loads(Shelf(undisturbed, TINY).outcome.read_bytes())
    assert Outcome.from_json(document).to_json() == document | {
        "setup": {**document["setup"], "evaluate": TINY.evaluate}
    }
