"""The state directory: its secrets, its lock, its note of the last run."""

import json
from pathlib import Path

import pytest

from aggregator import state_dir
from aggregator.secret_files import SecretError, admin_token, server_key
from aggregator.state_dir import StateDirError, locked


def test_keys_are_made_once_and_must_be_whole_and_private(tmp_path: Path) -> None:
    assert server_key(tmp_path).raw == server_key(tmp_path).raw
    assert admin_token(tmp_path) == admin_token(tmp_path)
    (tmp_path / "server-key").write_bytes(b"short")
    with pytest.raises(SecretError, match=r"server-key has 5 bytes, expected 32"):
        server_key(tmp_path)
    (tmp_path / "admin-token").write_text("\n")
    with pytest.raises(SecretError, match=r"admin-token is empty"):
        admin_token(tmp_path)
    (tmp_path / "admin-token").chmod(0o644)
    with pytest.raises(SecretError, match=r"chmod 600"):
        admin_token(tmp_path)


def test_a_damaged_note_of_the_last_run_is_as_none(tmp_path: Path) -> None:
    for text in ("", "{", "[]", json.dumps({"http": "x"})):
        (tmp_path / "endpoint.json").write_text(text)
        assert state_dir.read_endpoint(tmp_path) is None


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateDirError, match=r"file/state: Not a directory"), locked(tmp_path / "file/state"):
        pass
