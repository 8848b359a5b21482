"""Limitations and recommendations: what the argument claims, and what the graph answers."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from api.formats import LICENCE, as_csv, chosen_format, given_parameters
from api.lists import PROBLEM, openapi_parameters
from kg.argument import RESOLVED_OTHERWISE, SEED, WEIGHTS, Kind, argue, flat, measures
from kg.serving import Service

_COLUMNS = (
    "claim",
    "measure",
    "what",
    "framework",
    "norms",
    "passing",
    "share",
    "low",
    "high",
    "by_force",
    "by_provision",
    "verdict",
    "flips",
)
_HOW = {
    "low_high": "The share as coded, and what 95 % of 1,000 draws lie within, in which each contested coding is "
    "resolved to one of its recorded alternatives with the chance given for its confidence.",
    "by_force": "Each norm weighted by its force.",
    "by_provision": "Each provision counted once, by the share of its norms that pass.",
    "flips": "Which of these would change the verdict. Norms behind a share: /v1/queries/{measure}?framework=….",
    "seed": SEED,
    "resolved_otherwise": RESOLVED_OTHERWISE,
    "weights": WEIGHTS,
}


def router(service: Service) -> APIRouter:
    """The two endpoints."""
    routes = APIRouter()

    def endpoint(kind: Kind, path: str, question: str) -> None:
        def answer(request: Request) -> Response:
            store = service.store()
            items = argue(store, kind, given_parameters(request))
            headers = {"strata-snapshot": store.snapshot, "link": f'<{LICENCE}>; rel="license"', "vary": "Accept"}
            if chosen_format(request, "json", "csv") == "text/csv":
                return Response(as_csv(_COLUMNS, flat(items)), media_type="text/csv", headers=headers)
            body: dict[str, Any] = {"items": items, "total": len(items), "next": None, "how_sure": _HOW}
            return JSONResponse({**body, "snapshot": store.snapshot, "license": LICENCE}, headers=headers)

        filters = measures(f"{kind}-1")[0]
        routes.add_api_route(
            path,
            answer,
            methods=["GET"],
            name=path.rpartition("/")[2],
            summary=question,
            tags=["argument"],
            response_class=JSONResponse,
            openapi_extra={"parameters": openapi_parameters(filters), "responses": {"422": PROBLEM, "503": PROBLEM}},
        )

    endpoint("limitation", "/v1/limitations", "Do the four limitations charged against governance frameworks hold?")
    endpoint("recommendation", "/v1/recommendations", "How far does each framework follow the four recommendations?")
    return routes
