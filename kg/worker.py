"""Queries from outside, each in a process that can be ended.

The engine cannot cancel a query. So ad-hoc queries are parsed and evaluated in a few child
processes that share the on-disk snapshot read-only; one that runs past its time or its
memory is ended, and another takes its place. Processes are forked from one that has
everything imported and opens the store only afterwards, so a new one is there in
milliseconds and shares nothing with the one before.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import queue
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from time import perf_counter

import pyoxigraph
from pyoxigraph import NamedNode

from kg.errors import NotAcceptable, QueryError, QueryTimeout, SettingsError, StrataError
from kg.guard import Examined, examine
from kg.namespaces import prefixes
from kg.results import ENGINE_ERRORS, GRAPH_FORMATS, RESULT_FORMATS, Bounds, write_result
from kg.sandbox import enter

_PAGE = os.sysconf("SC_PAGE_SIZE")
_ZYGOTE = "kg.zygote"
_NICENESS = 10
"""How far queries from outside stand back when the machine is full: look-ups and pages come first."""
_GRACE = 2.0
"""Seconds after which a process ends itself if nobody did."""


@dataclass(frozen=True)
class Limits:
    """Bounds of one query: seconds of wall clock, rows or triples, bytes of memory and of the answer."""

    seconds: float = 10.0
    rows: int = 10_000
    memory: int = 2 << 30
    answer: int = 64 << 20
    sandbox: str = "auto"


@dataclass(frozen=True)
class Question:
    """A query from outside as the SPARQL 1.1 Protocol puts it.

    Args:
        query: its text, not yet examined.
        results: media type for SELECT and ASK; None if the caller takes none of ours.
        graph: media type for CONSTRUCT and DESCRIBE; likewise.
        default_graphs: the dataset of the request; with ``named_graphs`` it replaces the
            one in the query. None if the request names no graph of either kind.
        named_graphs: see ``default_graphs``.
        note: address that explains cut answers, for formats that can carry one.
    """

    query: str
    results: str | None = "application/sparql-results+json"
    graph: str | None = "text/turtle"
    default_graphs: tuple[str, ...] | None = None
    named_graphs: tuple[str, ...] | None = None
    note: str = ""

    def media_type(self, form: str) -> str:
        """The media type to answer a query of this form in.

        Raises:
            NotAcceptable: the caller takes none that the form can be written in.
        """
        is_table = form in ("SELECT", "ASK")
        chosen = self.results if is_table else self.graph
        if chosen is None:
            offered = ", ".join(RESULT_FORMATS if is_table else GRAPH_FORMATS)
            raise NotAcceptable(f"The result of a {form} query comes as: {offered}. Ask for one of these.")
        return chosen


@dataclass(frozen=True)
class Reply:
    """A serialised result, whether rows were left out, and whether it depends on the snapshot alone."""

    body: bytes
    media_type: str
    truncated: bool
    form: str = "SELECT"
    pure: bool = True
    seconds: float = 0.0


_examine = lru_cache(maxsize=64)(examine)


def graph_nodes(names: tuple[str, ...] | None) -> list[NamedNode]:
    """Names of graphs as nodes; nothing is fetched, and a name unknown here is an empty graph.

    Raises:
        QueryError: one is not an absolute IRI.
    """
    try:
        return [NamedNode(n) for n in names or ()]
    except ValueError as error:
        raise QueryError(f"A graph of the dataset is not named by an absolute IRI: {error}") from error


def ask_store(store: pyoxigraph.Store, question: Question, examined: Examined) -> object:
    """What the engine answers, on the dataset that the request, else the query, else nobody names.

    Without any dataset the default graph is the union of all graphs.

    Raises:
        QueryError: the engine does not accept the query.
    """
    try:
        if question.default_graphs is not None or question.named_graphs is not None:
            return store.query(
                question.query,
                default_graph=list(graph_nodes(question.default_graphs)),
                named_graphs=list(graph_nodes(question.named_graphs)),
            )
        # With the union as default graph the engine would pass over FROM.
        return store.query(question.query, use_default_graph_as_union=not examined.has_dataset)
    except ENGINE_ERRORS as error:
        raise QueryError(f"The engine does not accept this query: {error}") from error


def evaluate(store: pyoxigraph.Store, question: Question, limits: Limits) -> Reply:
    """Examine and evaluate a query, and serialise its result, cut at ``limits.rows``.

    Raises:
        QueryError: the query may not run, or the engine does not accept it.
        NotAcceptable: its result has no format that the caller takes.
    """
    start = perf_counter()
    examined = _examine(question.query)
    media_type = question.media_type(examined.form)
    bounds = Bounds(limits.rows, limits.answer, question.note)
    result = ask_store(store, question, examined)
    try:
        body, cut = write_result(result, media_type, bounds)  # type: ignore[arg-type]
    except ENGINE_ERRORS as error:
        raise QueryError(f"The engine could not finish this query: {error}") from error
    return Reply(body, media_type, cut, examined.form, examined.pure, perf_counter() - start)


def _serve(pipe: Connection, folder: str, limits: Limits) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    stand_back()
    # Behind the walls nothing can be imported or read. Where the fork server was there before us, with
    # other modules in it, this is where they are imported.
    import_module(_ZYGOTE)
    prefixes()
    try:
        walls = enter(Path(folder), memory=limits.memory, mode=limits.sandbox)
        store = pyoxigraph.Store.read_only(folder)
    except (SettingsError, OSError) as error:
        pipe.send(error)
        return
    pipe.send(walls)
    while True:
        try:
            question = pipe.recv()
        except (EOFError, OSError):
            return
        # Should the parent die while this runs, nobody would end it: it sees to that itself.
        signal.setitimer(signal.ITIMER_REAL, limits.seconds + _GRACE)
        try:
            reply: object = evaluate(store, question, limits)
        except StrataError as error:
            reply = error
        except MemoryError:
            reply = QueryError("The query needs more memory than it may have.")
        signal.setitimer(signal.ITIMER_REAL, 0)
        pipe.send(reply)


def stand_back() -> None:
    """Leave the processor to pages and look-ups, where the machine is full."""
    os.setpriority(os.PRIO_PROCESS, 0, max(_NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))


def _context() -> mp.context.ForkServerContext:
    context = mp.get_context("forkserver")
    context.set_forkserver_preload([_ZYGOTE])
    return context


class _Died(Exception):
    """A process ended before it answered."""

    def __init__(self, code: int | None) -> None:
        self.code = code


class _Worker:
    def __init__(self, folder: Path, limits: Limits) -> None:
        context = _context()
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, str(folder / "store"), limits), daemon=True)
        self.process.start()
        theirs.close()
        self.walls: tuple[str, ...] | None = None

    def wait_ready(self) -> None:
        """Wait for the store to be open.

        Raises:
            QueryTimeout: it takes too long.
            SettingsError: the second wall is required and cannot be put up.
        """
        if self.walls is not None:
            return
        if not self.pipe.poll(30):
            raise QueryTimeout("The query process did not start in time. Try again.")
        said = self.pipe.recv()
        if isinstance(said, Exception):
            raise said
        self.walls = said

    def memory(self) -> int:
        """Bytes that are resident; 0 where the system does not tell."""
        try:
            return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * _PAGE
        except (OSError, ValueError, IndexError):
            return 0

    def ask(self, question: Question, seconds: float) -> object:
        """Its reply or error.

        Raises:
            QueryTimeout: none came in time.
            _Died: the process ended.
        """
        try:
            self.wait_ready()
            self.pipe.send(question)
            if not self.pipe.poll(seconds):
                raise QueryTimeout(
                    f"The query ran longer than {seconds:g} seconds and was stopped. Narrow it, or add a LIMIT."
                )
            return self.pipe.recv()
        except (EOFError, OSError) as error:
            self.process.join(1)
            raise _Died(self.process.exitcode) from error

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
        on_replaced: called with the reason when a worker is ended and another started.
    """

    def __init__(
        self,
        folder: Path,
        *,
        size: int = 2,
        limits: Limits | None = None,
        on_replaced: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.folder = folder
        self.limits = limits or Limits()
        self.size = size
        self.walls: tuple[str, ...] = ()
        self._on_replaced = on_replaced
        self._lock = Lock()
        self._closed = False
        self._workers: set[_Worker] = set()
        self._idle: queue.Queue[_Worker] = queue.Queue()
        for _ in range(size):
            self._start()

    def run(self, question: Question) -> Reply:
        """Evaluate one query from outside.

        Raises:
            QueryTimeout: no worker came free, or the query ran past its time and was ended.
            QueryError: the query may not run, or it needs too much memory.
            NotAcceptable: its result has no format that the caller takes.
        """
        for last in (False, True):
            worker = self._take()
            try:
                reply = worker.ask(question, self.limits.seconds)
            except _Died as error:
                self._replace(worker, "died")
                # SIGKILL and SIGTERM come from outside, so the query may be innocent: it has one more
                # chance. What runs out of memory or stack ends by another signal.
                if not last and error.code in (-signal.SIGKILL, -signal.SIGTERM, None):
                    continue
                raise QueryError(
                    "The query ended its process: it needs more memory, or is nested deeper, than it may."
                ) from error
            except BaseException as error:
                self._replace(worker, "time" if isinstance(error, QueryTimeout) else "error")
                raise
            self.walls = worker.walls or ()
            self._give_back(worker)
            if isinstance(reply, Exception):
                raise reply
            assert isinstance(reply, Reply)
            return reply
        raise AssertionError("unreachable")  # pragma: no cover

    def _take(self) -> _Worker:
        """A worker that is alive; one that was killed while it was idle is replaced on the way."""
        while True:
            try:
                worker = self._idle.get(timeout=self.limits.seconds)
            except queue.Empty:
                raise QueryTimeout("All query processes are busy. Try again in a moment.") from None
            if worker.process.is_alive():
                return worker
            self._replace(worker, "died")

    def warm(self) -> None:
        """Wait until every worker that is idle has the store open."""
        for _ in range(self._idle.qsize()):
            try:
                worker = self._idle.get_nowait()
            except queue.Empty:
                return
            try:
                worker.wait_ready()
                self.walls = worker.walls or ()
                self._idle.put(worker)
            except (EOFError, OSError):
                self._replace(worker, "died")
            except BaseException:
                self._replace(worker, "error")
                raise

    def pids(self) -> list[int]:
        """Process ids of the workers."""
        with self._lock:
            return [w.process.pid for w in self._workers if w.process.pid is not None]

    def memory(self) -> int:
        """Resident bytes of all workers together."""
        with self._lock:
            return sum(w.memory() for w in self._workers)

    def _start(self) -> None:
        worker = _Worker(self.folder, self.limits)
        self._workers.add(worker)
        self._idle.put(worker)

    def _give_back(self, worker: _Worker) -> None:
        """Put a worker in line again, unless it kept the memory of a large query or the pool is closed."""
        if worker.memory() > max(256 << 20, self.limits.memory // 4):
            self._replace(worker, "memory")
            return
        with self._lock:
            if not self._closed:
                self._idle.put(worker)
                return
            self._workers.discard(worker)
        worker.end()

    def _replace(self, worker: _Worker, reason: str) -> None:
        worker.end()
        with self._lock:
            self._workers.discard(worker)
            if not self._closed:
                self._start()
        self._on_replaced(reason)

    def close(self) -> None:
        """End all workers that are idle; a busy one ends when it has answered."""
        with self._lock:
            self._closed = True
        while True:
            try:
                worker = self._idle.get_nowait()
            except queue.Empty:
                return
            with self._lock:
                self._workers.discard(worker)
            worker.end()
