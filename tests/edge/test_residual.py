"""A residual counts only once its update did."""

from pathlib import Path

import numpy as np
import pytest

from edge.residual import Residuals
from protocol.codec.feedback import MAX_AGE_ROUNDS

A = {"layer.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}
B = {"layer.weight": -np.ones((2, 3), dtype=np.float32)}


def test_nothing_is_committed_before_the_receipt(tmp_path: Path) -> None:
    residuals = Residuals(tmp_path)
    assert residuals.load("net", 1) == {}
    residuals.propose("t", "net", 1, A)
    assert residuals.load("net", 2) == {}
    residuals.promote("t")
    found = Residuals(tmp_path).load("net", 2)
    assert found.keys() == A.keys()
    assert np.array_equal(found["layer.weight"], A["layer.weight"])


def test_a_refused_update_leaves_the_residual_before_it(tmp_path: Path) -> None:
    residuals = Residuals(tmp_path)
    residuals.propose("t1", "net", 1, A)
    residuals.promote("t1")
    residuals.propose("t2", "net", 2, B)
    residuals.drop("t2")
    residuals.promote("t2")  # a receipt that comes twice
    assert np.array_equal(residuals.load("net", 2)["layer.weight"], A["layer.weight"])


@pytest.mark.parametrize(("architecture", "round_"), [("other", 2), ("net", 2 + MAX_AGE_ROUNDS), ("net", 0)])
def test_a_residual_of_another_network_or_time_is_dropped(tmp_path: Path, architecture: str, round_: int) -> None:
    residuals = Residuals(tmp_path)
    residuals.propose("t", "net", 1, A)
    residuals.promote("t")
    assert residuals.load("net", 1 + MAX_AGE_ROUNDS)
    assert residuals.load(architecture, round_) == {}


def test_a_residual_fades_while_the_device_is_away(tmp_path: Path) -> None:
    residuals = Residuals(tmp_path)
    residuals.propose("t", "net", 1, A)
    residuals.promote("t")
    for round_, left in ((2, 1.0), (3, 0.9), (6, 0.9**4)):
        found = residuals.load("net", round_)["layer.weight"]
        np.testing.assert_allclose(found, left * A["layer.weight"], rtol=1e-6)
        assert found.dtype == np.float32


def test_a_damaged_residual_is_none(tmp_path: Path) -> None:
    residuals = Residuals(tmp_path)
    residuals.propose("t", "net", 1, A)
    residuals.promote("t")
    path = tmp_path / "committed.npz"
    data = path.read_bytes()
    for length in range(0, len(data), 11):
        path.write_bytes(data[:length])
        assert residuals.load("net", 2) == {}
