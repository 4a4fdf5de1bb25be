"""The HTTP application, and the server that runs it in a thread of its own.

The interactive documentation of FastAPI loads its scripts from a CDN; it is off, /openapi.json is there.
"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import uvicorn
from fastapi import FastAPI, HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aggregator import ports, problems
from aggregator.desk import Desk
from aggregator.identity_routes import identity
from aggregator.keyring import SERVER, Keyring
from aggregator.routes import figures, open_to_all, reading, writing

MAX_BODY_BYTES: Final = 64 * 1024
"""No request of ours has more; updates come over MQTT."""
_EXPECTED: Final = f"expected at most {MAX_BODY_BYTES} bytes"
ROUTERS: Final = (open_to_all, figures, reading, writing, identity)
START_WITHIN_S: Final = 10.0
GOODBYE_WITHIN_S: Final = 3


def build_app(desk: Desk) -> FastAPI:
    """The application of one aggregator."""
    app = FastAPI(
        title="bitfleet aggregator",
        version=_version(),
        summary="Devices, rounds, updates and models of one fleet",
        docs_url=None,
        redoc_url=None,
    )
    app.state.desk = desk
    problems.install(app)
    for router in ROUTERS:
        app.include_router(router)
    app.add_middleware(BodyLimit)
    return app


class BodyLimit:
    """Refuses request bodies above `MAX_BODY_BYTES` before they are held in memory."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        announced = dict(scope.get("headers", [])).get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > MAX_BODY_BYTES:
            detail = f"body of {announced.decode('latin-1')[:20]} bytes: {_EXPECTED}"
            await problems.problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)(scope, receive, send)
            return
        seen_bytes = 0

        async def counted() -> Message:
            nonlocal seen_bytes
            message = await receive()
            seen_bytes += len(message.get("body", b""))
            if seen_bytes > MAX_BODY_BYTES:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"body without a length: {_EXPECTED}")
            return message

        await self._app(scope, counted, send)


@contextmanager
def serve_http(app: FastAPI, host: str, port: int, keyring: Keyring | None = None) -> Iterator[str]:
    """Serve `app` in a thread for as long as the block runs, over TLS if there are certificates.

    Yields the URL for this machine.

    Raises:
        OSError: the address cannot be bound, or the server does not start.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        config = uvicorn.Config(
            app,
            log_config=None,  # whoever runs the service says where logs go
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=GOODBYE_WITHIN_S,
            loop="asyncio",  # uvloop, where it is installed, does not end while a client keeps a TLS connection open
            ssl_certfile=keyring.certificate(SERVER) if keyring else None,
            ssl_keyfile=keyring.key(SERVER) if keyring else None,
        )
        config.load()
        if keyring and config.ssl:
            context, files = config.ssl, (keyring.certificate(SERVER), keyring.key(SERVER))
            keyring.listen(lambda: context.load_cert_chain(*files))
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), name="http", daemon=True)
        thread.start()
        try:
            _wait_until_started(server, thread)
            name = ports.reachable(host)
            scheme, place = "https" if keyring else "http", f"[{name}]" if ":" in name else name
            yield f"{scheme}://{place}:{listener.getsockname()[1]}"
        finally:
            app.state.desk.feed.close()  # whoever listens would keep the server waiting
            server.should_exit = True
            thread.join()


def _wait_until_started(server: uvicorn.Server, thread: threading.Thread) -> None:
    give_up_at = time.monotonic() + START_WITHIN_S
    while not server.started:
        if not thread.is_alive() or time.monotonic() > give_up_at:
            raise OSError("the HTTP server did not start; its reason is in the log above")
        time.sleep(0.01)


def _version() -> str:
    try:
        return version("bitfleet")
    except PackageNotFoundError:  # run from a checkout
        return "0"
