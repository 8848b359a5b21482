"""One thing at a time: a framework, a provision, a norm, a scheme, with all that is known of it."""

from __future__ import annotations

from datetime import date, timedelta
from difflib import get_close_matches
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from api.formats import LICENCE, chosen_format, given_parameters, respond
from api.problems import NotFound
from kg.errors import BadParameter
from kg.namespaces import ID
from kg.queries import answer_of, ask, today
from kg.serving import Service
from kg.store import Store

ROW = dict[str, Any]


def _only(request: Request, *allowed: str) -> dict[str, str]:
    given = given_parameters(request)
    for name, values in given.items():
        if name not in allowed:
            raise BadParameter(name, f"unknown parameter '{name}'", (*allowed, "format"))
        if len(values) > 1:
            raise BadParameter(name, "given more than once; it takes one value")
    return {k: v[0] for k, v in given.items()}


def _respond(request: Request, store: Store, iri: str, body: ROW) -> Response:
    media = chosen_format(request)
    headers = {"strata-snapshot": store.snapshot, "link": f'<{LICENCE}>; rel="license"', "vary": "Accept"}
    if media in ("text/turtle", "application/ld+json", "application/n-triples"):
        return Response(store.describe([iri], media), media_type=media, headers=headers)
    return JSONResponse({**body, "snapshot": store.snapshot, "license": LICENCE}, headers=headers)


def _framework(store: Store, name: str) -> ROW:
    known = {r["framework"]: r for r in answer_of(store, "frameworks")}
    if name not in known:
        near = get_close_matches(name, known, n=3, cutoff=0.4) or list(known)
        raise NotFound(f"No framework '{name}'. Nearest: {', '.join(near)}.")
    return known[name]


def framework(store: Store, name: str) -> ROW:
    """A framework with its versions, and its units counted in source and graph."""
    row = _framework(store, name)
    ledger = answer_of(store, "ledger", framework=name)
    versions = answer_of(store, "versions", framework=name)
    # What stands now, or last stood; a companion text that stands beside a version counts with it.
    standing = {v["path"] for v in versions if v["in_force_until"] is None} or {v["path"] for v in versions[-1:]}
    units = {r["type"]: r["encoded"] for r in ledger if r["version"] in standing}
    unread = answer_of(store, "unread", framework=name)
    return {**row, "units": units, "versions": versions, "ledger": ledger, "unread": unread}


def provision(store: Store, name: str, path: str, known_on: str) -> ROW:
    """A provision with its wordings, its norms, and what hangs below it."""
    _framework(store, name)
    iri = f"{ID}{name}/{path}"
    states = answer_of(store, "text-states", provision=iri)
    if not states:
        near = get_close_matches(path, [r["path"] for r in answer_of(store, "provisions", framework=name)], n=3)
        hint = f" Nearest: {', '.join(near)}." if near else f" List them at /v1/provisions?framework={name}."
        raise NotFound(f"No provision '{path}' in {name}.{hint}")
    day, stands = known_on, True
    rows = answer_of(store, "provisions", provision=iri, known_on=day)
    if not rows:  # shown as it last stood, or as it first will
        stands, last = False, states[-1]
        until = last["in_force_until"]
        day = (
            str(date.fromisoformat(until) - timedelta(days=1)) if until and until <= day else states[0]["in_force_from"]
        )
        rows = answer_of(store, "provisions", provision=iri, known_on=day)
    below = answer_of(store, "provisions", parent=iri, known_on=day)
    norms = answer_of(store, "norms-of-provision", provision=iri)
    children = [{k: r[k] for k in ("iri", "label", "path", "locator", "summary", "norms")} for r in below]
    reasons = answer_of(store, "explanations", provision=iri)
    linked = {
        key: [{k: r[k] for k in ("iri", "path", "locator", "summary")} for r in reasons if r["relation"] == relation]
        for key, relation in (("explained_by", "explained-by"), ("explains", "explains"))
    }
    whole = {"stands": stands, "known_on": day, "text_states": states, "norms": norms, "parts": children}
    return {**rows[0], **whole, **linked}


def norm(store: Store, name: str, path: str, known_on: str) -> ROW:
    """A norm with facts, application, codings and their reasons."""
    _framework(store, name)
    iri = f"{ID}{name}/{path}"
    facts = answer_of(store, "norm-facts", norm=iri)
    if not facts:
        raise NotFound(f"No norm '{path}' in {name}. List them at /v1/norms?framework={name}.")
    dates = {f["property"]: f["value"] for f in facts}
    until = dates.get("inForceUntil")
    stands = dates["inForceFrom"] <= known_on and (until is None or known_on < until)
    day = known_on if stands else dates["inForceFrom"]
    (row,) = answer_of(store, "norms", norm=iri, known_on=day, restating="include")
    return {
        **row,
        "stands": stands,
        "facts": facts,
        "applications": answer_of(store, "norm-applications", norm=iri),
        "codings": answer_of(store, "norm-codings", norm=iri),
    }


def router(service: Service) -> APIRouter:
    """Endpoints of single things."""
    routes = APIRouter()

    @routes.get("/v1/frameworks/{framework_id}", tags=["frameworks"], summary="What is known of one framework?")
    def one_framework(framework_id: str, request: Request) -> Response:
        _only(request)
        store = service.store()
        return _respond(request, store, f"{ID}{framework_id}", framework(store, framework_id))

    @routes.get(
        "/v1/provisions/{framework_id}/{path:path}",
        tags=["provisions"],
        summary="What does one provision say, and which norms are in it?",
    )
    def one_provision(framework_id: str, path: str, request: Request) -> Response:
        known_on = _only(request, "known_on").get("known_on", today().isoformat())
        store = service.store()
        return _respond(request, store, f"{ID}{framework_id}/{path}", provision(store, framework_id, path, known_on))

    @routes.get(
        "/v1/norms/{framework_id}/{path:path}",
        tags=["norms"],
        summary="What is known of one norm, and why is it coded so?",
    )
    def one_norm(framework_id: str, path: str, request: Request) -> Response:
        known_on = _only(request, "known_on").get("known_on", today().isoformat())
        store = service.store()
        return _respond(request, store, f"{ID}{framework_id}/{path}", norm(store, framework_id, path, known_on))

    @routes.get("/v1/vocab/{scheme}", tags=["vocabulary"], summary="What do the concepts of one scheme mean?")
    def one_scheme(scheme: str, request: Request) -> Response:
        store = service.store()
        return respond(request, store, ask(store, "concepts", {**given_parameters(request), "scheme": [scheme]}))

    return routes
