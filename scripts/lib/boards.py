"""Exported models and our kernels on the processors of Raspberry Pis and Jetsons, emulated: do they give the same bits?

    scripts/boards                              all four processors, some minutes
    scripts/boards --quick                      one of them
    scripts/boards --json docs/results/boards.json

The first time, Debian's Python for arm64 and the wheels a board would get are unpacked below .boards (80 MB to fetch;
no root, nothing is installed); our kernels are compiled for it. Then every network, narrow, is exported at a sample of
precisions, and a Python of that processor loads each file with ONNX Runtime, with our operators and without, and holds
every bit of every logit to the integer reference. That says nothing about speed: emulated times are none.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
from evidence import Figure, write
from extension import NATIVE, ROOT, flags, sources
from narrow import CALIBRATION, SPECS, quantized, real_pictures
from rich.console import Console
from rich.progress import track
from rich.table import Table

from export.passes import to_onnx
from export.reference import IntegerNetwork
from export.writer import serialize
from protocol import networks
from protocol.precision import Precision

BOARDS: Final = ROOT / ".boards"
PROCESSORS: Final = {
    "cortex-a53": "Raspberry Pi 3",
    "cortex-a57": "Jetson Nano, TX2",
    "cortex-a72": "Raspberry Pi 4",
    "cortex-a76": "Raspberry Pi 5",
}
PROGRAMS: Final = ("apt-get", "dpkg-deb", "unshare", "qemu-aarch64", "aarch64-linux-gnu-gcc")
DEBS: Final = ("python3", "libstdc++6")
WHEELS: Final = ("onnxruntime>=1.23,<1.29", "numpy", "flatbuffers", "packaging", "protobuf")
PLATFORMS: Final = (
    "manylinux2014_aarch64",
    "manylinux_2_17_aarch64",
    "manylinux_2_27_aarch64",
    "manylinux_2_28_aarch64",
)
PRECISIONS: Final = ("W8A8", "W6A8", "W4A8", "W4A4", "W2A2", "W1A8", "W1A1")
PICTURES: Final = 12
HIDDEN: Final = 'mount -t tmpfs none /sys && exec "$@"'
"""ONNX Runtime would read about this machine's processor there, and die of it."""


def main() -> None:
    arguments = _arguments()
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        sys.exit(
            f"scripts/boards needs {', '.join(missing)}: on Debian, apt-get install qemu-user gcc-aarch64-linux-gnu"
        )
    began_s, console = time.perf_counter(), Console(stderr=True)
    if not (BOARDS / "ready").exists():
        with console.status("fetching and unpacking Python and ONNX Runtime for arm64"):
            _unpack()
    with console.status("compiling the kernels for arm64"):
        _compile()
    cases = BOARDS / "cases"
    shutil.rmtree(cases, ignore_errors=True)
    for family, precision in track(list(product(SPECS, PRECISIONS)), "exporting", console=console):
        _export(cases / f"{family}.{precision}", family, precision)
    processors = list(PROCESSORS)[-1:] if arguments.quick else list(PROCESSORS)
    found = {name: _run(name, cases) for name in track(processors, "running on each processor", console=console)}
    show(found)
    figures = list(_figures(found))
    if arguments.json is not None:
        wall_s = time.perf_counter() - began_s
        write(arguments.json, "boards", figures, wall_s=wall_s, packages=("numpy", "onnx", "onnxruntime"))
    sys.exit(any(figure.met is False for figure in figures))


