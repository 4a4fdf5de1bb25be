"""Real pictures for the demo: Fashion-MNIST where it is found, else scikit-learn's digits, dealt out unevenly."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge.data import Dataset, load

SHAPE = (1, 32, 32)
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts it."""
FASHION_PICTURES = 2000
"""Of its 60,000: what two cores can train on in two minutes, while somebody watches."""
HELD_OUT = 0.2


@dataclass(frozen=True)
class Fleet:
    """Pictures of the whole fleet: one part per device, and what no device ever sees."""

    name: str
    class_names: tuple[str, ...]
    parts: tuple[npt.NDArray[np.int64], ...]
    train_NCHW: npt.NDArray[np.uint8]
    train_N: npt.NDArray[np.int64]
    held_out_NCHW: npt.NDArray[np.uint8]
    held_out_N: npt.NDArray[np.int64]

    def write(self, folder: Path) -> tuple[Path, list[Path]]:
        """Write one `.npz` for the aggregator's hold-out and one per device."""
        held_out = folder / "held-out.npz"
        np.savez(held_out, pictures=self.held_out_NCHW, labels=self.held_out_N)
        files = []
        for index, part_N in enumerate(self.parts):
            files.append(folder / f"device-{index}.npz")
            np.savez(files[-1], pictures=self.train_NCHW[part_N], labels=self.train_N[part_N])
        return held_out, files


def gather(source: str, devices: int, *, alpha: float, seed: int) -> Fleet:
    """Pictures for `devices` devices.

    Args:
        source: `auto`, `digits`, `fashion-mnist`, or a path `edge.data.load` understands.
        devices: how many parts.
        alpha: of the Dirichlet distribution each class is dealt by; smaller is more uneven.
        seed: of the deal.
    """
    name, data = _load(source)
    rng = np.random.default_rng(seed)
    order_N = rng.permutation(len(data.labels_N))
    cut = int(len(order_N) * HELD_OUT)
    held_N, train_N = order_N[:cut], order_N[cut:]
    labels_N = data.labels_N[train_N]
    return Fleet(
        name=name,
        class_names=data.class_names,
        parts=deal(labels_N, devices, alpha, rng),
        train_NCHW=data.pictures_NCHW[train_N],
        train_N=labels_N,
        held_out_NCHW=data.pictures_NCHW[held_N],
        held_out_N=data.labels_N[held_N],
    )


def deal(
    labels_N: npt.NDArray[np.int64], devices: int, alpha: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], ...]:
    """Deal indices to devices, each class by its own draw from Dirichlet(alpha).

    T.-M. H. Hsu, H. Qi, M. Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
    Classification", arXiv 1909.06335.
    """
    parts: list[list[int]] = [[] for _ in range(devices)]
    for label in np.unique(labels_N):
        indices_N = rng.permutation(np.flatnonzero(labels_N == label))
        cuts = np.cumsum(rng.dirichlet(np.full(devices, alpha)))[:-1] * len(indices_N)
        for part, piece in zip(parts, np.split(indices_N, cuts.astype(int)), strict=True):
            part.extend(piece.tolist())
    return tuple(np.sort(np.array(part, dtype=np.int64)) for part in parts)


def _load(source: str) -> tuple[str, Dataset]:
    if source == "fashion-mnist" or (source == "auto" and FASHION_MNIST.is_dir()):
        return "Fashion-MNIST", _first(load(FASHION_MNIST, input_shape=SHAPE), FASHION_PICTURES)
    if source in {"auto", "digits"}:
        return "scikit-learn digits", _digits()
    return Path(source).name, load(Path(source), input_shape=SHAPE)


def _first(data: Dataset, count: int) -> Dataset:
    return Dataset(data.pictures_NCHW[:count], data.labels_N[:count], data.class_names, data.skipped)


def _digits() -> Dataset:
    """The 8×8 grey digits, enlarged to 32×32 by bicubic interpolation."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 (a second of import that other sources need not pay)

    digits = load_digits()
    pictures = [Image.fromarray((image * (255 / 16)).astype(np.uint8)) for image in digits.images]
    grown = [np.asarray(picture.resize(SHAPE[1:], Image.Resampling.BICUBIC)) for picture in pictures]
    names = tuple(str(name) for name in digits.target_names)
    return Dataset(np.stack(grown)[:, None], digits.target.astype(np.int64), names, ())
