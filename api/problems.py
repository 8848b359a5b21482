"""Errors as ``application/problem+json`` (RFC 9457), each saying what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from kg.errors import (
    BadParameter,
    BadParameters,
    Busy,
    NoSnapshot,
    NotAcceptable,
    QueryError,
    QueryTimeout,
    StoreUnavailable,
    StrataError,
)

MEDIA_TYPE = "application/problem+json"


class NotFound(StrataError):
    """There is nothing of that name here."""


def problem(
    status: int,
    title: str,
    detail: str,
    *,
    retry_after: int | None = None,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> JSONResponse:
    """A problem document."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    chosen = {**(headers or {}), "cache-control": "no-store"}
    if retry_after is not None:
        chosen["retry-after"] = str(retry_after)
    return JSONResponse(body, status_code=status, media_type=MEDIA_TYPE, headers=chosen)


def _parameters(error: BadParameter | BadParameters) -> JSONResponse:
    errors = error.errors if isinstance(error, BadParameters) else (error,)
    listed = [{"parameter": e.parameter, "reason": e.reason, "valid": list(e.valid)} for e in errors]
    detail = " ".join(f"{e.parameter}: {e.reason}." for e in errors)
    return problem(422, "Unknown or unusable parameter", detail, errors=listed)


def answer_for(error: StrataError) -> JSONResponse:
    """The problem document for an error of this project."""
    if isinstance(error, BadParameter | BadParameters):
        return _parameters(error)
    if isinstance(error, NotFound):
        return problem(404, "Not found", str(error))
    if isinstance(error, Busy):
        status, title = (429, "Too many requests") if error.own_fault else (503, "Too busy")
        return problem(status, title, str(error), retry_after=error.retry_after)
    if isinstance(error, QueryTimeout):
        return problem(503, "Query stopped", str(error))  # no Retry-After: it would run out of time again
    if isinstance(error, NotAcceptable):
        return problem(406, "Not acceptable", str(error))
    if isinstance(error, QueryError):
        return problem(400, "Query refused", str(error))
    if isinstance(error, NoSnapshot | StoreUnavailable):
        return problem(503, "Nothing to answer from", str(error), retry_after=5)
    return problem(500, "Error", str(error))


def install(app: FastAPI) -> None:
    """Make every error of the app a problem document."""

    @app.exception_handler(StrataError)
    async def _strata(_: Request, error: StrataError) -> JSONResponse:
        return answer_for(error)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        hint = " See /docs for what is here." if error.status_code == 404 else ""
        detail = f"{request.method} {request.url.path}: {error.detail}.{hint}"
        return problem(error.status_code, str(error.detail), detail, headers=error.headers)

    @app.exception_handler(Exception)
    async def _unexpected(_: Request, __: Exception) -> JSONResponse:
        return problem(500, "Error", "This should not have happened. The log has it under this X-Request-ID.")

    @app.exception_handler(RequestValidationError)
    async def _validation(_: Request, error: RequestValidationError) -> JSONResponse:
        listed = [{"parameter": str(e["loc"][-1]), "reason": e["msg"], "valid": []} for e in error.errors()]
        detail = " ".join(f"{e['parameter']}: {e['reason']}." for e in listed)
        return problem(422, "Unknown or unusable parameter", detail, errors=listed)


def documented() -> dict[int | str, dict[str, Any]]:
    """The answers that every endpoint may give beside its own, for the OpenAPI document."""
    schema = {
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "errors": {"type": "array", "items": {"type": "object"}},
        },
    }
    content = {MEDIA_TYPE: {"schema": schema}}
    reasons = {
        400: "The request or its query is malformed or refused.",
        404: "There is nothing of that name.",
        405: "Only reading is allowed.",
        406: "The result cannot be written in any format that `Accept` names.",
        408: "The body did not arrive in time.",
        413: "The body is too large.",
        414: "The address is too long.",
        415: "The body is of a type that is not read here.",
        422: "A parameter is unknown or unusable; names the nearest valid ones.",
        429: "This client asks too much; `Retry-After` says when to come again.",
        503: "Too busy, stopped at a bound, or nothing to answer from.",
    }
    return {
        304: {"description": "The client's copy, by its `ETag`, is still right."},
        **{status: {"description": reason, "content": content} for status, reason in reasons.items()},
    }
