"""scripts/reproduce: figures by hand from made-up outcomes, what is kept, and a short study end to end."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from reproduce import fedaq, latents, plots, post_training, report
from reproduce.accounting import Charged, charged
from reproduce.fbq import Fbq
from reproduce.fedaq import FedAq
from reproduce.fedzip import FAITHFUL, FLOAT, Fedzip, Ratio, Saved, ToTarget
from reproduce.figures import Bound, Examined, Gap, LargestFall, LinkBits, Range, at_least, at_most, evaluate
from reproduce.oqfl import Oqfl
from reproduce.qrfl import NAIVE, Qrfl
from reproduce.results import FINAL, Cell, Kept, Results, keep, load
from reproduce.run import CNN4, Run, quick, tier_setup
from reproduce.study import Study
from reproduce.tables import matrix
from simulation.setup import Outcome

from aggregator.model import GlobalModel
from protocol.architecture import Role
from protocol.precision import FP32, Precision

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
STUDIES: list[type[Study]] = [Fbq, Qrfl, Oqfl, Fedzip, FedAq]


def made(
    label: str, seed: int, *accuracies: float, up_bytes: Sequence[int] = (0, 0), **examined: object
) -> tuple[Run, Kept]:
    setup = replace(tier_setup("f1", seed, CNN4), rounds=2, last=2, sampled=10)
    return Run("f1", label, setup), Kept(
        Outcome(setup, {"fp32": list(accuracies)}, {"fp32": "float"}, [1.0, 0.5], list(up_bytes), [0, 0], 0, 60.0, {}),
        examined,
    )


def results(*runs: tuple[Run, Kept]) -> Results:
    return Results([run for run, _ in runs], {run.name: kept for run, kept in runs})


def cell(label: str) -> Cell:
    return Cell("f1", label, "fp32")


def test_a_gap_is_the_mean_over_the_seeds_that_both_runs_have() -> None:
    found = results(
        made("plain", 0, 0.80, 0.90),
        made("plain", 1, 0.86, 0.86),
        made("plain", 2, 0.99, 0.99),
        made("ours", 0, 0.84, 0.85),
        made("ours", 1, 0.86, 0.88),
    )
    figure = Gap("gap", cell("ours"), cell("plain"), at_least(0.3), "hand-made").figure(found)
    assert figure is not None
    # seed 0: 84.5 − 85.0 = −0.5; seed 1: 87.0 − 86.0 = 1.0; seed 2 has no partner
    assert (figure.value, figure.spread, figure.of) == (0.25, [-0.5, 1.0], 2)
    assert (figure.limit, figure.met) == (">= 0.3", False)
    assert figure.note == "85.75 % against 85.50 %; hand-made"


def test_a_cell_may_ask_for_the_last_round_alone_or_for_what_was_examined() -> None:
    found = results(made("plain", 0, 0.80, 0.90, accuracy={f"{NAIVE}W1A32": 0.5}))
    assert found.accuracies(cell("plain")) == {0: pytest.approx(85.0)}
    assert found.accuracies(Cell("f1", "plain", f"{FINAL}fp32")) == {0: pytest.approx(90.0)}
    assert found.accuracies(Cell("f1", "plain", f"{NAIVE}W1A32")) == {0: pytest.approx(50.0)}
    assert found.accuracies(Cell("f1", "plain", "W1A32")) == {}


def test_the_largest_fall_is_between_any_two_points() -> None:
    curve = [made("a", 0, 0.5, 0.5), made("b", 0, 0.9, 0.9), made("c", 0, 0.897, 0.897), made("d", 0, 0.894, 0.894)]
    spec = LargestFall("fall", [cell(label) for label in "abcd"], at_most(0.5))
    figure = spec.figure(results(*curve))
    assert figure is not None
    assert (figure.value, figure.met) == (0.6, False)
    rising = spec.figure(results(*curve[:2], made("c", 0, 0.95, 0.95), made("d", 0, 0.95, 0.95)))
    assert rising is not None
    assert (rising.value, rising.met) == (0.0, True)
    assert spec.figure(results(*curve[:3])) is None


def test_a_range_needs_two_seeds() -> None:
    spec = Range("spread", cell("a"), at_most(1.5))
    assert spec.figure(results(made("a", 0, 0.8, 0.8))) is None
    figure = spec.figure(results(made("a", 0, 0.8, 0.8), made("a", 1, 0.816, 0.816)))
    assert figure is not None
    assert (figure.value, figure.met) == (1.6, False)


def test_the_worst_seed_decides_what_was_examined() -> None:
    found = results(made("a", 0, 0.8, 0.8, levels=3), made("a", 1, 0.8, 0.8, levels=5), made("a", 2, 0.8, 0.8))
    figure = Examined("levels", "f1", "a", lambda e: e.get("levels"), "levels", max, at_most(4)).figure(found)
    assert figure is not None
    assert (figure.value, figure.met, figure.of) == (5, False, 2)


def test_bits_up_count_every_byte_of_every_update() -> None:
    run, kept = made("a", 0, 0.8, 0.8, up_bytes=(98_682 * 10, 98_682 * 30))
    figure = LinkBits("up", "f1", "a").figure(results((run, kept)))
    assert figure is not None
    # 8 bits · 40 · 98,682 bytes over 2 rounds · 10 devices · 98,682 parameters
    assert figure.value == 16.0


def test_a_missing_run_is_reported_and_its_figures_are_left_out() -> None:
    run, kept = made("plain", 0, 0.8, 0.8)
    absent, _ = made("ours", 0, 0.8, 0.8)
    found = Results([run, absent], {run.name: kept})
    figures, omitted = evaluate([Gap("gap", cell("ours"), cell("plain"))], found, limits=True)
    assert (figures, omitted, found.missing) == ([], ["gap"], [absent])


def test_short_runs_are_named_so_and_held_to_no_limit() -> None:
    found = results(made("plain", 0, 0.8, 0.8), made("ours", 0, 0.1, 0.1))
    (figure,), _ = evaluate([Gap("gap", cell("ours"), cell("plain"), at_least(0))], found, limits=False)
    assert (figure.name, figure.limit, figure.met) == ("quick.gap", None, None)


@pytest.mark.parametrize(
    ("bound", "value", "met"),
    [
        (at_least(-0.3), -0.3, True),
        (at_least(-0.3), -0.30004, True),
        (at_least(-0.3), -0.3001, False),
        (at_most(1.1), 1.1001, False),
        (Bound("==", 100), 99.99, False),
    ],
)
def test_a_bound_is_kept_or_not(bound: Bound, value: float, met: bool) -> None:
    assert bound.met(value) is met


def test_what_is_kept_comes_back_and_another_setup_is_not_taken_for_it(tmp_path: Path) -> None:
    run, kept = made("a b", 0, 0.8, 0.9, kurtosis={"conv2": 1.9})
    assert load(tmp_path, run) is None
    keep(tmp_path, run, kept)
    assert (tmp_path / "f1-a-b-s0.json").is_file()
    assert load(tmp_path, run) == kept
    assert load(tmp_path, replace(run, setup=replace(run.setup, rounds=3))) is None
    (tmp_path / "f1-a-b-s0.json").write_text('{"outcome": 7}')
    with pytest.raises(ValueError, match=r"f1-a-b-s0\.json.*remove it to run again"):
        load(tmp_path, run)


def test_kurtosis_is_that_of_the_laws() -> None:
    rng = np.random.default_rng(0)
    assert latents.kurtosis(rng.uniform(-1, 1, 100_000).astype(np.float32)) == pytest.approx(1.8, abs=0.02)
    assert latents.kurtosis(rng.normal(3, 2, 100_000).astype(np.float32)) == pytest.approx(3.0, abs=0.1)
    assert latents.kurtosis(np.float32([-1, 1])) == pytest.approx(1.0)


def test_a_model_has_as_many_levels_as_its_width_allows() -> None:
    model = GlobalModel.fresh(CNN4, 0)
    for bits in (1, 2, 3):
        assert latents.most_levels(model, Precision(bits, 32)) <= 2**bits
    counts = latents.level_counts(model, Precision(1, 32))
    assert set(counts["conv4"]) == {"-1", "1"}
    assert sum(counts["conv4"].values()) == 128 * 64 * 9
    assert sum(latents.level_counts(model, FP32)["conv4"].values()) == 128 * 64 * 9


def test_steps_change_as_told_and_pinned_layers_do_not() -> None:
    precision, name = Precision(4, 32), f"conv2.{Role.WEIGHT_LOG_STEP}"
    model = GlobalModel.fresh(CNN4, 0).with_profile(precision)
    before = model.profiles[str(precision)]
    scaled = latents.with_steps(model, precision, latents.times(1.25)).profiles[str(precision)]
    assert np.exp(scaled[name]) == pytest.approx(1.25 * np.exp(before[name]), rel=1e-5)
    assert (scaled[f"conv1.{Role.WEIGHT_LOG_STEP}"] == before[f"conv1.{Role.WEIGHT_LOG_STEP}"]).all()
    powers = np.log2(np.exp(latents.with_steps(model, precision, latents.power_of_two).profiles[str(precision)][name]))
    assert powers == pytest.approx(np.rint(powers), abs=1e-4)
    assert np.abs(powers - before[name] / np.log(2)).max() <= 0.5 + 1e-4


def test_a_search_starts_from_full_precision_alone() -> None:
    model = GlobalModel.fresh(CNN4, 0).with_profile(FP32).with_profile(Precision(8, 8))
    assert set(post_training.searched(model, Precision(2, 8)).profiles) == {"fp32", "W2A8"}


@pytest.mark.parametrize("study", STUDIES)
def test_the_runs_of_a_study_have_names_of_their_own_and_make_sense_when_short(study: type[Study]) -> None:
    runs = study().planned()
    assert len({run.name for run in runs}) == len(runs)
    assert len({(run.setup, run.tier) for run in runs}) == len(runs)
    for run in runs:
        assert run.estimate_s > 60
        assert quick(run).setup.data == "digits"


@pytest.mark.parametrize("study", STUDIES)
def test_the_figures_of_a_study_have_names_of_their_own_and_ask_for_planned_runs(study: type[Study]) -> None:
    names = [spec.name for spec in study().specs()]
    assert len(set(names)) == len(names)
    labels = {(run.tier, run.label) for run in study().planned()}
    for spec in study().specs():
        if isinstance(spec, Gap):
            assert {(spec.cell.tier, spec.cell.label), (spec.against.tier, spec.against.label)} <= labels


def test_limits_are_those_of_the_table() -> None:
    bounds = {spec.name: str(spec.bound) for study in STUDIES for spec in study().specs() if isinstance(spec, Gap)}
    assert [bounds[f"f1.W{bits}A32.gap"] for bits in (8, 4, 3, 2, 1)] == [
        ">= -0.3",
        ">= -0.3",
        ">= -0.5",
        ">= -1",
        ">= -1.5",
    ]
    assert bounds["f2.W1A32.gap"] == ">= -2"
    assert (bounds["f1.mqat.W1A32.gap"], bounds["f1.mqat.W1A8.gap"], bounds["f2.best.W1A8.gap"]) == (
        ">= -2",
        ">= -2.3",
        ">= -2.8",
    )
    assert (bounds["f1.mobile.W4A4.gap"], bounds["f2.cnn4.W2A2.gap"]) == (">= -0.3", ">= -3.5")


def test_plots_are_svg_documents_with_their_text_in_them() -> None:
    lines = [plots.Series("ours", {"1": [80.0, 82.0], "2": [85.0]}), plots.Series("rival", {"2": [84.0]}, dashed=True)]
    drawn = [
        plots.curves(lines, ["1", "2", "32"], "bits", "accuracy, %"),
        plots.bars(lines, ["1", "2"], "kurtosis", 1.8),
        plots.histograms({"conv2": {"W1": {-1.0: 5, 1.0: 7}, "fp32": {}}}, "level"),
    ]
    for svg, text in zip(drawn, ("rival", "kurtosis", "conv2"), strict=True):
        ET.fromstring(svg)
        assert f">{text}<" in svg
    assert drawn[0] == plots.curves(lines, ["1", "2", "32"], "bits", "accuracy, %")


def test_a_matrix_shows_what_there_is() -> None:
    found = results(made("plain", 0, 0.8, 0.8), made("ours", 0, 0.9, 0.9))
    table = matrix("T", found, "f1", ["ours", "other"], {"32": "fp32", "1": "W1A32"}, cell("plain"))
    assert table.rows == [["ours", "90.00 (+10.00)", "–"]]
    assert "| ours | 90.00 (+10.00) | – |" in table.markdown()


def test_a_report_of_nothing_says_what_is_missing(tmp_path: Path) -> None:
    runs = Oqfl().planned(["f1"], [0])
    made = report.write(Oqfl(), Results(runs, {}), tmp_path / "oqfl.json", quick=False)
    assert [figure.name for figure in made.figures] == ["resnet18.W4A4.bops"]
    text = (tmp_path / "oqfl.md").read_text()
    assert f"not run yet: {runs[0].name}" in text
    assert "f1.cnn4.W4A4.gap" in text


def short(folder: Path, study: str, tier: str, only: str, *more: str, status: int = 0) -> str:
    """Run the short form of some runs in a process of its own; what it printed."""
    command = [sys.executable, "-m", "reproduce", study, "--quick", "--tier", tier, "--seeds", "0", "--workers", "2"]
    command += ["--only", only, "--folder", str(folder), *more]
    paths = os.pathsep.join(map(str, (ROOT / "scripts" / "lib", ROOT)))
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "COLUMNS": "160"}
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def test_a_short_study_runs_to_its_report_and_is_not_run_again(tmp_path: Path) -> None:
    run = partial(short, tmp_path, "fbq", "f1", "fp32,W1A32,fbq W2A32")
    assert "--only 'W9A32': expected a label or name" in run("--only", "W9A32", status=2)
    assert not list(tmp_path.iterdir())
    assert "W1A32" in run()
    made = tmp_path / "quick"
    figures = {figure["name"]: figure for figure in json.loads((made / "fbq.json").read_text())["figures"]}
    assert figures["quick.f1.W1A32.levels"]["value"] == 2
    assert {"quick.f1.W1A32.gap", "quick.f1.fbq.W2A32.gap"} <= figures.keys()
    assert {path.stem for path in (made / "runs" / "fbq").iterdir()} == {
        "f1-fp32-s0",
        "f1-W1A32-s0",
        "f1-fbq-W2A32-s0",
    }
    for name in ("accuracy", "weights"):
        ET.parse(made / "fbq" / f"{name}.svg")
    before = (made / "fbq.md").read_text()
    for path in tmp_path.glob("*.model"):
        path.unlink()
    assert "not run yet: f1-W2A32-s0" in run("--report")
    assert (made / "fbq.md").read_text() == before


# --- fedzip ---


def test_the_published_charges_by_hand() -> None:
    """Seven zeros, two of one cluster at 1 and 2, one of another at 9."""
    values = np.array([0, 5, 5, 0, 0, 0, 0, 0, 0, -5], dtype=np.float32)
    found = charged([values.reshape(2, 5)])
    # words of 2 bits for the rarest, 1 for the others; 27 bits for three positions; distances 2, 1 and 10
    assert found == Charged(huffman=1 * 2 + 2 + 7, addresses=3 * 27, differences=2 + 1 + 4, fp32=320)
    assert charged([values, values]).huffman == 2 * found.huffman
    assert charged([np.zeros(5, dtype=np.float32)]) == Charged(huffman=5, fp32=160)
    with pytest.raises(ValueError, match="4 different values: expected at most 3"):
        charged([np.arange(4, dtype=np.float32)])


def test_ratios_are_those_of_real_bytes_and_saved_ones_of_both_ways() -> None:
    found = results(
        made("fp32", 0, 0.9, 0.9, up_bytes=(1000, 1000)),
        made("ours", 0, 0.8, 0.9, up_bytes=(20, 30)),
        made("fp32", 1, 0.9, 0.9, up_bytes=(1000, 1000)),
        made("ours", 1, 0.8, 0.8, up_bytes=(25, 25)),
    )
    ratio = Ratio("r", "f1", "ours", at_least(40.0)).figure(found)
    assert ratio is not None
    assert (ratio.value, ratio.met, ratio.of) == (40.0, True, 2)
    share = Ratio("r", "f1", "ours", inverse=True).figure(found)
    assert share is not None
    assert share.value == 0.025
    saved = Saved("s", "f1", "ours", at_least(97.0), down=True).figure(found)
    assert saved is not None
    assert saved.value == 97.5
    # seed 0 gets there in its second round, after 50 bytes, FedAvg in its first, after 1000; seed 1 never does
    target = ToTarget("t", "f1", "ours", at_least(10.0)).figure(found)
    assert target is not None
    assert (target.value, target.spread) == (10.0, [0.0, 20.0])


def test_the_study_of_fedzip_counts_twice_and_draws(tmp_path: Path) -> None:
    short(tmp_path, "fedzip", "z", f"{FLOAT},{FAITHFUL},best")
    made = tmp_path / "quick"
    figures = {
        figure["name"].removeprefix("quick."): figure["value"]
        for figure in json.loads((made / "fedzip.json").read_text())["figures"]
    }
    assert figures["z.fedzip.charged.differences"] > figures["z.fedzip.decodable.golomb"] > 10
    assert figures["z.fedzip.charged.huffman"] < 32
    assert figures["z.best.ratio"] > 100
    assert 0 < figures["z.best.saved_all"] < figures["z.best.saved_up"]
    for name in ("pareto-z", "bytes-z"):
        ET.parse(made / "fedzip" / f"{name}.svg")
    assert "| differences |" in (made / "fedzip.md").read_text()


def _aired(
    label: str, seed: int, *accuracies: float, mj: float, rates: Sequence[Sequence[str]] = ()
) -> tuple[Run, Kept]:
    """Judged in every round, each of which costs as much up as down."""
    run, kept = made(label, seed, *accuracies, up_bytes=(10,) * len(accuracies))
    setup = replace(run.setup, rounds=len(accuracies), last=2, judged=len(accuracies))
    spent = [mj / 2] * len(accuracies)
    outcome = replace(kept.outcome, setup=setup, up_mj=spent, down_mj=spent, rates=[list(pair) for pair in rates])
    return replace(run, setup=setup), replace(kept, outcome=outcome)


def test_energy_to_the_target_is_up_to_the_first_round_within_a_point_of_fp32() -> None:
    found = results(
        _aired("fp32", 0, 0.80, 0.895, 0.90, 0.90, mj=100.0),
        _aired("ours", 0, 0.70, 0.80, 0.885, 0.889, mj=10.0),
        _aired("fp32", 1, 0.80, 0.90, 0.90, 0.90, mj=100.0),
        _aired("ours", 1, 0.70, 0.891, 0.80, 0.80, mj=10.0),
    )
    figure = fedaq.Energy("e", "ours", "fp32", at_most(0.1)).figure(found)
    assert figure is not None
    # seed 0: the target of 89 % is never reached; fp32 gets there in round 2 of both seeds
    assert (figure.value, figure.met) == (float("inf"), False)
    figure = fedaq.Energy("e", "ours", "fp32", at_most(0.1)).figure(Results(found.runs[2:], found.kept))
    assert figure is not None
    assert (figure.value, figure.met) == (0.1, True)


def test_trends_are_those_of_the_widths_that_were_decided() -> None:
    rates = [["uniform:4", "uniform:3"], ["uniform:3", "uniform:3"], ["uniform:2", "delta:eden:4"]]
    found = results(_aired("FedAQ", 0, 0.8, 0.8, 0.8, mj=1.0, rates=rates))
    up, down = (
        fedaq.Trend("t", "FedAQ", way, bound).figure(found) for way, bound in ((0, at_most(-0.6)), (1, at_least(0.6)))
    )
    assert up is not None
    assert down is not None
    assert (up.value, up.met) == (-1.0, True)
    assert down.value == pytest.approx(0.8165, abs=1e-4)


def test_the_budget_is_that_of_all_rounds_together() -> None:
    spent = 1e3 * fedaq.FEDAQ_J
    found = results(_aired("FedAQ", 0, 0.8, 0.8, mj=0.9 * spent), _aired("FedAQ", 1, 0.8, 0.8, mj=1.1 * spent))
    figure = fedaq.WithinBudget("b", "FedAQ", at_most(1.0)).figure(found)
    assert figure is not None
    assert (figure.value, figure.met) == (1.1, False)


def test_the_closed_form_is_as_good_as_every_combination() -> None:
    facts = [spec for spec in FedAq().specs() if spec.name.startswith("closed_form")]
    for spec in facts:
        figure = spec.figure(results())
        assert figure is not None
        assert figure.met, figure
    assert len(facts) == 2
