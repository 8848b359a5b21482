"""System maps: one whole, and the check of a map that a user brings."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response

from api.formats import LICENCE, given_parameters
from api.lists import PROBLEM
from api.problems import NotFound, problem
from kg.cases import MAX_BYTES, MapErrors, check_map
from kg.errors import BadParameter, StrataError
from kg.queries import answer_of
from kg.serving import Service
from kg.store import Store

_MEDIA = {"text/turtle": "ttl", "application/json": "json", "text/csv": "csv"}


def whole(store: Store, name: str) -> dict[str, Any]:
    """A system map with all that is on it, and how many of its components each framework reaches in which way."""
    known = {r["case"]: r for r in answer_of(store, "cases")}
    if name not in known:
        raise NotFound(f"No system map '{name}'. There are: {', '.join(known)}.")
    reach: dict[str, Counter[str]] = {}
    for r in answer_of(store, "case-gaps", case=name):
        reach.setdefault(r["framework"], Counter())[r["gap"]] += 1
    parts = {
        "components": answer_of(store, "case-components", case=name),
        "links": answer_of(store, "case-links", case=name),
        "mitigations": answer_of(store, "case-mitigations", case=name),
    }
    return {**known[name], "counts": {k: len(v) for k, v in parts.items()}, **parts, "reach": reach}


async def _body(request: Request) -> bytes:
    received = b""
    async for chunk in request.stream():
        received += chunk
        if len(received) > MAX_BYTES:
            raise StrataTooLarge(f"The map has more than {MAX_BYTES} bytes. Split it.")
    return received


class StrataTooLarge(StrataError):
    """A body larger than the service takes."""


def router(service: Service) -> APIRouter:
    """Endpoints of system maps that are not lists."""
    routes = APIRouter()

    @routes.get(
        "/v1/cases/{case}",
        tags=["cases"],
        summary="What is on one system map, and how far does each framework reach it?",
        responses={404: PROBLEM, 503: PROBLEM},
    )
    def one_case(case: str, request: Request) -> Response:
        given = given_parameters(request)
        if given:
            raise BadParameter(next(iter(given)), f"unknown parameter '{next(iter(given))}'", ("format",))
        store = service.store()
        headers = {"strata-snapshot": store.snapshot, "link": f'<{LICENCE}>; rel="license"'}
        return JSONResponse({**whole(store, case), "snapshot": store.snapshot, "license": LICENCE}, headers=headers)

    content = {media: {"schema": {"type": "string"}} for media in _MEDIA}

    @routes.post(
        "/v1/cases/check",
        tags=["cases"],
        summary="Which components of a map of your own does each framework reach?",
        openapi_extra={"requestBody": {"required": True, "content": content}},
        responses={413: PROBLEM, 415: PROBLEM, 422: PROBLEM, 503: PROBLEM},
    )
    async def check(request: Request) -> Response:
        media = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if media not in _MEDIA:
            valid = ", ".join(_MEDIA)
            return problem(415, "Unknown kind of map", f"Send a map as one of: {valid}; got '{media[:80]}'.")
        try:
            data = await _body(request)
        except StrataTooLarge as error:
            return problem(413, "Map too large", str(error))
        store = service.store()
        try:
            result = await run_in_threadpool(check_map, store, data, _MEDIA[media], given_parameters(request))
        except MapErrors as error:
            listed = [vars(e) for e in error.errors]
            return problem(422, "The map has errors", str(error), errors=listed)
        body = {
            "items": result.gaps,
            "total": len(result.gaps),
            "next": None,
            "map": result.summary,
            "norms": result.norms,
        }
        return JSONResponse(
            {**body, "snapshot": store.snapshot, "license": LICENCE}, headers={"strata-snapshot": store.snapshot}
        )

    return routes
