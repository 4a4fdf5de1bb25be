"""A federation on one machine without the network: virtual devices, the product's trainer, codec and merge.

    scripts/simulate                                        tier F1 at fp32: ten devices, 25 rounds, some minutes
    scripts/simulate --precision W4A8 --seeds 0,1,2         the same at 4-bit weights, three times
    scripts/simulate --preset fedzip                        updates as FedZip sends them
    scripts/simulate --tier f2 --recipe ef+sign             fifty uneven devices, one bit a weight on the way up
    scripts/simulate --method mqat --precision W8A8+W4A8+W1A8 --json many.json
    scripts/simulate --attack sign-flip:4:0.3 --merge trimmed:0.3      three of the ten send -4 times what they learned
    scripts/simulate --method fp32 --evaluate fp32,W8A8,W4A8,W1A8      quantized after training

An interrupted command goes on where it was when it is given again.
"""

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from simulation import Interrupted, Setup, SimulationError, forget, run
from simulation.report import plot, table
from simulation.tiers import TIERS, Tier

from aggregator.presets import PRESETS
from edge.files import write_atomic
from protocol.errors import ProtocolError
from protocol.precision import join, parse_several

FOLDER: Final = Path("simulations")


def simulate(
    *,
    tier: Annotated[
        Tier, typer.Option(help="Where the other options start from (below); each option given replaces its value.")
    ] = Tier.F1,
    preset: Annotated[
        str | None, typer.Option(help=f"A published system's method, precisions and recipes: {', '.join(PRESETS)}.")
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(help="Spec of the network: family, width, input (C×H×W), classes; norm=group, codes=nested."),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="What devices train: fp32, W4A8 (4-bit weights, 8-bit activations; A32: float), or several"
            " joined by + with method mqat."
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="How they train: fp32, qat (steps from min and max), oqfl (learned steps), apqn (noise), mqat"
            " (all precisions in every step), fbq (affine swap), kure, best; +kure adds the kurtosis term."
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="fashion-mnist, digits, a folder of class folders or IDX files, or an .npz file.")
    ] = None,
    pictures: Annotated[int | None, typer.Option(help="Training pictures that are dealt out, 0 for all.")] = None,
    partition: Annotated[
        str | None,
        typer.Option(help="iid, or dirichlet:ALPHA: every class dealt unevenly; 0.3 is hard, 100 nearly even."),
    ] = None,
    devices: Annotated[int | None, typer.Option(help="Devices of the fleet.")] = None,
    sampled: Annotated[int | None, typer.Option(help="Devices that take part in a round, drawn each time.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds of training.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over a device's pictures in one round.")] = None,
    batch: Annotated[int | None, typer.Option(help="Pictures in a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of the first round.")] = None,
    decay: Annotated[float | None, typer.Option(help="Of the learning rate: its factor from round to round.")] = None,
    augment: Annotated[
        bool | None,
        typer.Option("--augment/--no-augment", help="Shift training pictures by a few pixels, as agents do."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="How updates are coded: fp32, sign, eden:1, stc:0.01, …; ef+ keeps what was left out."),
    ] = None,
    vote: Annotated[
        bool | None,
        typer.Option("--vote/--no-vote", help="Move by the majority's sign, with recipes sign and stosign."),
    ] = None,
    downlink: Annotated[
        str | None,
        typer.Option(
            help="How the base model is coded: fp32, half, uniform:8, or delta: and a recipe for what changed."
        ),
    ] = None,
    rates: Annotated[
        str | None,
        typer.Option(
            help="Who decides on recipe and downlink round by round: fixed, feddq:STEP, adaquantfl:LEVELS,"
            " dadaquant:LEVELS, fedaq:JOULES or best:JOULES a round; +rc adds an entropy coder."
        ),
    ] = None,
    merge: Annotated[
        str | None,
        typer.Option(
            help="How updates are merged: mean, clip:NORM or clip:median, median, trimmed:SHARE, krum:F or"
            " multi-krum:F, or clip:… + one of these."
        ),
    ] = None,
    attack: Annotated[
        str | None,
        typer.Option(
            help="What a share of the devices do instead: sign-flip:0.3, sign-flip:4:0.3, scale:10:0.3,"
            " gaussian:0.1:0.3, label-flip:0.3 or nan:0.1."
        ),
    ] = None,
    evaluate: Annotated[
        str | None,
        typer.Option(
            help="Precisions to judge at, joined by commas; what is trained if not given. One that was not"
            " trained is quantized afterwards."
        ),
    ] = None,
    last: Annotated[
        int | None, typer.Option(help="In how many of the last rounds to judge; their mean is the result.")
    ] = None,
    judged: Annotated[
        int | None, typer.Option(help="In how many of the last rounds to judge in any case, for a longer curve.")
    ] = None,
    calibration_pictures: Annotated[
        int | None, typer.Option(help="Pictures each device measures moments and ranges over before a judgement.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="One run for each, joined by commas: 0,1,2.")] = "0",
    workers: Annotated[
        int, typer.Option(min=1, help="Worker processes of one thread each; results do not depend on it.")
    ] = os.cpu_count() or 1,
    device: Annotated[
        str, typer.Option(help="What computes: cpu, cuda, or auto for an accelerator if there is one.")
    ] = "auto",
    folder: Annotated[
        Path, typer.Option(help="Checkpoints, outcomes and models; an interrupted run goes on.")
    ] = FOLDER,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what the folder has of these runs.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the outcomes to this file.")] = None,
    plot_file: Annotated[
        Path | None, typer.Option("--plot", help="Draw accuracy over rounds into this .svg or .png file.")
    ] = None,
) -> None:
    """Run federations on this machine, without the network, and say what they came to.

    Bytes are those of real payloads. Accuracy is that of the calibrated global model on pictures no device has, as
    the exported integer file where there is one, and the mean of the last rounds. Everything follows from the seed.

    Tiers: f1 a small CNN, IID, 10 of 10 devices; f2 Dirichlet 0.3, 10 of 50; z FedZip's CNN; r ResNet18, 3 of 10
    (for an accelerator); smoke: r at an eighth of its width for 3 rounds, which shows that it works and nothing else.
    """
    chosen = _preset(preset)
    given = {
        "network": network,
        "precision": precision or chosen.get("precision"),
        "method": method or chosen.get("method"),
        "data": data,
        "pictures": pictures,
        "partition": partition,
        "devices": devices,
        "sampled": sampled,
        "rounds": rounds,
        "epochs": epochs,
        "batch": batch,
        "learning_rate": learning_rate,
        "decay": decay,
        "augment": augment,
        "recipe": recipe or chosen.get("recipe"),
        "vote": vote,
        "downlink": downlink or chosen.get("downlink"),
        "rates": rates or chosen.get("rates"),
        "merge": merge,
        "attack": attack,
        "evaluate": tuple(evaluate.split(",")) if evaluate else None,
        "last": last,
        "judged": judged,
        "calibration_pictures": calibration_pictures,
    }
    setups = setups_of(TIERS[tier], seeds, given)
    if fresh:
        forget(setups, folder)
    try:
        outcomes = run(setups, folder, workers, device, show=True)
    except Interrupted as interrupted:
        print(f"simulate: {interrupted}", file=sys.stderr)
        raise typer.Exit(130) from None
    label = "smoke run, not tier r" if tier is Tier.SMOKE else f"tier {tier}"
    Console().print(table(outcomes, label))
    if json_file:
        _write(json_file, (json.dumps([outcome.to_json() for outcome in outcomes], indent=1) + "\n").encode())
    if plot_file:
        _write(plot_file, plot(outcomes, label, plot_file.suffix.removeprefix(".")))


def setups_of(base: Setup, seeds: str, given: dict[str, Any]) -> list[Setup]:
    """A setup for each seed: the tier with what was given (not None) in its place, and what follows from that.

    Raises:
        SimulationError: a value is out of its bounds.
    """
    if not all(seed.isascii() and seed.isdigit() for seed in seeds.split(",")):
        raise SimulationError(f"seeds {seeds}: expected numbers joined by commas, such as 0,1,2")
    fields = asdict(base) | {name: value for name, value in given.items() if value is not None}
    if given["evaluate"] is None:
        fields["evaluate"] = tuple(str(precision) for precision in parse_several(fields["precision"]))
    for name, bound in (("last", "rounds"), ("judged", "rounds"), ("sampled", "devices")):
        if given[name] is None:
            fields[name] = min(fields[name], fields[bound])
    try:
        return [Setup(**fields | {"seed": int(seed)}) for seed in seeds.split(",")]
    except ValueError as error:
        raise SimulationError(str(error)) from error


def _preset(name: str | None) -> dict[str, str]:
    """A preset's values of a setup; empty for none."""
    if name is None:
        return {}
    if name not in PRESETS:
        raise SimulationError(f"preset {name!r}: expected one of {', '.join(PRESETS)}")
    preset = PRESETS[name]
    return preset.ways | ({"precision": join(preset.precisions)} if preset.learns_steps else {})


def _write(path: Path, data: bytes) -> None:
    try:
        write_atomic(path, data, mode=0o644)
    except OSError as error:
        raise SimulationError(f"{path}: cannot be written: {error.strerror}; the outcomes are kept") from error


def main() -> None:
    """Entry point: a failure is one message and exit code 1, Ctrl-C is exit code 130."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaves through the context managers, as Ctrl-C does
    try:
        typer.run(simulate)
    except (SimulationError, ProtocolError) as error:
        sys.exit(f"simulate: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
