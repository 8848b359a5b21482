"""Results on the wire: which formats there are, and how one is written and cut to a bound.

The engine's own serialisers write every format. Solutions are first written as TSV, whose
lines are rows, into a buffer that stops the engine after the last row wanted; from there
they are rewritten in the format asked for, without a Python object for each term.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from xml.sax.saxutils import quoteattr

import pyoxigraph
from pyoxigraph import (
    DefaultGraph,
    Quad,
    QueryBoolean,
    QueryResultsFormat,
    QuerySolutions,
    QueryTriples,
    RdfFormat,
    Triple,
    parse_query_results,
    serialize,
)

from kg.errors import QueryError
from kg.namespaces import prefixes

RESULT_FORMATS = {
    "application/sparql-results+json": QueryResultsFormat.JSON,
    "application/sparql-results+xml": QueryResultsFormat.XML,
    "text/csv": QueryResultsFormat.CSV,
    "text/tab-separated-values": QueryResultsFormat.TSV,
    "application/json": QueryResultsFormat.JSON,
    "application/xml": QueryResultsFormat.XML,
}
"""Media types for SELECT and ASK, the preferred one first; the last two are what generic clients ask for."""
GRAPH_FORMATS = {
    "text/turtle": RdfFormat.TURTLE,
    "application/n-triples": RdfFormat.N_TRIPLES,
    "application/ld+json": RdfFormat.JSON_LD,
    "application/rdf+xml": RdfFormat.RDF_XML,
    "application/trig": RdfFormat.TRIG,
    "application/n-quads": RdfFormat.N_QUADS,
}
"""Media types for CONSTRUCT and DESCRIBE, the preferred one first."""
DESCRIPTION_FORMATS = ("text/turtle", "application/n-triples", "application/ld+json", "application/rdf+xml")
"""Media types in which the service and its dataset are described, the preferred one first."""
ENGINE_ERRORS = (SyntaxError, ValueError, OSError, RuntimeError)


@dataclass(frozen=True)
class Bounds:
    """How much of a result is written: rows or triples, and bytes."""

    rows: int
    size: int
    note: str = ""


class _Stop(Exception):
    """Enough rows were written."""


class _TooLarge(Exception):
    """More bytes were written than may be."""


class _Rows:
    """A buffer of TSV that stops the writer once it holds more rows than wanted."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.data = bytearray()
        self.rows = -1  # the first line is the header
        self.cut = False

    def write(self, chunk: bytes) -> int:
        self.data += chunk
        self.rows += chunk.count(b"\n")
        if len(self.data) > self.bounds.size:
            raise _TooLarge
        if self.rows > self.bounds.rows:
            self.cut = True
            raise _Stop
        return len(chunk)

    def flush(self) -> None:
        """Nothing is held back."""

    def lines(self) -> bytes:
        if not self.cut:
            return bytes(self.data)
        end = 0
        for _ in range(self.bounds.rows + 1):
            end = self.data.index(b"\n", end) + 1
        return bytes(self.data[:end])


def too_large(size: int) -> QueryError:
    """The error for an answer of too many bytes."""
    return QueryError(f"The answer is larger than {size >> 20} MB. Select less, or download the whole graph.")


def write_solutions(found: QuerySolutions, media_type: str, bounds: Bounds) -> tuple[bytes, bool]:
    """SELECT rows in a format, and whether rows were left out.

    Raises:
        QueryError: the answer has too many bytes.
    """
    kind = RESULT_FORMATS[media_type]
    buffer = _Rows(bounds)
    large = False
    try:
        found.serialize(buffer, format=QueryResultsFormat.TSV)  # type: ignore[arg-type]
    except (_Stop, _TooLarge) as reason:
        # The result remembers the exception, which remembers who called: a ring that the collector would
        # undo in whatever thread it runs, and the engine's objects may end only in their own.
        reason.__traceback__ = None
        large = isinstance(reason, _TooLarge)
    del found
    if large:
        raise too_large(bounds.size)
    body = buffer.lines()
    if kind != QueryResultsFormat.TSV:
        again = parse_query_results(body, QueryResultsFormat.TSV)
        assert isinstance(again, QuerySolutions)
        body = again.serialize(format=kind) or b""
    return (_say_cut(body, kind, bounds.note) if buffer.cut else body), buffer.cut


def write_boolean(found: QueryBoolean, media_type: str) -> bytes:
    """An ASK result in a format; ``true`` or ``false`` for CSV and TSV, which have no form of their own for it."""
    return found.serialize(format=RESULT_FORMATS[media_type]) or b""


def write_triples(found: Iterable[Triple], media_type: str, bounds: Bounds) -> tuple[bytes, bool]:
    """Triples in a format, and whether some were left out.

    Raises:
        QueryError: the answer has too many bytes.
    """
    kind = GRAPH_FORMATS[media_type]
    triples = list(islice(found, bounds.rows + 1))
    cut = len(triples) > bounds.rows
    kept = triples[: bounds.rows]
    body = serialize(kept, format=RdfFormat.N_TRIPLES) or b""
    if len(body) > bounds.size:
        raise too_large(bounds.size)
    if kind != RdfFormat.N_TRIPLES:
        names = {p: n for p, n in prefixes().items() if f"<{n}".encode() in body}
        data: list[Quad] | list[Triple] = kept
        if kind.supports_datasets:
            data = [Quad(t.subject, t.predicate, t.object, DefaultGraph()) for t in kept]
        body = serialize(data, format=kind, prefixes=None if kind == RdfFormat.N_QUADS else names) or b""
    if cut and kind in (RdfFormat.TURTLE, RdfFormat.TRIG, RdfFormat.N_TRIPLES, RdfFormat.N_QUADS):
        body += f"# Cut at {bounds.rows} triples: there are more. {bounds.note}\n".encode()
    elif cut and kind == RdfFormat.RDF_XML:
        body += f"<!-- Cut at {bounds.rows} triples: there are more. -->\n".encode()
    return body, cut


def _say_cut(body: bytes, kind: QueryResultsFormat, note: str) -> bytes:
    """Both standard formats have a place for a link to more about the result."""
    if not note:
        return body
    if kind == QueryResultsFormat.JSON:
        import json

        return body.replace(b'{"head":{', b'{"head":{"link":[' + json.dumps(note).encode() + b"],", 1)
    if kind == QueryResultsFormat.XML:
        return body.replace(b"</head>", f"<link href={quoteattr(note)}/></head>".encode(), 1)
    return body


def write_result(
    result: QuerySolutions | QueryBoolean | QueryTriples,
    media_type: str,
    bounds: Bounds,
) -> tuple[bytes, bool]:
    """Whatever an engine answered, in a format that fits its form, and whether it was cut.

    Raises:
        QueryError: the answer has too many bytes.
    """
    if isinstance(result, QueryBoolean):
        return write_boolean(result, media_type), False
    if isinstance(result, pyoxigraph.QueryTriples):
        return write_triples(result, media_type, bounds)
    return write_solutions(result, media_type, bounds)
