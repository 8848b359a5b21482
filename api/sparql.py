"""SPARQL 1.1 Protocol for queries: GET, POST form, POST direct. Read-only and bounded.

A request without a query is answered with the service description. ``406`` is answered
when ``Accept`` or ``format`` names only types in which the form of the query cannot be
written; errors are problem documents whatever ``Accept`` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl

import anyio
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from api import metrics
from api.formats import LICENCE, acceptable
from api.problems import problem
from api.record import record_of
from kg.errors import Busy, NotAcceptable, QueryError, QueryTimeout, StrataError
from kg.results import DESCRIPTION_FORMATS, GRAPH_FORMATS, RESULT_FORMATS
from kg.serving import Service
from kg.worker import Question, Reply

_JSON, _XML = "application/sparql-results+json", "application/sparql-results+xml"
SHORT: dict[str, tuple[str | None, str | None]] = {
    "json": (_JSON, "application/ld+json"),
    "xml": (_XML, "application/rdf+xml"),
    "csv": ("text/csv", None),
    "tsv": ("text/tab-separated-values", None),
    "ttl": (None, "text/turtle"),
    "turtle": (None, "text/turtle"),
    "nt": (None, "application/n-triples"),
    "jsonld": (None, "application/ld+json"),
    "json-ld": (None, "application/ld+json"),
    "rdf": (None, "application/rdf+xml"),
    "rdf+xml": (None, "application/rdf+xml"),
    "trig": (None, "application/trig"),
    "nq": (None, "application/n-quads"),
}
"""Values of ``format``: the type for rows and the type for triples that each stands for."""
_FORM = "application/x-www-form-urlencoded"
_DIRECT = "application/sparql-query"
_DEFAULT, _NAMED = "default-graph-uri", "named-graph-uri"


@dataclass(frozen=True)
class _Given:
    """A request taken apart; ``query`` is None if it asks nothing."""

    query: str | None
    default_graphs: tuple[str, ...] | None
    named_graphs: tuple[str, ...] | None
    format: str | None


def _pairs(text: bytes | str, where: str) -> list[tuple[str, str]]:
    try:
        raw = text.decode("ascii") if isinstance(text, bytes) else text
        return parse_qsl(raw, keep_blank_values=True, errors="strict", max_num_fields=1000)
    except UnicodeError as error:
        raise QueryError(f"The {where} is not UTF-8.") from error
    except ValueError as error:
        raise QueryError(f"The {where} has too many fields.") from error


def _given(pairs: Sequence[tuple[str, str]]) -> _Given:
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    if "update" in values:
        raise QueryError("This endpoint only reads: updates are refused.")
    if len(values.get("query", [])) > 1:
        raise QueryError(f"Give 'query' once, not {len(values['query'])} times.")
    # A dataset of the request replaces the one in the query as soon as either kind is named.
    has_dataset = _DEFAULT in values or _NAMED in values
    graphs = [tuple(values.get(n, ())) if has_dataset else None for n in (_DEFAULT, _NAMED)]
    query = next(iter(values.get("query", [])), None)
    # Some clients say the format twice, once in their own words.
    forms = values.get("format", [])
    form = next((f for f in forms if f in SHORT), forms[0] if forms else None)
    return _Given(query, graphs[0], graphs[1], form)


async def _read(request: Request) -> _Given:
    address = _pairs(request.scope["query_string"], "address")
    if request.method != "POST":
        return _given(address)
    kind, _, parameters = request.headers.get("content-type", "").lower().partition(";")
    kind = kind.strip()
    if kind == "application/sparql-update":
        raise QueryError("This endpoint only reads: updates are refused.")
    if kind not in (_FORM, _DIRECT):
        raise HTTPException(415, f"POST a query as {_DIRECT} or {_FORM}")
    charset = parameters.replace(" ", "").replace('"', "").partition("charset=")[2].partition(";")[0]
    if charset not in ("", "utf-8", "utf8", "us-ascii"):
        raise HTTPException(415, "Only UTF-8 is read")
    body = await request.body()
    if kind == _FORM:
        return _given(_pairs(body, "body") + address)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise QueryError("The body is not UTF-8.") from error
    return _given([("query", text), *address])


def _types(request: Request, short: str | None) -> tuple[str | None, str | None]:
    """Media types for rows and for triples, None where the caller takes none of ours."""
    if short is None:
        accept = request.headers.get("accept", "")
        return acceptable(accept, list(RESULT_FORMATS)), acceptable(accept, list(GRAPH_FORMATS))
    if short in SHORT:
        return SHORT[short]
    return short if short in RESULT_FORMATS else None, short if short in GRAPH_FORMATS else None


def base_url(request: Request, service: Service) -> str:
    """The address of the service, as set or as the request has it, without a slash at its end."""
    return (service.settings.public_url or str(request.base_url)).rstrip("/")


def _outcome(error: StrataError) -> str:
    outcomes = {Busy: "busy", QueryTimeout: "timeout", NotAcceptable: "not-acceptable", QueryError: "refused"}
    return next((name for kind, name in outcomes.items() if isinstance(error, kind)), "unavailable")


def _headers(reply: Reply, snapshot: str, rows: int, note: str) -> dict[str, str]:
    headers = {"strata-snapshot": snapshot, "link": f'<{LICENCE}>; rel="license"', "vary": "Accept"}
    if reply.truncated:
        headers["strata-truncated"] = f"rows={rows}"
        headers["link"] += f', <{note}>; rel="help"; title="cut at {rows} rows"'
    if not reply.pure:
        headers["cache-control"] = "no-store"
    return headers


class Endpoint:
    """The SPARQL endpoint of a service: a fair line, and threads of its own that wait for query processes.

    Args:
        service: what it stands on.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.line = service.line()
        self._threads: anyio.CapacityLimiter | None = None

    async def __call__(self, request: Request) -> Response:
        """Answer one request of the protocol."""
        given = await _read(request)
        if given.query is None:
            if request.method == "POST" or given.default_graphs is not None or given.named_graphs is not None:
                raise QueryError("Give exactly one 'query' parameter with a SPARQL query.")
            return await run_in_threadpool(self._describe, request)
        results, graph = _types(request, given.format)
        if given.format is not None and results is graph is None:
            valid = ", ".join(SHORT)
            return problem(422, "Unknown format", f"format: '{given.format[:40]}' is unknown. Valid: {valid}.")
        record = record_of(request.scope)
        record.query_hash = sha256(given.query.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        note = f"{base_url(request, self.service)}/docs#bounds"
        question = Question(given.query, results, graph, given.default_graphs, given.named_graphs, note)
        try:
            reply, snapshot = await self._run(record.client, question)
        except StrataError as error:
            metrics.QUERIES.labels("unknown", _outcome(error)).inc()
            record.notes["outcome"] = _outcome(error)
            raise
        metrics.QUERIES.labels(reply.form, "truncated" if reply.truncated else "ok").inc()
        metrics.QUERY_SECONDS.observe(reply.seconds)
        record.snapshot = snapshot
        record.notes["query_ms"] = round(1000 * reply.seconds, 2)
        return Response(
            reply.body,
            media_type=reply.media_type,
            headers=_headers(reply, snapshot, self.service.limits.rows, note),
        )

    async def _run(self, client: str, question: Question) -> tuple[Reply, str]:
        if self._threads is None:
            self._threads = anyio.CapacityLimiter(self.service.workers)
        metrics.WAITING.inc()
        entered = False
        try:
            async with self.line.turn(client):
                metrics.WAITING.dec()
                entered = True
                return await anyio.to_thread.run_sync(partial(self.service.run, question), limiter=self._threads)
        finally:
            if not entered:
                metrics.WAITING.dec()

    def _describe(self, request: Request) -> Response:
        from kg.describe import service_description  # see kg.namespaces: not before it is asked for

        media = acceptable(request.headers.get("accept", ""), list(DESCRIPTION_FORMATS)) or DESCRIPTION_FORMATS[0]
        base = base_url(request, self.service)
        body = service_description(f"{base}/sparql", self.service.manifest(), media)
        headers = {"strata-snapshot": self.service.snapshot(), "vary": "Accept"}
        return Response(body, media_type=media, headers=headers)


_DATASET = [
    {
        "name": name,
        "in": "query",
        "schema": {"type": "array", "items": {"type": "string"}},
        "description": f"{what} With either parameter, FROM in the query is passed over. Unknown graphs are empty.",
    }
    for name, what in (
        (_DEFAULT, "Graphs whose union is the default graph."),
        (_NAMED, "Graphs that GRAPH can name."),
    )
]
_PARAMETERS: list[Mapping[str, Any]] = [
    {
        "name": "query",
        "in": "query",
        "schema": {"type": "string"},
        "description": "SPARQL 1.1 query. Without it the service describes itself.",
        "example": "SELECT * WHERE { ?s ?p ?o } LIMIT 5",
    },
    *_DATASET,
    {
        "name": "format",
        "in": "query",
        "schema": {"type": "string"},
        "description": f"Representation, instead of `Accept`: {', '.join(SHORT)}, or a media type.",
    },
]
_ABOUT = (
    "SPARQL 1.1 Protocol, queries only. Without a dataset the default graph is the union of all graphs. "
    "An answer cut at the row limit says so in `Strata-Truncated`, and in its body where the format has a place for it."
)


def router(service: Service) -> APIRouter:
    """The endpoint."""
    routes = APIRouter()
    endpoint = Endpoint(service)
    content: dict[str, Any] = {m: {"schema": {}} for m in dict.fromkeys([*RESULT_FORMATS, *GRAPH_FORMATS])}
    answer = {"200": {"description": "The result, or without a query the service description.", "content": content}}

    @routes.get(
        "/sparql",
        tags=["sparql"],
        summary="Ask a SPARQL query of your own",
        description=_ABOUT,
        response_class=Response,
        openapi_extra={"parameters": _PARAMETERS, "responses": answer},
    )
    async def get(request: Request) -> Response:
        return await endpoint(request)

    fields = {
        "query": {"type": "string"},
        _DEFAULT: {"type": "array", "items": {"type": "string"}},
        _NAMED: {"type": "array", "items": {"type": "string"}},
        "format": {"type": "string"},
    }
    form = {"schema": {"type": "object", "required": ["query"], "properties": fields}}
    body = {_DIRECT: {"schema": {"type": "string"}}, _FORM: form}

    @routes.post(
        "/sparql",
        tags=["sparql"],
        summary="Ask a SPARQL query in the body",
        description=_ABOUT,
        response_class=Response,
        openapi_extra={
            "parameters": _DATASET,
            "requestBody": {"required": True, "content": body},
            "responses": answer,
        },
    )
    async def post(request: Request) -> Response:
        return await endpoint(request)

    return routes
