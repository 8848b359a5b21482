"""The application: named queries, look-ups, SPARQL, linked data, and how the service does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html import escape
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette_compress import CompressMiddleware, add_compress_type

from api import argument, cases, dataset, items, linked_data, lists, logs, metrics, pages, problems, sparql
from api.cache import Cache
from api.edge import Bounds, Head, Observe, Turns
from kg import __version__
from kg.errors import StrataError
from kg.queries import answer_of
from kg.results import GRAPH_FORMATS, RESULT_FORMATS
from kg.serving import Service, service_from_environment

_ABOUT = """Where do frameworks for AI risk intervene, whom do they bind, since when, and what do they leave open?
Facts (text, norms, validity) and interpretation (codings, with rationale and confidence) are kept apart;
every number comes with the query behind it. Not legal advice: only the official texts are authentic."""


_EXPOSED = ("ETag", "Link", "Retry-After", "Strata-Snapshot", "Strata-Total", "Strata-Truncated", "X-Request-ID")


def create_app(service: Service | None = None) -> FastAPI:
    """The ASGI application.

    Args:
        service: what it stands on; set up from the environment when not given.

    Raises:
        SettingsError: a setting has a value that cannot be used.
    """
    chosen = service or service_from_environment()
    chosen.on_replaced = lambda reason: metrics.REPLACED.labels(reason).inc()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        # The server has waited for all requests before it comes here.
        chosen.close()

    # The interactive pages of FastAPI load scripts from other hosts; /docs is our own.
    app = FastAPI(
        title="Strata",
        version=__version__,
        description=_ABOUT,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        license_info={"name": "Data: CC BY 4.0", "url": "https://creativecommons.org/licenses/by/4.0/"},
        responses=problems.documented(),
    )
    problems.install(app)
    _frame(app, chosen)

    @app.get("/health", tags=["service"], summary="Is the service well, and what does it serve?")
    def health() -> dict[str, Any]:
        store, manifest = chosen.store(), chosen.manifest()
        triples = manifest.triples if manifest else None
        return {"status": "ok", "version": __version__, "snapshot": store.snapshot, "triples": triples}

    @app.get("/ready", tags=["service"], summary="Can it answer now?")
    def ready() -> JSONResponse:
        """503 until the store is open and the query processes wait; says which walls stand around them."""
        try:
            walls = chosen.warm()
        except StrataError as error:
            return problems.problem(503, "Not ready", str(error), retry_after=2)
        return JSONResponse({"status": "ready", "snapshot": chosen.snapshot(), "walls": list(walls)})

    @app.get(
        "/metrics",
        tags=["service"],
        summary="Counters and timings for Prometheus",
        response_class=Response,
        openapi_extra={"responses": {"200": {"description": "Metrics.", "content": {"text/plain": {"schema": {}}}}}},
    )
    def measured() -> Response:
        metrics.WORKER_BYTES.set(chosen.worker_memory())
        manifest = chosen.manifest()
        if manifest is not None:
            metrics.TRIPLES.set(manifest.triples)
        body, media = metrics.exposition()
        return Response(body, headers={"content-type": media, "cache-control": "no-store"})

    @app.get("/", include_in_schema=False)
    def home() -> HTMLResponse:
        return _home(chosen)

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return _docs(app, chosen)

    for room in (pages, cases, argument, lists, items, sparql, dataset, linked_data):
        app.include_router(room.router(chosen))
    return app


def application() -> FastAPI:
    """The application of one server process, with its log; what ``strata serve`` starts."""
    service = service_from_environment()
    logs.configure(service.settings)
    return create_app(service)


def _frame(app: FastAPI, service: Service) -> None:
    """What every request passes, from the last line here to the first."""
    for media in (*RESULT_FORMATS, *GRAPH_FORMATS, problems.MEDIA_TYPE):
        add_compress_type(media)
    app.add_middleware(CompressMiddleware, minimum_size=1000, brotli=False)
    app.add_middleware(Turns, settings=service.settings)
    app.add_middleware(Cache, service=service)
    app.add_middleware(Head)
    app.add_middleware(Bounds, settings=service.settings)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=["*"],
        allow_methods=["GET", "HEAD", "POST", "OPTIONS"],
        allow_headers=["*"],
        expose_headers=_EXPOSED,
        max_age=86_400,
    )
    app.add_middleware(Observe)


def _home(service: Service) -> HTMLResponse:
    store = service.store()
    cells = ""
    for r in answer_of(store, "orientation"):
        cells += (
            f"<tr><th><a href='/v1/frameworks/{escape(r['framework'])}'>{escape(r['label'])}</a></th><td class=n>{r['norms']}</td>"
            f"<td class=n>{r['model_centric_share']:.0%} <span class=muted>({r['model_centric_low']:.0%}–{r['model_centric_high']:.0%})</span></td>"
            f"<td class=n>{r['technical_system_share']:.0%}</td>"
            f"<td class=n>{r['sociotechnical_share']:.0%} <span class=muted>({r['sociotechnical_low']:.0%}–{r['sociotechnical_high']:.0%})</span></td>"
            f"<td class=n>{r['developer_reliance']:.0%}</td><td class=n>{r['technocratic_reliance']:.0%}</td></tr>"
        )
    body = f"""<h1>Strata</h1><p>{escape(_ABOUT)}</p>
