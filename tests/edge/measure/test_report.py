"""What a person reads, of documents made by hand."""

from dataclasses import replace

from measure_support import document, measured
from rich.console import Console

from edge.measure.energy import Baseline, CallEnergy
from edge.measure.latency import WarmUp
from edge.measure.report import notes_on, summary, table
from edge.meters.base import Accuracy, Description
from protocol.messages import EnergySource

SENSOR = Description("ina3221", Accuracy.RAIL, 1.0, 100.0, "the module")


def test_measured_and_modelled_energy_stand_in_columns_of_their_own() -> None:
    seen = CallEnergy(EnergySource.MEASURED, 310.0, 110.0, 100.0, 120.0, "")
    run = document(replace(measured([5.0] * 3, "a"), energy=seen), measured([5.0] * 3, "b"), meter=SENSOR)
    text = summary(run)
    assert "| mJ net, measured:ina3221 | mJ gross, measured:ina3221 | mJ, modelled |" in text
    assert "| a | 5 | 5 | — | 5 | 5 | 110 | 310 | — |" in text
    assert "| b | 5 | 5 | — | 5 | 5 | — | — | 0.5 |" in text


def test_a_summary_says_under_which_conditions_and_of_what() -> None:
    text = summary(document(measured([5.0] * 3, accuracy=0.9184), baseline=Baseline(2000.0, 2040.0, "")))
    for part in (
        "Pi 4, 1 thread",
        "governor performance",
        "python 3.13",
        "50 °C, 1500 MHz, load 0.1",
        "idle power 2020 mW",
    ):
        assert part in text
    assert "SHA-256 000000000000, 91.84% right" in text


def test_what_a_reader_must_know_is_noted() -> None:
    one = measured([5.0] * 3, "one")
    slowed = replace(one.windows[1], rejected="throttled: under-voltage")
    run = document(
        replace(one, warm_up=WarmUp(9, 20.0, steady=False), windows=(one.windows[0], slowed, one.windows[2])),
        replace(measured([5.0] * 3, "two"), latency=replace(one.latency, cpu_p50_ms=2.0)),
        baseline=Baseline(2000.0, 3000.0, "idle power moved"),
        complete=False,
    )
    assert list(notes_on(run)) == [
        "interrupted: figures are of the windows finished by then",
        "idle power moved",
        "one: the median still moved by more than 2 % after 20 s of warm-up",
        "one: 1 of 3 windows do not count: throttled: under-voltage",
        "two: 60% of its time it waited for a processor: something else was at work",
    ]


def test_a_subject_without_a_window_has_dashes() -> None:
    text = summary(document(replace(measured([], "late"), energy=None)))
    assert "| late | — | — | — | — | — |" in text


def test_the_table_fits_into_80_columns() -> None:
    console = Console(width=80)
    with console.capture() as shown:
        console.print(table(document(measured([5.123456] * 3, "training W8A8, batch 32"))))
    assert "training W8A8, batch 32" in shown.get()
    assert "5.123" in shown.get()
