"""SPARQL 1.1 Protocol for queries: GET, POST form, POST direct. Read-only and bounded."""

from __future__ import annotations

from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from api.formats import LICENCE, negotiate
from api.problems import problem
from kg.errors import QueryError
from kg.guard import MAX_LENGTH, check
from kg.serving import Service
from kg.worker import GRAPH_FORMATS, RESULT_FORMATS

_MAX_BODY = 4 * MAX_LENGTH
_OTHER = ("default-graph-uri", "named-graph-uri")
_SHORT = {
    "json": "application/sparql-results+json",
    "xml": "application/sparql-results+xml",
    "csv": "text/csv",
    "tsv": "text/tab-separated-values",
    "ttl": "text/turtle",
    "nt": "application/n-triples",
    "jsonld": "application/ld+json",
    "rdf": "application/rdf+xml",
}


async def _body(request: Request) -> bytes:
    received = b""
    async for chunk in request.stream():
        received += chunk
        if len(received) > _MAX_BODY:
            raise QueryError(f"The request has more than {_MAX_BODY} bytes. Shorten the query.")
    return received


def _one(values: dict[str, list[str]]) -> str:
    for name in _OTHER:
        if name in values:
            raise QueryError(f"{name} is not supported yet; name graphs with FROM or GRAPH in the query.")
    if "update" in values:
        raise QueryError("This endpoint only reads: updates are refused.")
    found = values.get("query", [])
    if len(found) != 1:
        raise QueryError("Give exactly one 'query' parameter with a SPARQL query.")
    return found[0]


async def _query_of(request: Request) -> str:
    if request.method == "GET":
        return _one({k: request.query_params.getlist(k) for k in request.query_params})
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    body = await _body(request)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise QueryError("The body is not UTF-8.") from error
    if kind == "application/sparql-query":
        return text
    if kind == "application/x-www-form-urlencoded":
        return _one(parse_qs(text, keep_blank_values=True))
    if kind == "application/sparql-update":
        raise QueryError("This endpoint only reads: updates are refused.")
    raise QueryError("POST a query as application/sparql-query or application/x-www-form-urlencoded.")


def router(service: Service) -> APIRouter:
    """The endpoint."""
    routes = APIRouter()

    async def answer(request: Request) -> Response:
        text = await _query_of(request)
        form = await run_in_threadpool(check, text)
        offered = list(RESULT_FORMATS) if form in ("SELECT", "ASK") else list(GRAPH_FORMATS)
        short = request.query_params.get("format")
        if short is not None and _SHORT.get(short) not in offered:
            valid = [k for k, v in _SHORT.items() if v in offered]
            return problem(
                422, "Unknown format", f"format: '{short}' does not fit a {form} query. Valid: {', '.join(valid)}."
            )
        media = _SHORT[short] if short else negotiate(request.headers.get("accept", ""), offered)
        reply = await run_in_threadpool(service.run, text, media)
        headers = {
            "strata-snapshot": service.store().snapshot,
            "link": f'<{LICENCE}>; rel="license"',
            "vary": "Accept",
            "access-control-allow-origin": "*",
        }
        if reply.truncated:
            headers["strata-truncated"] = f"rows={service.limits.rows}"
        return Response(reply.body, media_type=reply.media_type, headers=headers)

    parameters = [
        {
            "name": "query",
            "in": "query",
            "required": True,
            "schema": {"type": "string"},
            "description": "SPARQL 1.1 query.",
            "example": "SELECT * WHERE { ?s ?p ?o } LIMIT 5",
        },
        {
            "name": "format",
            "in": "query",
            "schema": {"type": "string", "enum": list(_SHORT)},
            "description": "Representation, instead of `Accept`.",
        },
    ]

    @routes.get(
        "/sparql", tags=["sparql"], summary="Ask a SPARQL query of your own", openapi_extra={"parameters": parameters}
    )
    async def get(request: Request) -> Response:
        return await answer(request)

    body = {"application/sparql-query": {"schema": {"type": "string"}}}

    @routes.post(
        "/sparql",
        tags=["sparql"],
        summary="Ask a SPARQL query in the body",
        openapi_extra={"requestBody": {"required": True, "content": body}},
    )
    async def post(request: Request) -> Response:
        return await answer(request)

    return routes
