"""One interface to the graph, embedded or behind any SPARQL 1.1 endpoint.

Everything above this module asks a :class:`Store` and does not know which one it has;
the one behind an endpoint is in :mod:`kg.remote`.
Both treat the default graph as the union of all named graphs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyoxigraph
from pyoxigraph import (
    BlankNode,
    Literal,
    NamedNode,
    QuerySolutions,
    QueryTriples,
    RdfFormat,
    serialize,
)

from kg.errors import QueryError

_NUMBERS: dict[str, type[int] | type[float]] = {
    "integer": int,
    "int": int,
    "long": int,
    "nonNegativeInteger": int,
    "decimal": float,
    "double": float,
    "float": float,
}
_XSD = "http://www.w3.org/2001/XMLSchema#"

Value = str | int | float | bool | None
"""A cell of a result: text, an IRI as text, a number, a truth value, or nothing."""


@dataclass(frozen=True)
class Table:
    """A SELECT result: column names, and rows with one value a column."""

    columns: tuple[str, ...]
    rows: list[dict[str, Value]]


class Store(Protocol):
    """A graph that can be asked."""

    def __hash__(self) -> int:
        """Stores are told apart by identity, so that answers can be cached."""
        ...

    @property
    def snapshot(self) -> str:
        """Hash of the snapshot that answers, or a name for a remote graph."""
        ...

    def select(self, query: str) -> Table:
        """Rows of a SELECT query.

        Raises:
            QueryError: the query is malformed.
            StoreUnavailable: the graph cannot be reached.
        """
        ...

    def describe(self, iris: Sequence[str], media_type: str) -> bytes:
        """All statements about the resources, serialised; empty if there are none.

        Raises:
            StoreUnavailable: the graph cannot be reached.
        """
        ...


def describe_query(iris: Sequence[str]) -> str:
    """CONSTRUCT query for the statements about the resources.

    Raises:
        ValueError: something is not an IRI.
    """
    nodes = " ".join(str(NamedNode(i)) for i in iris)
    return f"CONSTRUCT {{ ?s ?p ?o }} WHERE {{ VALUES ?s {{ {nodes} }} ?s ?p ?o }}"


def _value(term: NamedNode | BlankNode | Literal | object) -> Value:
    if isinstance(term, NamedNode):
        return term.value
    if isinstance(term, BlankNode):
        return f"_:{term.value}"
    if isinstance(term, Literal):
        return literal_value(term.value, term.datatype.value)
    return None if term is None else str(term)


def literal_value(text: str, datatype: str) -> Value:
    """A literal as the Python value its XSD datatype stands for, else as text."""
    name = datatype.removeprefix(_XSD)
    if datatype.startswith(_XSD) and name in _NUMBERS:
        return _NUMBERS[name](text)
    if datatype == f"{_XSD}boolean":
        return text in ("true", "1")
    return text


class EmbeddedStore:
    """The on-disk store of one snapshot, opened read-only; several processes may share it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._store = pyoxigraph.Store.read_only(str(folder / "store"))

    @property
    def snapshot(self) -> str:
        """Hash of the snapshot."""
        return self.folder.name

    def select(self, query: str) -> Table:
        """Rows of a SELECT query; see :meth:`Store.select`."""
        return select_from(self._store, query)

    def describe(self, iris: Sequence[str], media_type: str) -> bytes:
        """Statements about the resources; see :meth:`Store.describe`."""
        return _describe(self._store, iris, media_type)


class MemoryStore:
    """A graph in memory, for checks on data that is not served."""

    def __init__(self, quads: Iterable[pyoxigraph.Quad], name: str = "memory") -> None:
        self._store = pyoxigraph.Store()
        self._store.bulk_extend(quads)
        self._name = name

    @classmethod
    def of(cls, store: pyoxigraph.Store, name: str) -> MemoryStore:
        """A store that asks a graph already in memory."""
        made = cls((), name)
        made._store = store
        return made

    def close(self) -> None:
        """Let go of the graph, so that caches of answers do not keep it."""
        self._store = pyoxigraph.Store()

    @property
    def snapshot(self) -> str:
        """The name given to this graph."""
        return self._name

    def select(self, query: str) -> Table:
        """Rows of a SELECT query; see :meth:`Store.select`."""
        return select_from(self._store, query)

    def describe(self, iris: Sequence[str], media_type: str) -> bytes:
        """Statements about the resources; see :meth:`Store.describe`."""
        return _describe(self._store, iris, media_type)


def _describe(store: pyoxigraph.Store, iris: Sequence[str], media_type: str) -> bytes:
    triples = store.query(describe_query(iris), use_default_graph_as_union=True)
    assert isinstance(triples, QueryTriples)
    kind = RdfFormat.from_media_type(media_type) or RdfFormat.TURTLE
    found = sorted(triples, key=str)
    if not found:
        return b""
    if kind == RdfFormat.TURTLE:
        from rdflib import Graph  # see kg.namespaces: not before it is asked for

        from kg.turtle import to_turtle

        plain = serialize(found, format=RdfFormat.N_TRIPLES) or b""
        return to_turtle(Graph(bind_namespaces="none").parse(data=plain, format="nt")).encode()
    return serialize(found, format=kind) or b""


def select_from(store: pyoxigraph.Store, query: str) -> Table:
    """Rows of a SELECT query on an Oxigraph store, default graph the union of all."""
    try:
        result = store.query(query, use_default_graph_as_union=True)
    except (SyntaxError, ValueError) as error:
        raise QueryError(f"The query is malformed: {error}") from error
    if not isinstance(result, QuerySolutions):
        del result  # an error may be let go of in another thread; the engine's objects must not be
        raise QueryError("A SELECT query is needed here.")
    return table_of(result)


def table_of(result: QuerySolutions) -> Table:
    """The rows of an engine's result, as Python values."""
    names = tuple(v.value for v in result.variables)
    return Table(names, [{n: _value(s[n]) for n in names} for s in result])
