"""Pages for people: a matrix of coverage, a system map, the argument. Each number leads to what is behind it."""

from __future__ import annotations

from html import escape
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from api.cases import whole
from api.linked_data import page
from api.problems import NotFound
from kg.argument import argue
from kg.errors import BadParameter
from kg.queries import answer_of, ask, axis, find_query, valid_values
from kg.serving import Service
from kg.store import Store

_HOME = '<p><a href="/">Strata</a></p>'
_COLOURS = {
    "covered": "#2f7d4f",
    "developer-only": "#8a7f1f",
    "hazard-reduction-only": "#8a5a1f",
    "voluntary-only": "#3f6fa8",
    "not-yet-applicable": "#6a4fa3",
    "general-only": "#7a7a7a",
    "not-read": "#b09f7a",
    "uncovered": "#b03a3a",
}
_LAYERS = ("model", "system", "deployment", "circulation", "society")


def _given(request: Request, *allowed: str) -> dict[str, list[str]]:
    given: dict[str, list[str]] = {}
    for key, value in request.query_params.multi_items():
        if key not in allowed:
            raise BadParameter(key, f"unknown parameter '{key}'", allowed)
        if value:
            given.setdefault(key, []).append(value)
    return given


def _choice(name: str, options: list[str], chosen: str) -> str:
    listed = "".join(f"<option{' selected' if o == chosen else ''}>{escape(o)}</option>" for o in options)
    return f'<label>{escape(name)} <select name="{escape(name)}">{listed}</select></label> '


# ------------------------------------------------------------------ matrix


def matrix(store: Store, given: dict[str, list[str]]) -> HTMLResponse:
    """Coverage over two dimensions, by force; each cell leads to its norms."""
    query = find_query("coverage")
    given.setdefault("rows", ["layer"])
    given.setdefault("columns", ["framework"])
    rows, columns = given["rows"][0], given["columns"][0]
    cells: dict[tuple[str, str], dict[str, Any]] = {
        (str(c["row"]), str(c["column"])): dict(c) for c in ask(store, "coverage", given).table.rows
    }
    found = {c for _, c in cells}
    heads = [str(a["name"]) for a in axis(store, columns) if a["name"] in found]
    filters = {k: v for k, v in given.items() if k not in ("rows", "columns")}
    body = f"{_HOME}<h1>Coverage</h1><form>"
    dimensions = list(valid_values(store, query.parameter("rows")))
    body += _choice("rows", dimensions, rows) + _choice("columns", dimensions, columns) + "<button>Show</button></form>"
    body += (
        "<p class=muted>Norms in each cell, and in small print how many of them bind as law (b), bind inside the issuer’s own "
        "house (e), are voluntary (v) or a stated intention (i). An empty cell means: no norm among what is encoded; a question mark, that a part of the document which might speak to it could not be read.</p>"
        f"<div class=wide><table><tr><th></th>{''.join(f'<th>{escape(h)}</th>' for h in heads)}</tr>"
    )
    most = max((c["norms"] for c in cells.values()), default=1)
    unread = {r["framework"] for r in answer_of(store, "unread") if not r["might_concern"]}
    for a in axis(store, rows):
        name = str(a["name"])
        line = ""
        for h in heads:
            cell = cells.get((name, h))
            silence = "<td class=n title='not read'>?</td>" if {h, name} & unread else "<td class=n>·</td>"
            line += silence if cell is None else _matrix_cell(cell, rows, columns, filters, most)
        body += f"<tr><th>{escape(name)}</th>{line}</tr>"
    link = urlencode({**given, "format": "csv"}, doseq=True)
    body += f'</table></div><p><a href="/v1/coverage?{escape(link)}">The same as CSV</a>, <a href="/v1/queries/coverage">the query behind it</a>.</p>'
    return page("Strata: coverage", body)


def _matrix_cell(cell: dict[str, Any], rows: str, columns: str, filters: dict[str, list[str]], most: int) -> str:
    link = urlencode({**filters, rows: cell["row"], columns: cell["column"]}, doseq=True)
    kinds = (("b", "binding"), ("e", "expected"), ("v", "voluntary"), ("i", "stated_intention"))
    small = " ".join(f"{cell[k]}{letter}" for letter, k in kinds if cell[k])
    shade = 0.08 + 0.5 * cell["norms"] / most
    return (
        f'<td class=n style="background:rgba(63,111,168,{shade:.2f})"><a href="/v1/norms?{escape(link)}">{cell["norms"]}</a>'
        f"<br><small>{small}</small></td>"
    )


