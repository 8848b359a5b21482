"""Errors as ``application/problem+json`` (RFC 9457), each saying what to do."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from kg.errors import (
    BadParameter,
    BadParameters,
    NoSnapshot,
    QueryError,
    QueryTimeout,
    StoreUnavailable,
    StrataError,
)

MEDIA_TYPE = "application/problem+json"


class NotFound(StrataError):
    """There is nothing of that name here."""


def problem(status: int, title: str, detail: str, **more: Any) -> JSONResponse:
    """A problem document."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    headers = {"retry-after": "2"} if status == 503 else None
    return JSONResponse(body, status_code=status, media_type=MEDIA_TYPE, headers=headers)


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
    if isinstance(error, QueryTimeout):
        return problem(503, "Query stopped", str(error))
    if isinstance(error, QueryError):
        return problem(400, "Query refused", str(error))
    if isinstance(error, NoSnapshot | StoreUnavailable):
        return problem(503, "Nothing to answer from", str(error))
    return problem(500, "Error", str(error))


def install(app: FastAPI) -> None:
    """Make every error of the app a problem document."""

    @app.exception_handler(StrataError)
    async def _strata(_: Request, error: StrataError) -> JSONResponse:
        return answer_for(error)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        hint = " See /docs for what is here." if error.status_code == 404 else ""
        return problem(
            error.status_code, str(error.detail), f"{request.method} {request.url.path}: {error.detail}.{hint}"
        )

    @app.exception_handler(RequestValidationError)
    async def _validation(_: Request, error: RequestValidationError) -> JSONResponse:
        listed = [{"parameter": str(e["loc"][-1]), "reason": e["msg"], "valid": []} for e in error.errors()]
        detail = " ".join(f"{e['parameter']}: {e['reason']}." for e in listed)
        return problem(422, "Unknown or unusable parameter", detail, errors=listed)
