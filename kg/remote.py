"""The graph behind any SPARQL 1.1 endpoint: asking it, and loading a snapshot into it.

Such an endpoint must take the union of all its named graphs as default graph, as the
embedded store does; Oxigraph does so with ``--union-default-graph``, Virtuoso always.
Reading is tried again when the connection fails or the server says it is overloaded;
a query that ran out of time is not, since it would only run out of time again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from time import monotonic, perf_counter
from urllib.parse import urlencode

import httpx
import stamina
from pyoxigraph import QueryBoolean, QueryResultsFormat, QuerySolutions, RdfFormat, parse, parse_query_results

from kg.errors import QueryError, QueryTimeout, StoreUnavailable
from kg.guard import examine
from kg.results import ENGINE_ERRORS, GRAPH_FORMATS, Bounds, too_large, write_boolean, write_solutions, write_triples
from kg.snapshot import Manifest, read_manifest
from kg.store import Table, describe_query, table_of
from kg.worker import Limits, Question, Reply, graph_nodes

_OVERLOADED = (429, 502, 503, 504)
_MARK = "https://w3id.org/strata/graph/snapshot"
_IDENTIFIER = "http://purl.org/dc/terms/identifier"
_HAS_PART = "http://purl.org/dc/terms/hasPart"
_PART = re.compile(rf"<{re.escape(_HAS_PART)}>\s+<([^<>\s]+)>")
_MARK_SECONDS = 5.0
"""How long the remote snapshot's name is believed before it is asked again."""


class _Again(Exception):
    """A failure that may pass, with the error to raise if it does not."""

    def __init__(self, error: StoreUnavailable) -> None:
        self.error = error


