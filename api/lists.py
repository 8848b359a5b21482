"""One endpoint for each named query that has a path; nothing here knows any of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from api.formats import FORMATS, MAX_LIMIT, given_parameters, respond
from api.problems import NotFound
from kg.queries import Answer, NamedQuery, Parameter, all_queries, ask, axis, bind, find_query, valid_values
from kg.serving import Service
from kg.store import Store

_BESIDE = ThreadPoolExecutor(4, thread_name_prefix="beside")
PROBLEM = {"description": "Problem", "content": {"application/problem+json": {"schema": {"type": "object"}}}}


def _openapi_parameter(p: Parameter, in_path: bool) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer" if p.type == "integer" else "string"}
    if p.type == "date":
        schema["format"] = "date"
    if p.choices:
        schema["enum"] = list(p.choices)
    if p.default and p.default != "today":
        schema["default"] = p.default
    if p.repeat:
        schema = {"type": "array", "items": schema}
    scheme = f" Values: /v1/vocab/{p.scheme}." if p.scheme else ""
    default = " Default: today." if p.default == "today" else ""
    out: dict[str, Any] = {
        "name": p.name,
        "in": "path" if in_path else "query",
        "required": p.required or in_path,
        "description": p.description + scheme + default,
        "schema": schema,
    }
    if p.example:
        out["example"] = p.example
    return out


def _paging() -> list[dict[str, Any]]:
    return [
        {
            "name": "limit",
            "in": "query",
            "description": f"Rows a page, at most {MAX_LIMIT}; for CSV and tables all rows unless given.",
            "schema": {"type": "integer", "minimum": 1},
        },
        {
            "name": "cursor",
            "in": "query",
            "description": "The value of `next` in the page before.",
            "schema": {"type": "string"},
        },
        {
            "name": "format",
            "in": "query",
            "description": "Representation, instead of `Accept`.",
            "schema": {"type": "string", "enum": list(FORMATS)},
        },
    ]


def _row_schema(query: NamedQuery) -> dict[str, Any]:
    kinds = {"integer": "integer", "number": "number", "share": "number", "list": "array"}
    properties: dict[str, Any] = {}
    for c in query.columns:
        kind = kinds.get(c.type, "string")
        spec: dict[str, Any] = {"type": kind if kind == "array" else [kind, "null"], "description": c.description}
        if kind == "array":
            spec["items"] = {"type": "string"}
        properties[c.name] = spec
    return {"type": "object", "properties": properties}


def path_parameters(query: NamedQuery) -> list[str]:
    """Names of the parameters that stand in the path of a named query."""
    return re.findall(r"\{(\w+)\}", query.path or "")


def openapi_parameters(query: NamedQuery) -> list[dict[str, Any]]:
    """Parameters of a named query for the OpenAPI document, those that page aside."""
    in_path = set(path_parameters(query))
    return [_openapi_parameter(p, p.name in in_path) for p in query.parameters]


def openapi_extra(query: NamedQuery) -> dict[str, Any]:
    """Parameters and answer of a named query for the OpenAPI document."""
    row = _row_schema(query)
    members: dict[str, Any]
    if query.shape == "table":
        members = {
            "rows": {"type": "array"},
            "columns": {"type": "array"},
            "cells": {"type": "array", "items": row},
            "total": {"type": "integer"},
        }
    else:
        members = {
            "items": {"type": "array", "items": row},
            "total": {"type": "integer"},
            "next": {"type": ["string", "null"]},
        }
    members |= {"snapshot": {"type": "string"}, "query": {"type": "object"}, "license": {"type": "string"}}
    content = {"application/json": {"schema": {"type": "object", "properties": members}}}
    content |= {m: {"schema": {"type": "string"}} for m in FORMATS.values() if m != "application/json"}
    content["application/ld+json"] = {"schema": {"type": ["array", "object"]}}  # JSON too, not text
    responses = {"200": {"description": query.question, "content": content}, "422": PROBLEM, "503": PROBLEM}
    return {
        "parameters": openapi_parameters(query) + _paging(),
        "responses": {**responses, **({"404": PROBLEM} if path_parameters(query) else {})},
    }


def table_extra(store: Store, answer: Answer) -> dict[str, Any]:
    """Axes and denominator of a cross-table.

    ``total`` counts the norms that meet the filters: the denominator of the table.
    """
    rows, columns = answer.parameters["rows"][0], answer.parameters["columns"][0]
    known = {p.name for p in find_query("total").parameters}
    dropped = {p.name for p in answer.query.parameters if p.variable}
    filters = {k: v for k, v in answer.parameters.items() if k in known - dropped}
    total = ask(store, "total", filters).table.rows[0]["norms"]
    return {"rows": axis(store, rows), "columns": axis(store, columns), "total": total}


def extra_of(store: Store, answer: Answer) -> dict[str, Any]:
    """What an answer carries beside its rows."""
    if answer.query.shape == "table":
        return table_extra(store, answer)
    if answer.query.name == "compare":
        profile = {k: answer.parameters[k] for k in ("left", "right")}
        return {"profile": ask(store, "compare-profile", profile).table.rows}
    return {}


def describe(query: NamedQuery) -> dict[str, Any]:
    """A named query as data."""
    return {
        "name": query.name,
        "label": query.summary,
        "iri": f"https://w3id.org/strata/query/{query.name}",
        "question": query.question,
        "description": query.description,
        "tags": list(query.tags),
        "path": query.path,
        "parameters": [
            {
                "name": p.name,
                "type": p.type,
                "scheme": p.scheme,
                "repeat": p.repeat,
                "required": p.required,
                "default": p.default,
                "choices": list(p.choices),
                "description": p.description,
            }
            for p in query.parameters
        ],
        "columns": [{"name": c.name, "type": c.type, "description": c.description} for c in query.columns],
        "sparql": query.text,
    }


def router(service: Service) -> APIRouter:
    """Endpoints of all named queries with a path, and of the named queries themselves."""
    routes = APIRouter()

    def endpoint(query: NamedQuery) -> Callable[[Request], Response]:
        in_path = path_parameters(query)

        def answer(request: Request) -> Response:
            store = service.store()
            given = given_parameters(request)
            for name in in_path:
                if name in request.path_params:
                    value = request.path_params[name]
                    if value not in valid_values(store, query.parameter(name)):
                        raise NotFound(f"No {name} '{value}' here. See {str(query.path).partition('/{')[0]}.")
                    given[name] = [value]
            # What is said beside the rows is asked for at the same time: engines leave Python's lock alone.
            beside = _BESIDE.submit(extra_of, store, bind(store, query, given))
            found = ask(store, query.name, given)
            return respond(request, store, found, beside.result())

        return answer

    for query in all_queries().values():
        if query.path:
            routes.add_api_route(
                query.path,
                endpoint(query),
                methods=["GET"],
                name=query.name,
                summary=query.question,
                description=query.description,
                tags=list(query.tags),
                response_class=JSONResponse,
                openapi_extra=openapi_extra(query),
            )

    @routes.get("/v1/queries", tags=["queries"], summary="Which named queries are there?")
    def queries() -> dict[str, Any]:
        items = [describe(q) for q in all_queries().values()]
        return {"items": items, "total": len(items), "next": None, "snapshot": service.store().snapshot}

    @routes.get("/v1/queries/{name}", tags=["queries"], summary="Run a named query, or read its SPARQL")
    def run(name: str, request: Request) -> Response:
        query = find_query(name)
        if "application/sparql-query" in request.headers.get("accept", ""):
            return Response(query.text, media_type="application/sparql-query")
        return endpoint(query)(request)

    return routes