# ------------------------------------------------------------------ map


def _boxes(components: list[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """Upper left corner of each component: a column for each layer, in the order of the rows."""
    heights = dict.fromkeys(_LAYERS, 0)
    places = {}
    for c in components:
        column = _LAYERS.index(c["layer"])
        places[c["component"]] = (column * 268 + 8, 40 + heights[c["layer"]] * 24)
        heights[c["layer"]] += 1
    return places


def drawing(case: str, framework: str, parts: dict[str, Any], gaps: dict[str, dict[str, Any]]) -> str:
    """The map as SVG: columns are layers, colours say how the framework reaches a component."""
    places = _boxes(parts["components"])
    height = max(y for _, y in places.values()) + 40
    svg = (
        f'<svg viewBox="0 0 1348 {height}" role="img" aria-label="System map by layer" style="width:100%;height:auto">'
    )
    for link in parts["links"]:
        if link["from"] in places and link["to"] in places:
            (x1, y1), (x2, y2) = places[link["from"]], places[link["to"]]
            a, b = (x1 + 250, x2) if x1 < x2 else (x1, x2 + 250) if x1 > x2 else (x1 + 250, x2 + 250)
            bend = (a + b) / 2 if x1 != x2 else a + 14
            svg += (
                f'<path d="M{a},{y1 + 10} C{bend:.0f},{y1 + 10} {bend:.0f},{y2 + 10} {b},{y2 + 10}" fill="none" stroke="#8885">'
                f"<title>{escape(link['from'])} {escape(link['relation'])} {escape(link['to'])}</title></path>"
            )
    for column, layer in enumerate(_LAYERS):
        svg += f'<text x="{column * 268 + 8}" y="24" font-weight="600" fill="currentColor">{layer}</text>'
    for c in parts["components"]:
        x, y = places[c["component"]]
        gap = gaps.get(c["component"], {"gap": "uncovered", "direct": 0, "general": 0})
        link = urlencode({"component": c["component"], "framework": framework})
        label = c["label"] if len(c["label"]) < 38 else c["label"][:36] + "…"
        svg += (
            f'<a href="/v1/cases/{escape(case)}/norms?{escape(link)}"><rect x="{x}" y="{y}" width="250" height="20" rx="4" '
            f'fill="{_COLOURS.get(gap["gap"], "#888")}"/><text x="{x + 6}" y="{y + 14}" font-size="12" fill="#fff">{escape(label)}</text>'
            f"<title>{escape(c['label'])}: {escape(gap['gap'])}, {gap['direct']} direct, {gap['general']} general</title></a>"
        )
    return svg + "</svg>"


def map_page(store: Store, case: str, given: dict[str, list[str]]) -> HTMLResponse:
    """A system map laid over one framework."""
    parts = whole(store, case)
    framework = given.get("framework", ["eu-ai-act"])[0]
    if framework not in parts["reach"]:
        raise NotFound(f"No norms of '{framework}' stand today. There are: {', '.join(parts['reach'])}.")
    days = {k: v for k, v in given.items() if k in ("known_on", "as_of")}
    rows = ask(store, "case-gaps", {"case": [case], "framework": [framework], **days}).table.rows
    gaps: dict[str, dict[str, Any]] = {str(r["component"]): dict(r) for r in rows}
    body = f"{_HOME}<h1>{escape(parts['label'])}</h1><p>{escape(parts['description'] or '')}</p><form>"
    body += _choice("framework", list(parts["reach"]), framework) + "<button>Show</button></form><p>"
    for name, colour in _COLOURS.items():
        n = sum(g["gap"] == name for g in gaps.values())
        if n:
            body += f'<span class=key style="background:{colour}"></span>{name} {n} &nbsp; '
    body += f"</p>{drawing(case, framework, parts, gaps)}"
    body += (
        f'<p class=muted>A norm reaches a component by point, risk, party and category; <a href="/v1/queries/case-gaps">the rule</a>. '
        f'Click a component for its norms. <a href="/v1/cases/{escape(case)}/gaps?{urlencode({"framework": framework, "format": "csv"})}">As CSV</a>.</p>'
    )
    steps: list[dict[str, Any]] = list(
        ask(store, "case-pathways", {"case": [case], "framework": [framework], **days}).table.rows
    )
    pathway = ""
    for s in steps:
        if s["pathway"] != pathway:
            body += "</table>" if pathway else ""
            pathway = s["pathway"]
            body += f"<h2>{escape(s['pathway_label'])}</h2><p class=muted>Ends in: {escape(', '.join(s['harms']))}</p>"
            body += "<table><tr><th></th><th>Step</th><th>Phase</th><th>Norms before harm</th><th>Norms in response</th><th>Only general</th></tr>"
        body += (
            f"<tr><td class=n>{s['order']}</td><td>{escape(s['step'])} <span class=muted>({escape(s['component'])})</span></td>"
            f"<td>{escape(s['phase'])}</td><td class=n>{s['stops_before_harm']}</td><td class=n>{s['responds']}</td><td class=n>{s['general']}</td></tr>"
        )
    return page(f"Strata: {parts['label']}", body + ("</table>" if pathway else ""))


# ------------------------------------------------------------------ argument


def argument_page(store: Store) -> HTMLResponse:
    """Limitations and recommendations with their measures, results and limits."""
    body = f"{_HOME}<h1>Is AI risk governance model-centric?</h1><p>Four limitations and four recommendations, each put as a query that can come out either way.</p>"
    for kind in ("limitation", "recommendation"):
        for item in argue(store, kind, {}):
            body += f"<h2>{escape(kind.capitalize())} {item['number']}: {escape(item['label'])}</h2><p>{escape(item['says'])} <span class=muted>{escape(item['source'])}</span></p>"
            for m in item["measures"]:
                body += f"<h3>{escape(m['measure'].capitalize())}</h3><p>{escape(m['rationale'])} <span class=muted>{escape(m['limits'])}</span></p>"
                body += "<div class=wide><table><tr><th>Framework</th><th>Norms</th><th>Share</th><th>Between</th><th>By force</th><th>By provision</th><th>Verdict</th><th>Flips</th></tr>"
                body += "".join(_result(m["name"], r) for r in m["results"]) + "</table></div>"
    return page("Strata: the argument", body)


def _result(measure: str, r: dict[str, Any]) -> str:
    def share(value: float | None) -> str:
        return "" if value is None else f"{value:.1%}"

    link = urlencode({"framework": r["framework"]})
    between = "" if r["low"] is None else f"{r['low']:.1%} to {r['high']:.1%}"
    return (
        f'<tr><th><a href="/v1/queries/{measure}?{link}">{escape(r["framework"])}</a></th><td class=n>{r["passing"]} of {r["norms"]}</td>'
        f"<td class=n>{share(r['share'])}</td><td class=n>{between}</td><td class=n>{share(r['by_force'])}</td><td class=n>{share(r['by_provision'])}</td>"
        f"<td>{escape(r['verdict'])}</td><td>{escape('; '.join(r['flips']))}</td></tr>"
    )


def router(service: Service) -> APIRouter:
    """The pages."""
    routes = APIRouter()

    @routes.get("/matrix", include_in_schema=False)
    def show_matrix(request: Request) -> HTMLResponse:
        return matrix(service.store(), _given(request, *find_query("coverage").names()))

    @routes.get("/map/{case}", include_in_schema=False)
    def show_map(case: str, request: Request) -> HTMLResponse:
        return map_page(service.store(), case, _given(request, "framework", "known_on", "as_of"))

    @routes.get("/argument", include_in_schema=False)
    def show_argument(request: Request) -> HTMLResponse:
        _given(request)
        return argument_page(service.store())

    @routes.get("/maps", include_in_schema=False)
    def show_maps() -> HTMLResponse:
        rows = "".join(
            f'<li><a href="/map/{escape(r["case"])}">{escape(r["label"])}</a>: {r["components"]} components, {r["links"]} links, '
            f"{r['pathways']} pathways, {r['mitigations']} mitigations</li>"
            for r in answer_of(service.store(), "cases")
        )
        return page("Strata: system maps", f"{_HOME}<h1>System maps</h1><ul>{rows}</ul>")

    return routes
