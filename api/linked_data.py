"""Every identifier of the graph resolves here: to a page, Turtle, N-Triples or JSON-LD."""

from __future__ import annotations

import re
from html import escape

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from api.formats import negotiate
from api.problems import NotFound
from kg.namespaces import converter
from kg.serving import Service
from kg.store import Store

_BASE = "https://w3id.org/strata/"
_MEDIA = ("text/html", "text/turtle", "application/ld+json", "application/n-triples")
_STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%}td,th{border-top:1px solid #8884;padding:.35rem .6rem;text-align:left;vertical-align:top}
th{font-weight:600}td.n{text-align:right;font-variant-numeric:tabular-nums}code{font-size:.9em}a{text-decoration-thickness:1px}
.muted{opacity:.7}.wide{overflow-x:auto}.key{display:inline-block;width:.8em;height:.8em;margin-right:.3em;border-radius:2px}h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
"""


def page(title: str, body: str) -> HTMLResponse:
    """A plain page that needs nothing from any other host."""
    return HTMLResponse(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>{body}</body></html>"
    )


def _link(iri: str) -> str:
    href = "/" + iri.removeprefix(_BASE) if iri.startswith(_BASE) else iri
    return f'<a href="{escape(href)}">{escape(converter().compress(iri, passthrough=True) or iri)}</a>'


def _cell(value: object) -> str:
    text = str(value)
    return _link(text) if re.match(r"https?://", text) else escape(text)


def resource_page(store: Store, iri: str) -> HTMLResponse:
    """All statements about a resource, and who refers to it."""
    out = store.select(f"SELECT ?p ?o WHERE {{ <{iri}> ?p ?o }} ORDER BY ?p ?o LIMIT 500").rows
    back = store.select(f"SELECT ?s ?p WHERE {{ ?s ?p <{iri}> FILTER(isIRI(?s)) }} ORDER BY ?p ?s LIMIT 200").rows
    label = next((str(r["o"]) for r in out if str(r["p"]).endswith("#label")), iri)
    rows = "".join(f"<tr><th>{_link(str(r['p']))}</th><td>{_cell(r['o'])}</td></tr>" for r in out)
    refs = "".join(f"<tr><th>{_link(str(r['p']))}</th><td>{_cell(r['s'])}</td></tr>" for r in back)
    body = (
        f'<p><a href="/">Strata</a></p><h1>{escape(label)}</h1><p><code>{escape(iri)}</code></p><table>{rows}</table>'
    )
    return page(label, body + (f"<h2>Referred to by</h2><table>{refs}</table>" if refs else ""))


_TERMS = """
SELECT ?term ?label ?definition ?module WHERE {
  ?term <http://www.w3.org/2000/01/rdf-schema#isDefinedBy> ?module ; <http://www.w3.org/2000/01/rdf-schema#label> ?label ;
        <http://www.w3.org/2004/02/skos/core#definition> ?definition .
  FILTER(STRSTARTS(STR(?term), "https://w3id.org/strata/ontology#"))
} ORDER BY ?module LCASE(?label)"""


def ontology_page(store: Store) -> HTMLResponse:
    """All terms of the ontology, module by module, each at its fragment."""
    body, module = '<p><a href="/">Strata</a></p><h1>Ontology</h1>', ""
    for row in store.select(_TERMS).rows:
        if row["module"] != module:
            module = str(row["module"])
            body += f"{'</table>' if '<table>' in body else ''}<h2>{_link(module)}</h2><table>"
        name = str(row["term"]).rpartition("#")[2]
        body += (
            f'<tr id="{escape(name)}"><th><code>{escape(name)}</code><br><span class="muted">{escape(str(row["label"]))}'
            f"</span></th><td>{escape(str(row['definition']))}</td></tr>"
        )
    return page("Strata: ontology", body + "</table>")


def router(service: Service) -> APIRouter:
    """Dereferencing of identifiers, vocabulary and ontology."""
    routes = APIRouter()

    @routes.get("/{kind:path}", include_in_schema=False)
    def resource(kind: str, request: Request) -> Response:
        room = kind.split("/")[0]
        if room not in ("id", "vocab", "ontology", "codebook", "query", "mapping") or not re.fullmatch(
            r"[\w./\-]+", kind
        ):
            raise NotFound(f"Nothing at /{kind}. See /docs for what is here.")
        iri, store = _BASE + kind, service.store()
        media = negotiate(
            request.headers.get("accept", ""),
            _MEDIA if "text/html" in request.headers.get("accept", "") else _MEDIA[1:],
        )
        headers = {"strata-snapshot": store.snapshot, "vary": "Accept"}
        if not store.describe([iri], "application/n-triples"):
            raise NotFound(f"The graph says nothing about {iri}.")
        if media == "text/html":
            return ontology_page(store) if kind == "ontology" else resource_page(store, iri)
        return Response(store.describe([iri], media), media_type=media, headers=headers)

    return routes
