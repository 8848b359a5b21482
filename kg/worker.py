"""Queries from outside, each in a process that can be ended.

The engine cannot cancel a query. So ad-hoc queries are evaluated in a few child
processes that share the on-disk snapshot read-only; one that runs past its time is
killed, and another takes its place.
"""

from __future__ import annotations

import multiprocessing as mp
import queue
import resource
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from typing import Any

import pyoxigraph
from pyoxigraph import QueryBoolean, QuerySolutions, QueryTriples, RdfFormat
from rdflib.query import Result
from rdflib.term import BNode, Identifier, URIRef, Variable
from rdflib.term import Literal as RdfLiteral

from kg.errors import QueryError, QueryTimeout

RESULT_FORMATS = {
    "application/sparql-results+json": "json",
    "application/sparql-results+xml": "xml",
    "text/csv": "csv",
    "text/tab-separated-values": "tsv",
}
GRAPH_FORMATS = {
    "text/turtle": RdfFormat.TURTLE,
    "application/n-triples": RdfFormat.N_TRIPLES,
    "application/ld+json": RdfFormat.JSON_LD,
    "application/rdf+xml": RdfFormat.RDF_XML,
}


@dataclass(frozen=True)
class Limits:
    """Bounds of one query: seconds of wall clock, rows or triples, bytes of memory."""

    seconds: float = 10.0
    rows: int = 10_000
    memory: int = 2 << 30


@dataclass(frozen=True)
class Reply:
    """A serialised result, and whether rows were left out."""

    body: bytes
    media_type: str
    truncated: bool


def _rdflib(term: Any) -> Identifier | None:
    if term is None:
        return None
    if isinstance(term, pyoxigraph.NamedNode):
        return URIRef(term.value)
    if isinstance(term, pyoxigraph.BlankNode):
        return BNode(term.value)
    if term.language:
        return RdfLiteral(term.value, lang=term.language)
    datatype = term.datatype.value
    plain = datatype == "http://www.w3.org/2001/XMLSchema#string"
    return RdfLiteral(term.value, datatype=None if plain else URIRef(datatype), normalize=False)


def evaluate(store: pyoxigraph.Store, query: str, media_type: str, limits: Limits) -> Reply:
    """Evaluate a checked query and serialise its result, cut at ``limits.rows``.

    Raises:
        QueryError: the engine does not accept the query.
    """
    try:
        result = store.query(query, use_default_graph_as_union=True)
        if isinstance(result, QueryTriples):
            triples = list(islice(result, limits.rows + 1))
            kind = GRAPH_FORMATS.get(media_type, RdfFormat.TURTLE)
            prefixes = None
            body = pyoxigraph.serialize(triples[: limits.rows], format=kind, prefixes=prefixes)
            return Reply(body or b"", kind.media_type, len(triples) > limits.rows)
        media_type = media_type if media_type in RESULT_FORMATS else "application/sparql-results+json"
        if isinstance(result, QueryBoolean):
            answer = Result("ASK")
            answer.askAnswer = bool(result)
            name = RESULT_FORMATS[media_type]
            if name not in ("json", "xml"):
                media_type, name = "application/sparql-results+json", "json"
            return Reply(answer.serialize(format=name) or b"", media_type, False)
        assert isinstance(result, QuerySolutions)
        names = [v.value for v in result.variables]
        found = list(islice(result, limits.rows + 1))
    except (SyntaxError, ValueError, OSError, RuntimeError) as error:
        raise QueryError(f"The engine does not accept this query: {error}") from error
    rows = found[: limits.rows]
    if media_type == "text/tab-separated-values":
        lines = ["\t".join(f"?{n}" for n in names)]
        lines += ["\t".join("" if r[n] is None else str(r[n]) for n in names) for r in rows]
        return Reply(("\n".join(lines) + "\n").encode(), media_type, len(found) > limits.rows)
    table = Result("SELECT")
    table.vars = [Variable(n) for n in names]
    table.bindings = [{Variable(n): t for n in names if (t := _rdflib(r[n])) is not None} for r in rows]
    body = table.serialize(format=RESULT_FORMATS[media_type]) or b""
    return Reply(body, media_type, len(found) > limits.rows)


def _serve(pipe: Connection, folder: str, limits: Limits) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))
    store = pyoxigraph.Store.read_only(folder)
    pipe.send("ready")
    while True:
        try:
            query, media_type = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(evaluate(store, query, media_type, limits))
        except QueryError as error:
            pipe.send(error)
        except MemoryError:
            pipe.send(QueryError("The query needs more memory than it may have."))


class _Worker:
    def __init__(self, folder: Path, limits: Limits) -> None:
        context = mp.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, str(folder / "store"), limits), daemon=True)
        self.process.start()
        theirs.close()
        self.ready = False

    def end(self) -> None:
        self.process.kill()
        self.process.join(2)
        self.pipe.close()


class Pool:
    """A fixed number of workers on one snapshot.

    Args:
        folder: folder of the snapshot.
        size: number of worker processes, so of queries at a time.
        limits: bounds of each query.
    """

    def __init__(self, folder: Path, *, size: int = 2, limits: Limits | None = None) -> None:
        self.folder = folder
        self.limits = limits or Limits()
        self._lock = Lock()
        self._closed = False
        self._idle: queue.Queue[_Worker] = queue.Queue()
        for _ in range(size):
            self._idle.put(_Worker(folder, self.limits))

    def run(self, query: str, media_type: str) -> Reply:
        """Evaluate one checked query.

        Raises:
            QueryTimeout: no worker came free, or the query ran past its time and was ended.
            QueryError: the engine does not accept the query, or it needs too much memory.
        """
        try:
            worker = self._idle.get(timeout=self.limits.seconds)
        except queue.Empty:
            raise QueryTimeout("All workers are busy. Try again in a moment.") from None
        try:
            if not worker.ready:
                if not worker.pipe.poll(30):
                    raise QueryTimeout("The worker did not start in time. Try again.")
                worker.pipe.recv()
                worker.ready = True
            worker.pipe.send((query, media_type))
            if not worker.pipe.poll(self.limits.seconds):
                raise QueryTimeout(
                    f"The query ran longer than {self.limits.seconds:g} seconds and was stopped. "
                    "Narrow it, or add a LIMIT."
                )
            reply = worker.pipe.recv()
        except (EOFError, OSError) as error:
            self._replace(worker)
            raise QueryError("The query needs more memory than it may have.") from error
        except QueryTimeout:
            self._replace(worker)
            raise
        self._idle.put(worker)
        if isinstance(reply, QueryError):
            raise reply
        assert isinstance(reply, Reply)
        return reply

    def _replace(self, worker: _Worker) -> None:
        worker.end()
        with self._lock:
            if not self._closed:
                self._idle.put(_Worker(self.folder, self.limits))

    def close(self) -> None:
        """End all workers that are idle; busy ones end with this process."""
        with self._lock:
            self._closed = True
        while True:
            try:
                self._idle.get_nowait().end()
            except queue.Empty:
                return
