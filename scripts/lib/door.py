"""The aggregator's HTTP door, as the demo uses it."""

import json
from pathlib import Path
from typing import Any, Self

import urllib3

from aggregator.client import following


class DoorError(Exception):
    """The aggregator refused; the message says what it answered."""


class Door:
    """An aggregator that runs on this machine, found by its state directory."""

    def __init__(self, url: str, state: Path) -> None:
        self.url, self._state = url, state
        self._http = urllib3.PoolManager(timeout=10.0, retries=urllib3.Retry(3, backoff_factor=0.2))

    @classmethod
    def of(cls, state: Path) -> Self | None:
        """The door of the aggregator in `state`, None before it is open."""
        try:
            return cls(str(json.loads((state / "endpoint.json").read_text())["http"]), state)
        except FileNotFoundError:
            return None

    def get(self, path: str) -> Any:
        """Read."""
        return self._request("GET", path).json()

    def every(self, path: str) -> list[Any]:
        """Read a list, page after page."""
        rows: list[Any] = []
        while path:
            response = self._request("GET", path)
            rows += response.json()
            path = following(path, response.headers.get("Link", ""))
        return rows

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Write, with the administrator's token; None where there is nothing to say."""
        token = (self._state / "admin-token").read_text().strip()
        answer = self._request("POST", path, json=body, headers={"Authorization": f"Bearer {token}"})
        return answer.json() if answer.data else None

    def blob(self, digest: str) -> bytes:
        """A file by its SHA-256."""
        return bytes(self._request("GET", f"/api/v1/blobs/{digest}").data)

    def _request(self, method: str, path: str, **arguments: Any) -> urllib3.BaseHTTPResponse:
        response = self._http.request(method, self.url + path, **arguments)
        if response.status >= 400:
            raise DoorError(f"aggregator answered {response.status} for {path}: {response.data.decode()[:300]}")
        return response