class RemoteStore:
    """Any SPARQL 1.1 endpoint whose default graph holds the snapshot.

    Args:
        url: the query endpoint.
        timeout: seconds to wait for an answer.
        tries: how often to ask before giving up.
        auth: user and password, for HTTP digest or basic authentication.
        client: an HTTP client to use, for instance one that talks to an app in this process.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 30.0,
        tries: int = 3,
        auth: tuple[str, str] | None = None,
        client: httpx.Client | None = None,
    ) -> None:
        self.url = url
        self.timeout = timeout
        self.tries = tries
        self._client = client or httpx.Client(timeout=timeout, auth=httpx.DigestAuth(*auth) if auth else None)
        self._lock = Lock()
        self._name: str | None = None
        self._asked = -1e9

    @property
    def snapshot(self) -> str:
        """Hash of the snapshot that ``strata load`` put there, or that the endpoint names itself; else its URL.

        Raises:
            StoreUnavailable: the endpoint does not answer.
        """
        with self._lock:
            if self._name is None or monotonic() - self._asked > _MARK_SECONDS:
                query = f"SELECT ?name WHERE {{ GRAPH <{_MARK}> {{ <{_MARK}> <{_IDENTIFIER}> ?name }} }}"
                answer = self._ask(query, "application/sparql-results+json")
                rows = self._table(answer.content).rows
                marked = str(rows[0]["name"]) if rows else None
                self._name = answer.headers.get("strata-snapshot") or marked or self.url
                self._asked = monotonic()
            return self._name

    def select(self, query: str) -> Table:
        """Rows of a SELECT query; see :meth:`kg.store.Store.select`."""
        return self._table(self._ask(query, "application/sparql-results+json").content)

    def describe(self, iris: Sequence[str], media_type: str) -> bytes:
        """Statements about the resources; see :meth:`kg.store.Store.describe`."""
        return self._ask(describe_query(iris), media_type).content

    def run(self, question: Question, limits: Limits) -> Reply:
        """A query from outside, examined here, evaluated there, and cut to the bounds here.

        Raises:
            QueryError: the query may not run, or the engine does not accept it.
            NotAcceptable: its result has no format that the caller takes.
            QueryTimeout: it did not answer in time.
            StoreUnavailable: it does not answer at all.
        """
        start = perf_counter()
        examined = examine(question.query)
        media = question.media_type(examined.form)
        bounds = Bounds(limits.rows, limits.answer, question.note)
        dataset = [("default-graph-uri", n.value) for n in graph_nodes(question.default_graphs)]
        dataset += [("named-graph-uri", n.value) for n in graph_nodes(question.named_graphs)]
        seconds = min(self.timeout, limits.seconds)
        cut = False
        if examined.form in ("SELECT", "ASK"):
            accept = "application/sparql-results+json"
            raw = self._ask(question.query, accept, dataset, seconds=seconds, most=4 * limits.answer).content
            body, cut = self._rewritten(raw, examined.form, media, bounds)
        else:
            accept = "application/n-triples"
            raw = self._ask(question.query, accept, dataset, seconds=seconds, most=4 * limits.answer).content
            triples = (q.triple for q in parse(raw, RdfFormat.N_TRIPLES))
            assert media in GRAPH_FORMATS
            body, cut = write_triples(triples, media, bounds)
        return Reply(body, media, cut, examined.form, examined.pure, perf_counter() - start)

    def close(self) -> None:
        """Give back the connections."""
        self._client.close()

    # Results are not kept in a name: an error would carry them to another thread, and they may end only in
    # the one that made them. The reason of an error is told, not chained, for the same cause.

    def _table(self, raw: bytes) -> Table:
        try:
            return table_of(_rows(raw))
        except ENGINE_ERRORS as error:
            reason = str(error)
        raise self._no_result(reason)

    def _rewritten(self, raw: bytes, form: str, media: str, bounds: Bounds) -> tuple[bytes, bool]:
        """A result in JSON in the format that was asked for, and whether it was cut."""
        try:
            if form == "ASK":
                return write_boolean(_truth(raw), media), False
            return write_solutions(_rows(raw), media, bounds)
        except ENGINE_ERRORS as error:
            reason = str(error)
        raise self._no_result(reason)

    def _no_result(self, reason: str) -> StoreUnavailable:
        return StoreUnavailable(f"{self.url} sent no SPARQL result in JSON ({reason}). Is it a query endpoint?")

    def _ask(
        self,
        query: str,
        accept: str,
        dataset: Sequence[tuple[str, str]] = (),
        *,
        seconds: float | None = None,
        most: int | None = None,
    ) -> httpx.Response:
        def once() -> httpx.Response:
            request = self._client.build_request(
                "POST",
                self.url,
                # As a form: Virtuoso 7.2 never answers a query that is the body itself.
                content=urlencode([("query", query), *dataset]).encode(),
                headers={"content-type": "application/x-www-form-urlencoded", "accept": accept},
                timeout=seconds or self.timeout,
            )
            answer = self._send(request, most)
            if answer.status_code in _OVERLOADED:
                raise _Again(StoreUnavailable(f"{self.url} answered {answer.status_code}: it is overloaded or away."))
            return answer

        answer = self._retried(once)
        if answer.status_code >= 500:
            raise StoreUnavailable(f"{self.url} answered {answer.status_code}. Look at its log. {answer.text[:300]}")
        if answer.status_code >= 400:
            raise QueryError(f"{self.url} refused the query ({answer.status_code}): {answer.text[:300]}")
        return answer

    def _send(self, request: httpx.Request, most: int | None) -> httpx.Response:
        try:
            answer = self._client.send(request, stream=True)
            try:
                body = bytearray()
                for chunk in answer.iter_bytes():
                    body += chunk
                    if most is not None and len(body) > most:
                        raise too_large(most)
            finally:
                answer.close()
        except httpx.ConnectTimeout as error:
            raise _Again(StoreUnavailable(self._away("no connection in time"))) from error
        except httpx.TimeoutException as error:
            raise QueryTimeout(f"{self.url} did not answer in time. Narrow the query, or ask again.") from error
        except httpx.HTTPError as error:
            raise _Again(StoreUnavailable(self._away(str(error)))) from error
        headers = {k: v for k, v in answer.headers.items() if k not in ("content-encoding", "content-length")}
        return httpx.Response(answer.status_code, headers=headers, content=bytes(body), request=request)

    def _away(self, reason: str) -> str:
        return f"{self.url} does not answer ({reason}). Start it, or unset STRATA_ENDPOINT to use the embedded store."

    def _retried(self, once: Callable[[], httpx.Response]) -> httpx.Response:
        try:
            for attempt in stamina.retry_context(
                on=_Again, attempts=self.tries, timeout=None, wait_initial=0.1, wait_max=2.0
            ):
                with attempt:
                    return once()
        except _Again as error:
            raise error.error from error
        raise AssertionError("unreachable")  # pragma: no cover


# ------------------------------------------------------------------ loading


def load(
    folder: Path,
    graph_store: str,
    *,
    auth: tuple[str, str] | None = None,
    timeout: float = 300.0,
    batch: int = 50_000,
    client: httpx.Client | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Put a snapshot into a store by the SPARQL 1.1 Graph Store Protocol, graph by graph.

    Each named graph is replaced; graphs that an earlier load brought and this one does not
    are removed. The snapshot's hash is written last, so a store that carries it is whole.

    Args:
        folder: folder of the snapshot.
        graph_store: address of the Graph Store Protocol service.
        auth: user and password there.
        timeout: seconds for one request.
        batch: statements sent in one request.
        client: an HTTP client to use.
        progress: told the name of each graph.

    Raises:
        StoreUnavailable: the store cannot be reached or refuses to be written to.
    """
    if client is None:
        with httpx.Client(timeout=timeout, auth=httpx.DigestAuth(*auth) if auth else None) as own:
            return load(folder, graph_store, timeout=timeout, batch=batch, client=own, progress=progress)
    http, manifest = client, read_manifest(folder)

    def send(method: str, graph: str, body: bytes = b"") -> httpx.Response:
        headers = {"accept": "application/n-triples"} if method == "GET" else {"content-type": "text/turtle"}
        try:
            answer = http.request(method, graph_store, params={"graph": graph}, content=body, headers=headers)
        except httpx.HTTPError as error:
            reason = f"{graph_store} does not answer ({error}). Is it running, and the address right?"
            raise StoreUnavailable(reason) from error
        if answer.status_code >= 400 and not (method in ("GET", "DELETE") and answer.status_code == 404):
            remedy = " Give --user and --password." if answer.status_code in (401, 403) else ""
            raise StoreUnavailable(
                f"{graph_store} refused to {method} <{graph}> ({answer.status_code}): {answer.text[:300]}.{remedy}"
            )
        return answer

    before = send("GET", _MARK)
    earlier = set(_PART.findall(before.text)) if before.status_code < 400 else set()
    send("DELETE", _MARK)  # while it is half loaded it is no snapshot
    for graph in sorted(earlier - set(manifest.graphs)):
        send("DELETE", graph)
    with TemporaryDirectory(prefix="strata-load-") as name:
        for graph, files in _split(folder / "dataset.nq", Path(name), sorted(manifest.graphs)).items():
            progress(graph)
            method = "PUT"
            for body in _batches(files, batch):
                send(method, graph, body)
                method = "POST"
    mark = f'<{_MARK}> <{_IDENTIFIER}> "{manifest.hash}" .\n'
    mark += "".join(f"<{_MARK}> <{_HAS_PART}> <{g}> .\n" for g in sorted(manifest.graphs))
    send("PUT", _MARK, mark.encode())
    return manifest


