"""Small networks with uncomfortable tensors, and real pictures."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.datasets import load_digits

from export.cli import main
from protocol.architecture import INPUT, LOG_STEPS, Architecture, Kind, Layer, Role, Tensors
from protocol.initial import initial_tensors
from protocol.networks import resnet18
from protocol.precision import Precision, activation_range

MakeTensors = Callable[[Architecture, Precision], Tensors]
Run = Callable[..., tuple[int, str, str]]


REACH = 0.6
"""Of narrow activations: the first steps of training reach far out, and few values here would leave 0."""


def uncomfortable(architecture: Architecture, precision: Precision) -> Tensors:
    """Fresh weights under a normalisation with gains of both signs, in every layer one gain of exactly 0, uneven
    moments and uneven steps."""
    rng = np.random.default_rng(7)
    tensors = initial_tensors(architecture, precision, 7)
    for spec in architecture.tensors(precision):
        values = tensors[spec.name]
        match spec.role:
            case Role.GAMMA:
                values[:] = rng.normal(0.8, 0.2, spec.shape) * rng.choice([1, -1], spec.shape, p=[0.8, 0.2])
                values[1] = 0
            case Role.BETA | Role.MEAN | Role.SHIFT_IN | Role.SHIFT_OUT:
                values[:] = rng.normal(0, 0.2, spec.shape)
            case Role.SLOPE:
                values[:] = rng.normal(0.25, 0.3, spec.shape)
            case Role.ACTIVATION_OFFSET:
                values[:] = rng.normal(0, 0.4, spec.shape) - (precision.activation_bits > 1)
            case Role.VARIANCE:
                values[:] = rng.uniform(0.5, 2, spec.shape)
            case Role.BIAS:
                values[:] = rng.normal(0, 1, spec.shape)
            case Role.ACTIVATION_LOG_STEP if architecture.activation_bits(spec.owner, precision) < 8:
                _, top = activation_range(precision.activation_bits, signed=False)
                values[:] = np.log(REACH / top) + rng.normal(0, 0.1, spec.shape)
            case _ if spec.role in LOG_STEPS:
                values += rng.normal(0, 0.1, spec.shape).astype(np.float32)
    return tensors


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["bitfleet-export", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        shown = capsys.readouterr()
        return int(stopped.value.code or 0), shown.out, shown.err

    return call


@pytest.fixture(scope="session")
def make_tensors() -> MakeTensors:
    return uncomfortable


@pytest.fixture(scope="session")
def small() -> Architecture:
    """24 k parameters, the digits' shape."""
    return resnet18(width=0.0625, input_shape=(1, 32, 32))


@pytest.fixture(scope="session")
def digits() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """1797 handwritten digits as uint8[N, 1, 32, 32], and their labels."""
    data = load_digits()
    pictures_N8x8 = (data.images * 255 / 16).astype(np.uint8)
    return pictures_N8x8.repeat(4, axis=1).repeat(4, axis=2)[:, None], data.target.astype(np.int64)


@pytest.fixture
def one_convolution() -> Callable[..., Architecture]:
    """A network of one convolution, for tests that look at its numbers."""

    def make(*, channels: int = 4, relu: bool = True, pinned: bool = True) -> Architecture:
        shapes = ((2, 6, 6), (channels, 6, 6))
        layer = Layer("conv", Kind.CONV, (INPUT,), *shapes, 3, 1, 1, norm=True, relu=relu, scale="out", pinned=pinned)
        return Architecture("one", (2, 6, 6), channels, (layer,))

    return make
