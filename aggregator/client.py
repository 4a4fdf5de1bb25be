"""Talks to a running aggregator over HTTP, for the command line."""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin

import urllib3

from aggregator import secret_files, state_dir
from aggregator.authority import AUTHORITY
from aggregator.keyring import CERTIFICATES
from aggregator.routes import API

DEFAULT_URL: Final = "http://127.0.0.1:8700"
TIMEOUT_S: Final = 40.0
"""A little more than the aggregator's own patience with itself."""


class ClientError(Exception):
    """The aggregator cannot be reached or has refused; the message says what to do."""


class Client:
    """One aggregator.

    Args:
        url: its HTTP door, where the page is too.
        token: an administrator's or a user's token, or nothing.
        authority: the certificate to trust over https; None trusts the system's.
    """

    def __init__(self, url: str, token: str = "", authority: Path | None = None) -> None:
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._pool = urllib3.PoolManager(timeout=TIMEOUT_S, retries=False, **_trusting(authority))

    def get(self, path: str) -> Any:
        """The JSON below `path`.

        Raises:
            ClientError: no answer, or a refusal.
        """
        return self._call("GET", path, None)

    def every(self, path: str, rows: str = "") -> Any:
        """A list below `path`, page after page put together.

        Args:
            path: what to read.
            rows: the key of the list where the answer holds more; the rest is that of the first page.

        Raises:
            ClientError: no answer, or a refusal.
        """
        whole: Any = None
        while path:
            answer = self._request("GET", path, None)
            page = self._json(answer)
            if whole is None:
                whole = page
            else:
                (whole[rows] if rows else whole).extend(page[rows] if rows else page)
            path = following(path, answer.headers.get("Link", ""))
        return whole

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Send a command.

        Raises:
            ClientError: no answer, or a refusal.
        """
        return self._call("POST", path, body)

    def put(self, path: str, body: Mapping[str, Any]) -> Any:
        """Set something.

        Raises:
            ClientError: no answer, or a refusal.
        """
        return self._call("PUT", path, body)

    def delete(self, path: str) -> None:
        """Remove something.

        Raises:
            ClientError: no answer, or a refusal.
        """
        self._call("DELETE", path, None)

    def blob(self, digest: str) -> bytes:
        """A blob, checked against its name.

        Raises:
            ClientError: no answer, or other bytes than asked for.
        """
        data = self._request("GET", f"/blobs/{digest}", None).data
        if sha256(data).hexdigest() != digest:
            raise ClientError(f"blob {digest}: the answer has another SHA-256; try again")
        return data

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        return self._json(self._request(method, path, body))

    def _json(self, answer: urllib3.BaseHTTPResponse) -> Any:
        try:
            return json.loads(answer.data) if answer.data else None
        except ValueError as error:
            raise ClientError(f"{self.url} did not answer with JSON: is this an aggregator?") from error

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None) -> urllib3.BaseHTTPResponse:
        headers = dict(self._headers)
        data = None
        if body is not None:
            headers["Content-Type"], data = "application/json", json.dumps(body).encode()
        try:
            answer = self._pool.request(method, f"{self.url}{API}{path}", body=data, headers=headers)
        except urllib3.exceptions.HTTPError as error:
            raise ClientError(
                f"no aggregator answers at {self.url}: start one with 'bitfleet-aggregator serve', or give --url"
            ) from error
        if answer.status >= 400:
            raise ClientError(_complaint(answer))
        return answer


def following(path: str, link: str) -> str:
    """The path of the page that a Link header (RFC 8288) of `path` names as the next; empty after the last."""
    reference, _, relation = link.partition(">")
    return urljoin(path, reference.removeprefix("<")) if 'rel="next"' in relation else ""


def _complaint(answer: urllib3.BaseHTTPResponse) -> str:
    try:
        return str(json.loads(answer.data)["detail"])
    except (ValueError, KeyError, TypeError):
        return f"the aggregator answered with status {answer.status}"


def find(url: str | None, state: Path, environment: Mapping[str, str]) -> Client:
    """The aggregator meant by options, environment and state directory, in this order.

    Args:
        url: the option, or None.
        state: the state directory; on the aggregator's own machine it knows URL and token.
        environment: `BITFLEET_URL`, `BITFLEET_TOKEN` and `BITFLEET_CA` (a file) are read.
    """
    endpoint = state_dir.read_endpoint(state)
    authority = Path(environment["BITFLEET_CA"]) if environment.get("BITFLEET_CA") else _local_authority(state)
    found = url or environment.get("BITFLEET_URL") or (endpoint.http if endpoint else DEFAULT_URL)
    return Client(found, environment.get("BITFLEET_TOKEN") or _local_token(state), authority)


def _local_authority(state: Path) -> Path | None:
    path = state / CERTIFICATES / AUTHORITY
    return path if path.exists() else None


def _trusting(authority: Path | None) -> dict[str, Any]:
    return {} if authority is None else {"ca_certs": str(authority)}


def _local_token(state: Path) -> str:
    path = state / secret_files.ADMIN_TOKEN
    try:
        return path.read_text().strip()
    except OSError:
        return ""  # reads may be open; a write will say what is missing
