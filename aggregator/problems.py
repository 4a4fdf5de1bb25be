"""Errors of the HTTP door as application/problem+json (RFC 9457, "Problem Details for HTTP APIs")."""

from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from aggregator.coordinator import Busy
from aggregator.faults import CommandRefused, Fault
from aggregator.paging import BadCursor

STATUS: Final = {
    Fault.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Fault.FORBIDDEN: HTTPStatus.FORBIDDEN,
    Fault.CONFLICT: HTTPStatus.CONFLICT,
    Fault.INVALID: HTTPStatus.UNPROCESSABLE_ENTITY,
}
MEDIA_TYPE: Final = "application/problem+json"


class Problem(BaseModel):
    """What went wrong. `type` is stable, `detail` is for people."""

    type: str = Field(examples=["urn:bitfleet:problem:not-found"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["device 'pi-7' is not known"])


def problem(status: HTTPStatus, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """A response that says what went wrong."""
    name = status.phrase.lower().replace(" ", "-")
    body = Problem(type=f"urn:bitfleet:problem:{name}", title=status.phrase, status=status, detail=detail)
    return JSONResponse(body.model_dump(), status, headers, MEDIA_TYPE)


def documented(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """These problems for the OpenAPI description of a route."""
    content = {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
    return {int(status): {"description": status.phrase, "content": content} for status in statuses}


def install(app: FastAPI) -> None:
    """Answer every error of `app` with a problem."""
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(CommandRefused, _on_refused)
    app.add_exception_handler(BadCursor, _on_bad_cursor)
    app.add_exception_handler(Busy, _on_busy)
    app.add_exception_handler(Exception, _on_bug)


def _on_http_exception(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return problem(HTTPStatus(error.status_code), str(error.detail), dict(error.headers or {}))


def _on_invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    details = [f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()]
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "; ".join(details))


def _on_refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, CommandRefused)
    return problem(STATUS[error.fault], str(error))


def _on_bad_cursor(_: Request, error: Exception) -> JSONResponse:
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))


def _on_busy(_: Request, error: Exception) -> JSONResponse:
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error), {"Retry-After": "5"})


def _on_bug(_: Request, error: Exception) -> JSONResponse:
    return problem(
        HTTPStatus.INTERNAL_SERVER_ERROR, f"the aggregator failed at this ({type(error).__name__}); see its log"
    )
