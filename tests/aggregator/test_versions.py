"""Committed versions: founded once, held to the job afterwards."""

from dataclasses import replace
from pathlib import Path

import pytest
from fleet import JOB, Fleet

from aggregator import versions
from aggregator.blobs import BlobError
from aggregator.store import MAIN, Model
from aggregator.versions import JobMismatch


def test_an_empty_store_gets_version_0_from_the_seed(fleet: Fleet) -> None:
    (row,) = fleet.rows(Model)
    assert (row.version, row.precisions) == (0, [])
    fleet.restart()
    assert len(fleet.rows(Model)) == 1


def test_a_job_for_another_network_is_refused_with_both_names(fleet: Fleet) -> None:
    other = replace(JOB, architecture=JOB.architecture.replace("classes=3", "classes=4"))
    fleet.jobs[MAIN] = other
    with pytest.raises(JobMismatch, match=r"classes=4.*classes=3"):
        fleet.restart()


def test_a_damaged_model_is_noticed_at_start(fleet: Fleet, tmp_path: Path) -> None:
    digest = fleet.rows(Model)[0].digest
    fleet.room.blobs.path(digest).write_bytes(b"damaged")
    with pytest.raises(BlobError, match=digest):
        fleet.restart()


def test_a_store_that_was_not_prepared_says_so(fleet: Fleet) -> None:
    with fleet.room.store.transaction() as session:
        session.delete(session.get_one(Model, 0))
    with fleet.room.store.reading() as session, pytest.raises(JobMismatch, match="prepare"):
        versions.current(session)
