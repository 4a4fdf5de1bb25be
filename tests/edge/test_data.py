"""Pictures from every kind of source, and what is said about those that cannot be used."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from edge.data import DataError, Dataset, load, split
from edge.data import folder as folder_reader
from edge.data.folder import class_names, read_picture

GREY = (1, 32, 32)


def digits(count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    source = load_digits()
    return (source.images[:count] * 255 / 16).astype(np.uint8), source.target[:count].astype(np.int64)


def write_folder(root: Path, count: int = 60, suffix: str = "png") -> Path:
    for number, (picture, label) in enumerate(zip(*digits(count), strict=True)):
        target = root / str(label) / f"{number:04}.{suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(target)
    return root


def write_idx(path: Path, array: np.ndarray, packed: bool = False) -> None:
    data = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(data) if packed else data)


def write_idx_set(root: Path, part: str = "train", packed: bool = False, edge: int = 28) -> np.ndarray:
    pictures, labels = digits()
    grown = np.stack([np.asarray(Image.fromarray(picture).resize((edge, edge))) for picture in pictures])
    suffix = ".gz" if packed else ""
    root.mkdir(exist_ok=True)
    write_idx(root / f"{part}-images-idx3-ubyte{suffix}", grown, packed)
    write_idx(root / f"{part}-labels-idx1-ubyte{suffix}", labels.astype(np.uint8), packed)
    return grown


@pytest.mark.parametrize("suffix", ["png", "bmp", "jpg", "webp"])
def test_a_folder_of_class_folders_becomes_pictures_and_labels(tmp_path: Path, suffix: str) -> None:
    dataset = load(write_folder(tmp_path, suffix=suffix), input_shape=GREY)
    assert dataset.pictures_NCHW.shape == (60, *GREY)
    assert dataset.pictures_NCHW.dtype == np.uint8
    assert dataset.labels_N.dtype == np.int64
    assert dataset.class_names == tuple("0123456789")
    assert dataset.counts == tuple(np.bincount(digits()[1]).tolist())
    assert dataset.skipped == ()


def test_pictures_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    dataset = load(write_folder(tmp_path), input_shape=(1, 8, 8))
    pictures, labels = digits()
    assert np.array_equal(dataset.pictures_NCHW[:, 0], pictures[np.argsort(labels, kind="stable")])


def test_grey_pictures_become_colour_and_colour_becomes_grey(tmp_path: Path) -> None:
    for name, value in (("a", 10), ("b", 200)):
        (tmp_path / name).mkdir()
        Image.new("L", (9, 7), value).save(tmp_path / name / "grey.png")
        Image.new("RGBA", (40, 50), (value, value, value, 255)).save(tmp_path / name / "alpha.png")
        Image.fromarray(np.full((5, 5), value * 257, dtype=np.uint16)).save(tmp_path / name / "sixteen.png")
    for channels in (1, 3):
        dataset = load(tmp_path, input_shape=(channels, 12, 10))
        assert dataset.pictures_NCHW.shape == (6, channels, 12, 10)
        assert np.array_equal(dataset.pictures_NCHW.mean((1, 2, 3)), [10, 10, 10, 200, 200, 200])


def test_a_photograph_is_turned_upright_as_its_camera_says(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8), dtype=np.uint8)
    pixels[:, :4] = 255
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        exif = Image.Exif()
        exif[0x0112] = 6  # turned by 90°
        Image.fromarray(pixels).save(tmp_path / name / "turned.png", exif=exif)
    upright = load(tmp_path, input_shape=(1, 8, 8)).pictures_NCHW[0, 0]
    assert upright[:4].min() == 255
    assert upright[4:].max() == 0


def test_unreadable_pictures_are_skipped_and_listed(tmp_path: Path) -> None:
    write_folder(tmp_path)
    good = (tmp_path / "3" / "0003.png").read_bytes()
    (tmp_path / "3" / "cut.png").write_bytes(good[: len(good) // 2])
    (tmp_path / "3" / "empty.png").write_bytes(b"")
    (tmp_path / "3" / "notes.txt").write_text("no picture")
    (tmp_path / "3" / ".hidden").write_text("passed over")
    dataset = load(tmp_path, input_shape=GREY)
    assert len(dataset) == 60
    assert len(dataset.skipped) == 3
    for name, sentence in zip(["cut.png", "empty.png", "notes.txt"], dataset.skipped, strict=True):
        assert name in sentence


def test_a_picture_with_more_pixels_than_memory_allows_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path)
    monkeypatch.setattr(folder_reader, "MAX_PIXELS", 1000)
    Image.new("L", (40, 40)).save(tmp_path / "0" / "large.png")
    dataset = load(tmp_path, input_shape=GREY)
    assert len(dataset) == 60
    assert "40×40 pixels, expected at most 1000" in dataset.skipped[0]


def test_pillow_s_own_limit_on_pixels_is_a_skipped_picture_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path)
    Image.new("L", (40, 40)).save(tmp_path / "0" / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    dataset = load(tmp_path, input_shape=GREY)
    assert "large.png" in dataset.skipped[0]
    assert len(dataset.skipped) == 1


@given(cut=st.integers(0, 400), flips=st.lists(st.tuples(st.integers(0, 399), st.integers(1, 255)), max_size=4))
def test_a_damaged_picture_never_raises_anything_but_data_error(
    tmp_path_factory: pytest.TempPathFactory, cut: int, flips: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "picture.png"
    Image.fromarray(digits(1)[0][0]).resize((32, 32)).save(path)
    data = bytearray(path.read_bytes()[:cut])
    for place, change in flips:
        if place < len(data):
            data[place] ^= change
    path.write_bytes(bytes(data))
    try:
        assert folder_reader.read_picture(path, GREY).shape == GREY
    except DataError as error:
        assert "picture.png" in str(error)  # noqa: PT017 (either outcome is right)


def test_a_folder_without_one_readable_picture_is_an_error(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"none of 2 files is a readable picture; the first: .*x\.png"):
        load(tmp_path, input_shape=GREY)


def test_an_empty_folder_and_a_missing_one_are_errors_that_name_them(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: expected one folder of pictures for each class"):
        load(tmp_path / "empty", input_shape=GREY)
    with pytest.raises(DataError, match="gone: found nothing"):
        load(tmp_path / "gone", input_shape=GREY)
    (tmp_path / "model.txt").write_text("")
    with pytest.raises(DataError, match=r"model\.txt: found a file"):
        load(tmp_path / "model.txt", input_shape=GREY)


def test_one_class_is_an_error_unless_the_fleet_s_classes_are_known(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "7" / "a.png")
    with pytest.raises(DataError, match="every picture is of one class"):
        load(tmp_path, input_shape=GREY)
    by_count, by_name = (
        load(tmp_path, input_shape=GREY, classes=10),
        load(tmp_path, input_shape=GREY, classes=("3", "7")),
    )
    assert by_count.labels_N.tolist() == [7]
    assert by_count.class_names == tuple("0123456789")
    assert by_name.labels_N.tolist() == [1]


def test_class_folders_map_to_the_fleet_s_classes_by_name(tmp_path: Path) -> None:
    for name in ("dog", "cat"):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / name / "a.png")
    assert load(tmp_path, input_shape=GREY, classes=("dog", "bird", "cat")).labels_N.tolist() == [2, 0]
    assert load(tmp_path, input_shape=GREY, classes=2).labels_N.tolist() == [0, 1]
    with pytest.raises(DataError, match="class 'cat' is not one of the fleet's: dog, bird"):
        load(tmp_path, input_shape=GREY, classes=("dog", "bird"))
    with pytest.raises(DataError, match="classes cat, dog of a fleet with 3"):
        load(tmp_path, input_shape=GREY, classes=3)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("part", ["train", "t10k"])
def test_idx_pictures_of_28_pixels_get_a_border_of_two(tmp_path: Path, part: str, packed: bool) -> None:
    grown = write_idx_set(tmp_path, part, packed)
    dataset = load(tmp_path, input_shape=GREY)
    assert np.array_equal(dataset.pictures_NCHW[:, 0, 2:-2, 2:-2], grown)
    assert np.array_equal(dataset.labels_N, digits()[1])


def test_the_training_part_of_an_idx_set_is_preferred(tmp_path: Path) -> None:
    write_idx_set(tmp_path, "t10k", edge=20)
    trained = write_idx_set(tmp_path, "train")
    assert np.array_equal(load(tmp_path, input_shape=(1, 28, 28)).pictures_NCHW[:, 0], trained)


def test_every_truncation_of_an_idx_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    write_idx_set(tmp_path)
    path = tmp_path / "train-labels-idx1-ubyte"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="train-labels-idx1-ubyte"):
            load(tmp_path, input_shape=GREY)
    path.write_bytes(whole + b"\0")
    with pytest.raises(DataError, match="train-labels-idx1-ubyte: 69 bytes, expected 68"):
        load(tmp_path, input_shape=GREY)


def test_every_truncation_of_a_gzipped_idx_file_is_an_error(tmp_path: Path) -> None:
    write_idx_set(tmp_path, packed=True)
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    whole = path.read_bytes()
    for length in range(len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="train-labels-idx1-ubyte"):
            load(tmp_path, input_shape=GREY)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((1 << 31, 1 << 31, 1 << 31), "expected 1 to"), ((0, 28, 28), "expected 1 to"), ((60, 28, 29), "bytes, expected")],
)
def test_an_idx_header_that_lies_is_refused_before_anything_is_allocated(
    tmp_path: Path, shape: tuple[int, ...], message: str
) -> None:
    write_idx_set(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(bytes((0, 0, 8, 3)) + struct.pack(">3I", *shape) + path.read_bytes()[16:])
    with pytest.raises(DataError, match=message):
        load(tmp_path, input_shape=GREY)


def test_idx_parts_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    write_idx_set(tmp_path)
    labels = tmp_path / "train-labels-idx1-ubyte"
    write_idx(labels, np.zeros(59, dtype=np.uint8))
    with pytest.raises(DataError, match="59 labels for 60 pictures"):
        load(tmp_path, input_shape=GREY)
    write_idx(labels, np.zeros((60, 1), dtype=np.uint8))
    with pytest.raises(DataError, match="begins with 00000802, expected 00000801"):
        load(tmp_path, input_shape=GREY)
    labels.unlink()
    with pytest.raises(DataError, match="have no train-labels-idx1-ubyte"):
        load(tmp_path, input_shape=GREY)


@pytest.mark.parametrize("names", [("pictures", "labels"), ("x", "y"), ("images", "labels")])
@pytest.mark.parametrize("axes", ["NHW", "NHWC", "NCHW"])
def test_an_archive_is_read_in_every_layout(tmp_path: Path, names: tuple[str, str], axes: str) -> None:
    pictures, labels = digits()
    laid_out = {"NHW": pictures, "NHWC": pictures[..., None], "NCHW": pictures[:, None]}[axes]
    path = tmp_path / "data.npz"
    np.savez(path, **{names[0]: laid_out, names[1]: labels})
    dataset = load(path, input_shape=(1, 8, 8), classes=10)
    assert np.array_equal(dataset.pictures_NCHW[:, 0], pictures)
    assert np.array_equal(dataset.labels_N, labels)


@pytest.mark.parametrize(
    ("pictures", "labels", "message"),
    [
        (np.zeros((2, 8, 8)), [0, 1], r"float64\[2, 8, 8\], expected uint8"),
        (np.zeros((2, 64), dtype=np.uint8), [0, 1], r"uint8\[2, 64\], expected uint8"),
        (np.zeros((2, 5, 8, 8), dtype=np.uint8), [0, 1], "expected 1 or 3 channels"),
        (np.zeros((2, 8, 8), dtype=np.uint8), [0, 1, 2], "3 labels for 2 pictures"),
        (np.zeros((0, 8, 8), dtype=np.uint8), [], "labels are float64"),
        (np.zeros((2, 8, 8), dtype=np.uint8), [0.0, 1.0], "expected integers"),
        (np.zeros((2, 8, 8), dtype=np.uint8), [0, 10], "labels from 0 to 10, expected 0 to 9"),
        (np.zeros((2, 8, 8), dtype=np.uint8), [-1, 1], "labels from -1 to 1, expected 0 to 9"),
        (np.array([{}, {}]), [0, 1], "not a numpy archive of plain arrays"),
    ],
)
def test_an_archive_with_the_wrong_arrays_is_refused_by_name(
    tmp_path: Path, pictures: np.ndarray, labels: list[float], message: str
) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, pictures=pictures, labels=np.array(labels))
    with pytest.raises(DataError, match=message) as raised:
        load(path, input_shape=GREY, classes=10)
    assert "data.npz" in str(raised.value)


def test_an_archive_without_labels_and_a_damaged_one_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, pictures=digits()[0])
    with pytest.raises(DataError, match="holds pictures, expected one of labels, y"):
        load(path, input_shape=GREY)
    whole = path.read_bytes()
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"data\.npz"):
            load(path, input_shape=GREY)
    np.save(tmp_path / "data.npy", digits()[0])
    (tmp_path / "data.npy").rename(path)
    with pytest.raises(DataError, match=r"not an \.npz archive"):
        load(path, input_shape=GREY)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.floats(0, 0.9), st.integers(0, 9))
def test_a_split_is_stratified_complete_and_the_same_each_time(labels: list[int], held_out: float, seed: int) -> None:
    pictures = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1)
    dataset = Dataset(pictures, np.array(labels), tuple("abcde"))
    training, kept = split(dataset, held_out, seed)
    again = split(dataset, held_out, seed)
    assert np.array_equal(kept.pictures_NCHW, again[1].pictures_NCHW)
    assert sorted([*training.pictures_NCHW.ravel(), *kept.pictures_NCHW.ravel()]) == list(range(len(labels)))
    assert kept.counts == tuple(int(count * held_out) for count in dataset.counts)


@pytest.mark.parametrize("held_out", [-0.1, 1.0, float("nan")])
def test_a_held_out_fraction_out_of_range_is_refused(held_out: float) -> None:
    dataset = Dataset(np.zeros((2, 1, 1, 1), dtype=np.uint8), np.array([0, 1]), ("a", "b"))
    with pytest.raises(DataError, match=r"held-out fraction .*: expected 0 to below 1"):
        split(dataset, held_out, 0)


def test_a_picture_that_its_decoder_gives_up_on_in_its_own_way_is_damaged_too(tmp_path: Path) -> None:
    """Pillow's BLP reader raises a RuntimeError of its own."""
    path = tmp_path / "a.blp"
    Image.fromarray(digits(1)[0][0]).convert("P").save(path)
    assert read_picture(path, GREY).shape == GREY
    data = bytearray(path.read_bytes())
    data[4:8] = bytes(4)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.blp: damaged picture: Unknown BLP compression 0"):
        read_picture(path, GREY)


def test_the_names_of_class_folders_are_those_of_the_fleet_where_all_are_here(tmp_path: Path) -> None:
    write_folder(tmp_path)
    assert class_names(tmp_path, 10) == tuple("0123456789")
    assert class_names(tmp_path, 5) is None
    assert class_names(tmp_path / "nothing", 10) is None