def _rows(raw: bytes) -> QuerySolutions:
    result = parse_query_results(raw, QueryResultsFormat.JSON)
    if isinstance(result, QuerySolutions):
        return result
    raise ValueError("a truth value, where rows are due")


def _truth(raw: bytes) -> QueryBoolean:
    """What ASK found. Virtuoso 7.2 says it as a table, of one row if there is a match and of none if not."""
    result = parse_query_results(raw, QueryResultsFormat.JSON)
    if isinstance(result, QuerySolutions):
        names = [v.value for v in result.variables]
        found = any(True for _ in result)
        del result
        if names != ["__ASK_RETVAL"]:
            raise ValueError("rows, where a truth value is due")
        result = parse_query_results(json.dumps({"head": {}, "boolean": found}), QueryResultsFormat.JSON)
    assert isinstance(result, QueryBoolean)
    return result


_STATEMENT = re.compile(r"^(.*) <([^<>\s]+)> \.$")


def _split(dataset: Path, target: Path, graphs: Sequence[str]) -> dict[str, tuple[Path, Path]]:
    """N-Triples of each graph in two files: statements with blank nodes, and those without.

    Blank nodes are names within one request only, so all of a graph go in one.
    """
    names = {g: (target / f"{n}-blank.nt", target / f"{n}.nt") for n, g in enumerate(graphs)}
    handles = {g: tuple(p.open("w", encoding="utf-8") for p in pair) for g, pair in names.items()}
    try:
        with dataset.open(encoding="utf-8") as lines:
            for line in lines:
                match = _STATEMENT.match(line.rstrip("\n"))
                if match is None:
                    raise StoreUnavailable(f"{dataset}: not in canonical N-Quads. Build the snapshot again.")
                statement, graph = match.groups()
                blank = statement.startswith("_:") or " _:" in statement
                handles[graph][0 if blank else 1].write(f"{statement} .\n")
    finally:
        for pair in handles.values():
            for handle in pair:
                handle.close()
    return names


def _batches(files: tuple[Path, Path], size: int) -> Iterator[bytes]:
    blank, plain = files
    first = blank.read_bytes()
    with plain.open("rb") as lines:
        while True:
            chunk = b"".join(islice(lines, size))
            if not chunk and not first:
                return
            yield first + chunk
            first = b""