def _unpack() -> None:
    """A tree that nothing on this machine knows of: a state and a cache of apt's own, for another architecture."""
    shutil.rmtree(BOARDS, ignore_errors=True)
    for folder in ("apt/state/lists/partial", "apt/cache/archives/partial", "root", "wheels", "site"):
        (BOARDS / folder).mkdir(parents=True)
    (BOARDS / "apt" / "status").touch()
    settings = {
        "Dir::State": BOARDS / "apt" / "state",
        "Dir::State::status": BOARDS / "apt" / "status",
        "Dir::Cache": BOARDS / "apt" / "cache",
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "APT::Install-Recommends": "false",
        "Debug::NoLocking": "true",
    }
    options = [f"-o{name}={value}" for name, value in settings.items()]
    _quietly("apt-get", "-qq", *options, "update")
    _quietly("apt-get", "-qq", "-y", *options, "install", "--download-only", *DEBS)
    for package in sorted((BOARDS / "apt" / "cache" / "archives").glob("*.deb")):
        _quietly("dpkg-deb", "-x", str(package), str(BOARDS / "root"))
    version = _python().name.removeprefix("python")
    tag = f"cp{version.replace('.', '')}"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    wanted = [f"--platform={platform}" for platform in PLATFORMS]
    wanted += [
        "--only-binary=:all:",
        "--no-deps",
        f"--python-version={version}",
        f"--abi={tag}",
        "--abi=abi3",
        "--abi=none",
    ]
    _quietly(*pip, "download", *wanted, "--dest", str(BOARDS / "wheels"), *WHEELS)
    for wheel in (BOARDS / "wheels").glob("*.whl"):
        shutil.unpack_archive(wheel, BOARDS / "site", "zip")
    (BOARDS / "ready").touch()


def _python() -> Path:
    return next((BOARDS / "root" / "usr" / "bin").glob("python3.[0-9]*"))


def _compile() -> None:
    """As pip would on the board."""
    package = BOARDS / "site" / "protocol" / "operators"
    shutil.rmtree(package.parent, ignore_errors=True)
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    for source in (ROOT / "protocol" / "operators").glob("*.py"):
        shutil.copy(source, package)
    headers = _output(sys.executable, "-c", "import sysconfig; print(sysconfig.get_path('include'))").strip()
    target = str(package / "_binary.abi3.so")
    compiler = ["aarch64-linux-gnu-gcc", *flags(), "-shared", "-fPIC", f"-I{NATIVE}", f"-I{headers}"]
    _quietly(*compiler, "-o", target, *map(str, sources()), "-lm")


def _export(folder: Path, family: str, name: str) -> None:
    network, precision = networks.parse(SPECS[family]), Precision.parse(name)
    train, test = real_pictures(network)
    tensors, shown = quantized(network, precision, train.pictures_NCHW[:CALIBRATION]), test.pictures_NCHW[:PICTURES]
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(serialize(to_onnx(network, precision, tensors)))
    np.save(folder / "pictures.npy", shown)
    np.save(folder / "logits.npy", IntegerNetwork(network, precision, tensors).logits(shown))


def _run(processor: str, cases: Path) -> dict[str, Any]:
    environment = {"PYTHONPATH": str(BOARDS / "site"), "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ["PATH"]}
    script = str(Path(__file__).with_name("on_board.py"))
    emulated = ["qemu-aarch64", "-cpu", processor, "-L", str(BOARDS / "root"), str(_python()), script, str(cases)]
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", HIDDEN, "sh", *emulated]
    told: dict[str, Any] = json.loads(_output(*command, environment=environment))
    return told


def _output(*command: str, environment: Mapping[str, str] | None = None) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if ran.returncode != 0:
        sys.exit(f"{' '.join(command[:3])} … ended with {ran.returncode}:\n{ran.stderr.strip()[-2000:]}")
    return ran.stdout


def _quietly(*command: str) -> None:
    _output(*command)


def show(found: dict[str, dict[str, Any]]) -> None:
    table = Table("processor", "as in", "binary convolutions", "files", "bit-equal", "and in standard operators")
    for name, told in found.items():
        cases = told["cases"].values()
        equal, standard = (sum(case[key] for case in cases) for key in ("equal", "standard"))
        table.add_row(name, PROCESSORS[name], told["operators"], str(len(cases)), str(equal), str(standard))
    Console().print(table)


def _figures(found: dict[str, dict[str, Any]]) -> Iterator[Figure]:
    for name, told in found.items():
        cases = told["cases"]
        equal = [case["equal"] and case["standard"] for case in cases.values()]
        share = 100.0 * sum(equal) / len(equal)
        wrong = [case for case, same in zip(cases, equal, strict=True) if not same]
        note = f"of files, {PICTURES} pictures each, {told['operators']}; ONNX Runtime {told['onnxruntime']}, qemu-user"
        note += f"; not equal: {', '.join(wrong)}" if wrong else ""
        yield Figure(f"{name}.bit_equal", share, "%", "== 100", share == 100, len(equal), None, note)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the evidence document here")
    parser.add_argument("--quick", action="store_true", help="one processor")
    return parser.parse_args()


if __name__ == "__main__":
    main()
