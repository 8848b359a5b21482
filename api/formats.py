"""Which representation a client gets, and the envelope every answer comes in."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from kg.errors import BadParameter
from kg.queries import Answer
from kg.store import Store

LICENCE = "https://creativecommons.org/licenses/by/4.0/"
FORMATS = {
    "json": "application/json",
    "csv": "text/csv",
    "ttl": "text/turtle",
    "jsonld": "application/ld+json",
    "nt": "application/n-triples",
}
MAX_LIMIT = 1000
MAX_CSV_ROWS = 100_000
RESERVED = ("limit", "cursor", "format")


def acceptable(accept: str, offered: Sequence[str]) -> str | None:
    """The offered media type the client likes best, or None if it takes none of them.

    The most specific range that fits a type gives its quality (RFC 9110); among equals the
    type whose range the client named first wins, then the one offered first. No header, an
    empty one or one that is not readable takes anything.

    >>> acceptable("text/csv;q=0.5, application/json", ["application/json", "text/csv"])
    'application/json'
    >>> acceptable("image/png", ["application/json"]) is None
    True
    """
    ranges: list[tuple[str, float]] = []
    for part in accept.split(","):
        media, *parameters = [p.strip().lower() for p in part.split(";")]
        quality = 1.0
        for p in parameters:
            if p.startswith("q="):
                try:
                    quality = min(1.0, max(0.0, float(p[2:])))
                except ValueError:
                    quality = 0.0
        if media:
            ranges.append((media, quality))
    if not ranges:
        return offered[0]
    best: tuple[float, int, int] | None = None
    chosen = None
    for place, offer in enumerate(offered):
        named = {media: (quality, n) for n, (media, quality) in reversed(list(enumerate(ranges)))}
        fits = next((named[r] for r in (offer, f"{offer.split('/')[0]}/*", "*/*", "*") if r in named), None)
        if fits is None or not fits[0] > 0:
            continue
        rank = (-fits[0], fits[1], place)
        if best is None or rank < best:
            best, chosen = rank, offer
    return chosen


def negotiate(accept: str, offered: Sequence[str]) -> str:
    """The offered media type the client likes best; the first one if it does not care or takes none.

    >>> negotiate("image/png", ["application/json", "text/csv"])
    'application/json'
    """
    return acceptable(accept, offered) or offered[0]


def chosen_format(request: Request, *offered: str) -> str:
    """Media type by ``?format=``, else by ``Accept``, among the short names offered (all when none is).

    Raises:
        BadParameter: the format is unknown.
    """
    name, valid = request.query_params.get("format"), offered or tuple(FORMATS)
    if name is None:
        return negotiate(request.headers.get("accept", ""), [FORMATS[v] for v in valid])
    if name not in valid:
        raise BadParameter("format", f"unknown format '{name}'", valid)
    return FORMATS[name]


def given_parameters(request: Request) -> dict[str, list[str]]:
    """Query parameters but for those that page and choose the representation."""
    given: dict[str, list[str]] = {}
    for key, value in request.query_params.multi_items():
        if key not in RESERVED:
            given.setdefault(key, []).append(value)
    return given


def _limit(request: Request, default: int, most: int) -> int:
    text = request.query_params.get("limit")
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= most:
        raise BadParameter("limit", f"'{text[:20]}' is not a whole number from 1 to {most}")
    return int(text)


def _offset(request: Request, snapshot: str, name: str) -> int:
    text = request.query_params.get("cursor")
    if text is None:
        return 0
    try:
        hash_, query, offset = json.loads(base64.urlsafe_b64decode(text.encode()))
        if not isinstance(offset, int) or offset < 0 or query != name:
            raise ValueError
    except (ValueError, TypeError):
        raise BadParameter("cursor", "not a cursor of this list; use the one in 'next'") from None
    if hash_ != snapshot[:16]:
        raise BadParameter("cursor", "from an earlier snapshot; begin the list again without it")
    return offset


def _cursor(snapshot: str, name: str, offset: int) -> str:
    return base64.urlsafe_b64encode(json.dumps([snapshot[:16], name, offset]).encode()).decode()


def envelope(answer: Answer, snapshot: str) -> dict[str, Any]:
    """What accompanies every answer: the query behind it, the snapshot, the licence."""
    return {
        "snapshot": snapshot,
        "query": {"name": answer.query.name, "parameters": answer.parameters, "sparql": answer.sparql},
        "license": LICENCE,
    }


def as_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV (RFC 4180), lists separated by spaces."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow(columns)
    for row in rows:
        cells = (row[c] for c in columns)
        writer.writerow(["" if v is None else " ".join(map(str, v)) if isinstance(v, list) else v for v in cells])
    return buffer.getvalue()


def respond(request: Request, store: Store, answer: Answer, extra: Mapping[str, Any] | None = None) -> Response:
    """A list or cross-table in the representation the client asked for.

    Raises:
        BadParameter: an unusable limit, cursor or format.
    """
    media, snapshot, rows = chosen_format(request), store.snapshot, answer.table.rows
    is_table = answer.query.shape == "table"
    everything = is_table or media == "text/csv"
    most = MAX_CSV_ROWS if everything else MAX_LIMIT
    limit = _limit(request, most if everything else 100, most)
    start = _offset(request, snapshot, answer.query.name)
    page = rows[start : start + limit]
    more = start + limit < len(rows)
    cursor = _cursor(snapshot, answer.query.name, start + limit) if more else None
    headers = {
        "strata-snapshot": snapshot,
        "strata-total": str(len(rows)),
        "link": f'<{LICENCE}>; rel="license"',
        "vary": "Accept",
    }
    if cursor is not None:
        url = request.url.include_query_params(cursor=cursor)
        headers["link"] += f', <{url.path}?{url.query}>; rel="next"'
    if media == "text/csv":
        return Response(as_csv(answer.table.columns, page), media_type="text/csv; charset=utf-8", headers=headers)
    if media in ("text/turtle", "application/ld+json", "application/n-triples"):
        iris = sorted({str(r["iri"]) for r in page if r.get("iri")})
        # No statements are an empty document in Turtle, but an empty array in JSON-LD.
        nothing = b"[]" if media == "application/ld+json" else b""
        body = (store.describe(iris, media) if iris else b"") or nothing
        return Response(body, media_type=media, headers=headers)
    head = {"cells": page} if is_table else {"items": page}
    total = {} if is_table else {"total": len(rows), "next": cursor}
    return JSONResponse({**head, **total, **(extra or {}), **envelope(answer, snapshot)}, headers=headers)
