"""ONNX files of a version: agreeing with the reference, rated on the hold-out, made when they are missing."""

import numpy as np
import onnx
import pytest
from fleet import Fleet, Opener, trained
from sklearn.datasets import load_digits

from aggregator import exports, rounds
from aggregator.room import HoldOut
from aggregator.store import Export
from export.batch import ExportJob
from export.errors import CheckFailed, ExportError
from export.passes.attach_metadata import read_metadata
from protocol.messages import ModelOffer


def digits(count: int) -> HoldOut:
    """Real 8×8 digits of the classes 0, 1 and 2, which the small network has."""
    data = load_digits(n_class=3)
    pictures = (data.images[:count] * (255 / 16)).astype(np.uint8)[:, None]
    return HoldOut(pictures, data.target[:count].astype(np.int64))


def test_an_export_is_checked_and_rated_on_every_picture_of_the_hold_out(open_fleet: Opener) -> None:
    fleet = open_fleet(hold_out=digits(40))
    trained(fleet)
    (row,) = fleet.rows(Export)
    assert row.pictures == 40
    assert 0.0 <= row.accuracy <= 1.0
    data = fleet.room.blobs.get(row.digest)
    assert len(data) == row.model_bytes
    facts = read_metadata(onnx.load_from_string(data))
    assert (facts["round"], facts["fleet"], facts["precision"]) == ("1", "test", "W8A8")
    assert facts["pictures_checked"] == "40"


def test_without_a_hold_out_an_export_is_checked_on_noise_and_not_rated(fleet: Fleet) -> None:
    trained(fleet)
    (row,) = fleet.rows(Export)
    assert (row.pictures, row.accuracy) == (16, None)


def test_the_same_model_gives_the_same_file(fleet: Fleet) -> None:
    model = fleet.model()
    assert exports.keep(fleet.room, model, 1, "W8A8") == exports.keep(fleet.room, model, 1, "W8A8")


def test_a_model_that_cannot_be_exported_is_not_kept(fleet: Fleet) -> None:
    model = fleet.model()
    model.shared["classifier.bias"][:] = np.nan
    before = sorted(fleet.room.blobs.folder.rglob("*"))
    with pytest.raises(ExportError):
        exports.keep(fleet.room, model, 1, "W8A8")
    assert sorted(fleet.room.blobs.folder.rglob("*")) == before


def test_a_missing_export_that_fails_is_reported_once_and_not_tried_again(
    open_fleet: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = open_fleet()
    trained(fleet)
    with fleet.room.store.transaction() as session:
        session.delete(session.get_one(Export, (1, "W8A8")))

    def differ(*_: object, **__: object) -> None:
        raise CheckFailed("differs")

    with monkeypatch.context() as broken:
        broken.setattr(ExportJob, "make", differ)
        with pytest.raises(CheckFailed):
            rounds.advance(fleet.room)
        assert not rounds.advance(fleet.room)
    fleet.restart()
    assert rounds.advance(fleet.room)
    assert [row.precision for row in fleet.rows(Export)] == ["W8A8"]
    fleet.deliver()
    assert len(fleet.handsets["a"].take(ModelOffer)) == 2


def test_nothing_is_exported_before_anything_was_trained(fleet: Fleet) -> None:
    fleet.connected("a")
    fleet.run()
    assert fleet.rows(Export) == []
