"""What there is to take away: the dataset described as VoID and DCAT, and its dumps."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response

from api.formats import LICENCE, acceptable
from api.problems import NotFound
from api.sparql import base_url
from kg.dumps import DUMPS, dump
from kg.results import DESCRIPTION_FORMATS
from kg.serving import Service


def router(service: Service) -> APIRouter:
    """``/.well-known/void`` and ``/downloads``."""
    routes = APIRouter()
    packed: dict[str, Any] = {"application/gzip": {"schema": {}}}
    content = {m: {"schema": {"type": "string"}} for m in DESCRIPTION_FORMATS}

    @routes.get(
        "/.well-known/void",
        tags=["service"],
        summary="What is the dataset, how large is it, and where is it to be had?",
        description="VoID and DCAT: sizes, classes and properties with their counts, endpoint and dumps.",
        response_class=Response,
        openapi_extra={"responses": {"200": {"description": "The description.", "content": content}}},
    )
    def void(request: Request) -> Response:
        media = acceptable(request.headers.get("accept", ""), list(DESCRIPTION_FORMATS)) or DESCRIPTION_FORMATS[0]
        store = service.store()
        from kg.describe import dataset_description  # see kg.namespaces: not before it is asked for

        body = dataset_description(base_url(request, service), store, service.manifest(), media)
        return Response(body, media_type=media, headers={"strata-snapshot": store.snapshot, "vary": "Accept"})

    @routes.get("/downloads", tags=["service"], summary="Which dumps of the whole graph are there?")
    def downloads(request: Request) -> dict[str, Any]:
        base = base_url(request, service)
        items = [
            {"name": n, "url": f"{base}/downloads/{n}", "media_type": d.format.media_type, "description": d.about}
            for n, d in DUMPS.items()
            if not service.is_remote
        ]
        return {"items": items, "total": len(items), "snapshot": service.snapshot(), "license": LICENCE}

    @routes.get(
        "/downloads/{name}",
        tags=["service"],
        summary="A dump of the whole graph",
        response_class=FileResponse,
        openapi_extra={
            "responses": {
                "200": {"description": "The dump.", "content": packed},
                "206": {"description": "The part asked for by `Range`.", "content": packed},
            }
        },
    )
    def download(name: str, request: Request) -> Response:
        folder = service.folder()
        if folder is None or name not in DUMPS:
            raise NotFound(f"No dump '{name[:60]}'. There is: {', '.join(DUMPS)}.")
        headers = {
            "strata-snapshot": folder.name,
            "etag": f'"{folder.name[:32]}-{name}"',
            "cache-control": "public, no-cache",
        }
        if headers["etag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return FileResponse(dump(folder, name), media_type="application/gzip", filename=name, headers=headers)

    return routes