<h2>Orientation of what is encoded</h2>
<table><tr><th>Framework</th><th>Norms</th><th>Model-centric</th><th>Technical system</th><th>Reaches the sociotechnical</th>
<th>Borne by developers alone</th><th>Technocratic instrument</th></tr>{cells}</table>
<p class=muted>Shares of the norms that stand in the text today, umbrella norms left out; in brackets the interval under contested codings.
<a href="/v1/orientation">The same as data, with the query behind it</a>.</p>
<h2>Ask further</h2><ul>
<li><a href="/v1/frameworks">Frameworks</a>, <a href="/v1/ledger">completeness ledger</a>, <a href="/v1/vocab">vocabularies</a></li>
<li><a href="/matrix">Coverage, in a matrix</a>, <a href="/maps">system maps laid over frameworks</a>, <a href="/argument">is AI risk governance model-centric?</a></li>
<li><a href="/v1/coverage?rows=layer&amp;columns=framework">Coverage by layer</a>, <a href="/v1/gaps?framework=eu-ai-act">gaps of the EU AI Act</a></li>
<li><a href="/v1/compare?left=eu-ai-act@2026-01-01&amp;right=eu-ai-act">What the 2026 amendment changed</a></li>
<li><a href="/docs">All endpoints</a>, <a href="/v1/queries">named queries</a>, <a href="/openapi.json">OpenAPI</a>, <code>/sparql</code></li></ul>
<p class=muted>Snapshot <code>{escape(store.snapshot)}</code>. Ontology and data CC BY 4.0. Not legal advice.</p>"""
    return linked_data.page("Strata", body)


def _bounds(service: Service) -> str:
    most, limits = service.settings, service.limits
    rate = f"{most.rate_per_minute} requests a minute" if most.rate_per_minute else "no limit"
    rows = (
        ("one SPARQL query", f"{limits.seconds:g} seconds, {limits.memory >> 20} MB; then it is stopped"),
        ("its answer", f"{limits.rows} rows or triples; cut there, and said so in <code>Strata-Truncated</code>"),
        (
            "queries at one time",
            f"{service.workers}, then {most.query_waiting} waiting, {most.query_waiting_per_client} of one client",
        ),
        ("address, body", f"{most.max_url} characters, {most.max_body} bytes"),
        ("one client", rate),
    )
    cells = "".join(f"<tr><th>{a}</th><td>{b}</td></tr>" for a, b in rows)
    return f'<h2 id="bounds">Bounds</h2><table>{cells}</table>'


def _docs(app: FastAPI, service: Service) -> HTMLResponse:
    body = f'<p><a href="/">Strata</a></p><h1>Endpoints</h1>{_bounds(service)}'
    for path, methods in app.openapi()["paths"].items():
        for method, spec in methods.items():
            rows = "".join(
                f"<tr><th><code>{escape(p['name'])}</code></th><td>{escape(p.get('description', ''))}</td></tr>"
                for p in spec.get("parameters", [])
            )
            body += f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(spec.get('summary', ''))}</p><table>{rows}</table>"
    return linked_data.page("Strata: endpoints", body)
