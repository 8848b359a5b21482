"""The application: named queries, look-ups, SPARQL, linked data, and how the service does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html import escape
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from api import argument, cases, items, linked_data, lists, pages, problems, sparql
from kg import __version__
from kg.queries import answer_of
from kg.serving import Service, service_from_environment

_ABOUT = """Where do frameworks for AI risk intervene, whom do they bind, since when, and what do they leave open?
Facts (text, norms, validity) and interpretation (codings, with rationale and confidence) are kept apart;
every number comes with the query behind it. Not legal advice: only the official texts are authentic."""


def create_app(service: Service | None = None) -> FastAPI:
    """The ASGI application.

    Args:
        service: what it stands on; set up from the environment when not given.
    """
    chosen = service or service_from_environment()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
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
    )
    problems.install(app)

    @app.get("/health", tags=["service"], summary="Is the service well, and what does it serve?")
    def health() -> dict[str, Any]:
        store, manifest = chosen.store(), chosen.manifest()
        triples = manifest.triples if manifest else None
        return {"status": "ok", "version": __version__, "snapshot": store.snapshot, "triples": triples}

    @app.get("/", include_in_schema=False)
    def home() -> HTMLResponse:
        return _home(chosen)

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return _docs(app)

    for room in (pages, cases, argument, lists, items, sparql, linked_data):
        app.include_router(room.router(chosen))
    return app


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


def _docs(app: FastAPI) -> HTMLResponse:
    body = '<p><a href="/">Strata</a></p><h1>Endpoints</h1>'
    for path, methods in app.openapi()["paths"].items():
        for method, spec in methods.items():
            rows = "".join(
                f"<tr><th><code>{escape(p['name'])}</code></th><td>{escape(p.get('description', ''))}</td></tr>"
                for p in spec.get("parameters", [])
            )
            body += f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(spec.get('summary', ''))}</p><table>{rows}</table>"
    return linked_data.page("Strata: endpoints", body)
