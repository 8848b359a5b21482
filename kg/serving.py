"""The snapshot in service: opened once, exchanged when a build replaces it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from kg.errors import BuildError, NoSnapshot
from kg.line import FairLine
from kg.load import find_sources
from kg.settings import Settings, load_settings
from kg.snapshot import Manifest, build, current, home_dir, read_manifest, sources_digest, write
from kg.store import EmbeddedStore, Store
from kg.worker import Limits, Pool, Question, Reply

if TYPE_CHECKING:
    from kg.remote import RemoteStore


def ensure(home: Path, progress: Callable[[str], None] = lambda _: None) -> Manifest:
    """The manifest of a snapshot of today's sources, built first if there is none.

    Raises:
        BuildError: the sources have violations; a snapshot served before stays in place.
    """
    try:
        manifest = read_manifest(current(home))
        if manifest.sources == sources_digest(find_sources()):
            return manifest
    except NoSnapshot:
        pass
    result = build(progress=progress)
    if not result.ok:
        lines = [str(f) for f in result.findings if f.severity == "violation"]
        raise BuildError("\n".join([*lines[:20], f"{len(lines)} violations; nothing was changed."]))
    return write(result, home)


def limits_of(settings: Settings) -> Limits:
    """The bounds of one ad-hoc query."""
    return Limits(
        seconds=settings.query_seconds,
        rows=settings.query_rows,
        memory=settings.query_memory_mb << 20,
        answer=settings.query_answer_mb << 20,
        sandbox=settings.sandbox,
    )


@dataclass
class _Shift:
    """A pool and how many requests are using it; a retired one is closed by the last of them."""

    pool: Pool
    users: int = 0
    retired: bool = False


class Service:
    """What the API stands on: a store for named queries, workers for queries from outside.

    Args:
        home: folder of snapshots; ``STRATA_HOME`` or ``.strata`` when not given.
        settings: everything an operator may set; defaults when not given.
        endpoint: a SPARQL 1.1 endpoint to ask instead of the embedded store.
        workers: number of processes for ad-hoc queries.
        limits: bounds of each ad-hoc query.
        remote: the remote store to ask, set up already.
        on_replaced: called with the reason when a query process is ended and another started.
    """

    def __init__(
        self,
        home: Path | None = None,
        *,
        settings: Settings | None = None,
        endpoint: str | None = None,
        workers: int | None = None,
        limits: Limits | None = None,
        remote: RemoteStore | None = None,
        on_replaced: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.settings = settings or Settings()
        self.home = home or (settings.home if settings else home_dir())
        self.limits = limits or limits_of(self.settings)
        self.workers = workers or self.settings.workers
        self.on_replaced = on_replaced
        self._lock = Lock()
        self._shift: _Shift | None = None
        self._store: EmbeddedStore | None = None
        self._remote = remote or _remote_of(self.settings, endpoint)

    @property
    def is_remote(self) -> bool:
        """Whether another endpoint holds the graph."""
        return self._remote is not None

    def line(self) -> FairLine:
        """The line before the query processes; each event loop has its own."""
        return FairLine(
            self.workers,
            waiting=self.settings.query_waiting,
            per_client=self.settings.query_waiting_per_client,
            patience=self.limits.seconds,
        )

    def store(self) -> Store:
        """The store that answers now.

        Raises:
            NoSnapshot: nothing was built yet.
        """
        if self._remote is not None:
            return self._remote
        pointer = self._pointer()
        with self._lock:
            if self._store is None or self._store.snapshot != pointer:
                self._store = EmbeddedStore(current(self.home))
            return self._store

    def snapshot(self) -> str:
        """Hash of the snapshot that answers now.

        Raises:
            NoSnapshot: nothing was built yet.
            StoreUnavailable: it is behind an endpoint that does not answer.
        """
        return self._remote.snapshot if self._remote is not None else self._pointer()

    def _pointer(self) -> str:
        try:
            return (self.home / "current").read_text("utf-8").strip()
        except FileNotFoundError:
            raise NoSnapshot(f"{self.home}: no snapshot yet. Run: strata build") from None

    def folder(self) -> Path | None:
        """Folder of the snapshot; None for a remote graph.

        Raises:
            NoSnapshot: nothing was built yet.
        """
        return None if self.is_remote else current(self.home)

    def manifest(self) -> Manifest | None:
        """Manifest of the embedded snapshot; None for a remote graph."""
        folder = self.folder()
        return read_manifest(folder) if folder else None

    def run(self, question: Question) -> tuple[Reply, str]:
        """Answer a query from outside, and say which snapshot did.

        Raises:
            QueryError, QueryTimeout, NotAcceptable: see :meth:`kg.worker.Pool.run`.
            NoSnapshot: nothing was built yet.
            StoreUnavailable: the graph is behind an endpoint that does not answer.
        """
        if self._remote is not None:
            return self._remote.run(question, self.limits), self._remote.snapshot
        with self._pool() as pool:
            return pool.run(question), pool.folder.name

    def warm(self) -> tuple[str, ...]:
        """Start the query processes, wait until they can answer, and say which walls stand around them.

        Raises:
            NoSnapshot: nothing was built yet.
            SettingsError: the second wall is required and cannot be put up.
            StoreUnavailable: the graph is behind an endpoint that does not answer.
        """
        if self._remote is not None:
            self._remote.select("SELECT ?s WHERE { ?s ?p ?o } LIMIT 1")
            return ()
        self.store()
        with self._pool() as pool:
            pool.warm()
            return pool.walls

    def worker_pids(self) -> list[int]:
        """Process ids of the query processes."""
        return self._shift.pool.pids() if self._shift else []

    def worker_memory(self) -> int:
        """Resident bytes of the query processes together."""
        return self._shift.pool.memory() if self._shift else 0

    @contextmanager
    def _pool(self) -> Iterator[Pool]:
        folder = current(self.home)
        with self._lock:
            if self._shift is None or self._shift.pool.folder != folder:
                fresh = Pool(folder, size=self.workers, limits=self.limits, on_replaced=self.on_replaced)
                self._retire(self._shift)
                self._shift = _Shift(fresh)
            shift = self._shift
            shift.users += 1
        try:
            yield shift.pool
        finally:
            with self._lock:
                shift.users -= 1
                if shift.retired and not shift.users:
                    shift.pool.close()

    @staticmethod
    def _retire(shift: _Shift | None) -> None:
        """Requests that run on an old snapshot end on it."""
        if shift is not None:
            shift.retired = True
            if not shift.users:
                shift.pool.close()

    def close(self) -> None:
        """End the workers, and give back connections."""
        if self._remote is not None:
            self._remote.close()
        with self._lock:
            if self._shift is not None:
                self._shift.pool.close()
                self._shift = None


def _remote_of(settings: Settings, endpoint: str | None) -> RemoteStore | None:
    url = endpoint or settings.endpoint
    if not url:
        return None
    from kg.remote import RemoteStore  # brings an HTTP client, which few need

    password = settings.endpoint_password
    auth = (settings.endpoint_user, password.get_secret_value()) if settings.endpoint_user and password else None
    return RemoteStore(url, timeout=settings.endpoint_seconds, tries=settings.endpoint_tries, auth=auth)


def service_from_environment() -> Service:
    """A service set up by ``STRATA_*`` and the settings file; see :mod:`kg.settings`.

    Raises:
        SettingsError: a setting has a value that cannot be used.
    """
    return Service(settings=load_settings())
