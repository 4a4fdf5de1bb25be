"""Uploads in memory: one a device, bounded, whole or asked for again."""

from hashlib import sha256

import pytest

from aggregator.uploads import MAX_FAILURES, Uploads
from protocol.chunks import from_bitmap
from protocol.errors import Malformed, RemoteProtocolError
from protocol.messages import EnergySource, Manifest


def manifest(payload: bytes, task: str = "t", chunk_bytes: int = 4) -> Manifest:
    digest = sha256(payload).digest()
    source = EnergySource.MODELLED
    return Manifest(task, bytes(16), 1, bytes(32), digest, len(payload), chunk_bytes, 1, 0.0, 0.0, 0.0, 0.0, source)


def test_the_same_manifest_goes_on_with_the_same_upload() -> None:
    uploads = Uploads()
    upload = uploads.begin("a", manifest(b"12345678"))
    assert upload is not None
    upload.assembly.add(0, b"1234")
    again = uploads.begin("a", manifest(b"12345678"))
    assert again is upload
    assert list(from_bitmap(again.assembly.missing, 2)) == [1]


@pytest.mark.parametrize("changed", [manifest(b"other123"), manifest(b"12345678", "u"), manifest(b"12345678", "t", 8)])
def test_another_manifest_of_the_device_replaces_its_upload(changed: Manifest) -> None:
    uploads = Uploads()
    first = uploads.begin("a", manifest(b"12345678"))
    assert uploads.begin("a", changed) is not first
    assert uploads.announced_bytes == 8


def test_uploads_of_different_devices_do_not_meet() -> None:
    uploads = Uploads()
    one, other = uploads.begin("a", manifest(b"12345678")), uploads.begin("b", manifest(b"12345678"))
    assert one is not None
    assert other is not None
    one.assembly.add(0, b"1234")
    assert len(list(from_bitmap(other.assembly.missing, 2))) == 2


def test_the_quota_counts_what_is_announced() -> None:
    uploads = Uploads(quota_bytes=10)
    assert uploads.begin("a", manifest(b"12345678")) is not None
    assert uploads.begin("b", manifest(b"12345678")) is None
    assert uploads.of("b", "t") is None
    uploads.drop("a")
    assert uploads.begin("b", manifest(b"12345678")) is not None


def test_a_chunk_finds_only_the_upload_of_its_task() -> None:
    uploads = Uploads()
    uploads.begin("a", manifest(b"12345678"))
    assert uploads.of("a", "t") is not None
    assert uploads.of("a", "u") is None
    uploads.clear()
    assert uploads.of("a", "t") is None


def test_sizes_out_of_bounds_are_refused_and_keep_nothing() -> None:
    uploads = Uploads()
    with pytest.raises(Malformed, match="chunks"):
        uploads.begin("a", manifest(bytes(1 << 15), chunk_bytes=1))
    assert uploads.announced_bytes == 0


def test_a_wrong_digest_is_forgiven_until_the_last_time() -> None:
    upload = Uploads().begin("a", manifest(b"12345678"))
    assert upload is not None
    for failure in range(1, MAX_FAILURES + 1):
        upload.assembly.add(0, b"xxxx")
        upload.assembly.add(1, b"xxxx")
        if failure < MAX_FAILURES:
            assert upload.payload() is None
            assert not upload.assembly.complete
    with pytest.raises(RemoteProtocolError, match="digest"):
        upload.payload()
