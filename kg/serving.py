"""The snapshot in service: opened once, exchanged when a build replaces it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from threading import Lock

from kg.errors import BuildError, NoSnapshot
from kg.load import find_sources
from kg.snapshot import Manifest, build, current, home_dir, read_manifest, sources_digest, write
from kg.store import EmbeddedStore, RemoteStore, Store
from kg.worker import Limits, Pool, Reply


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


class Service:
    """What the API stands on: a store for named queries, workers for queries from outside.

    Args:
        home: folder of snapshots; ``STRATA_HOME`` or ``.strata`` when not given.
        endpoint: a SPARQL 1.1 endpoint to ask instead of the embedded store.
        workers: number of processes for ad-hoc queries.
        limits: bounds of each ad-hoc query.
    """

    def __init__(
        self,
        home: Path | None = None,
        *,
        endpoint: str | None = None,
        workers: int = 2,
        limits: Limits | None = None,
    ) -> None:
        self.home = home or home_dir()
        self.limits = limits or Limits()
        self._workers = workers
        self._lock = Lock()
        self._pool: Pool | None = None
        self._store: Store | None = RemoteStore(endpoint) if endpoint else None
        self._remote = endpoint is not None

    def store(self) -> Store:
        """The store that answers now.

        Raises:
            NoSnapshot: nothing was built yet.
        """
        if self._remote and self._store is not None:
            return self._store
        pointer = (self.home / "current").read_text("utf-8").strip() if self._has_pointer() else ""
        with self._lock:
            if self._store is None or self._store.snapshot != pointer:
                self._store = EmbeddedStore(current(self.home))
            return self._store

    def _has_pointer(self) -> bool:
        if (self.home / "current").is_file():
            return True
        raise NoSnapshot(f"{self.home}: no snapshot yet. Run: strata build")

    def manifest(self) -> Manifest | None:
        """Manifest of the embedded snapshot; None for a remote graph."""
        return None if self._remote else read_manifest(current(self.home))

    def run(self, query: str, media_type: str) -> Reply:
        """Evaluate a checked query from outside.

        Raises:
            QueryError, QueryTimeout: see :meth:`kg.worker.Pool.run`.
            NoSnapshot: nothing was built yet.
        """
        folder = current(self.home)
        with self._lock:
            if self._pool is None or self._pool.folder != folder:
                if self._pool is not None:
                    self._pool.close()
                self._pool = Pool(folder, size=self._workers, limits=self.limits)
            pool = self._pool
        return pool.run(query, media_type)

    def close(self) -> None:
        """End the workers."""
        with self._lock:
            if self._pool is not None:
                self._pool.close()
                self._pool = None


def service_from_environment() -> Service:
    """A service set up by ``STRATA_HOME``, ``STRATA_ENDPOINT``, ``STRATA_WORKERS``,
    ``STRATA_QUERY_SECONDS`` and ``STRATA_QUERY_ROWS``."""
    limits = Limits(
        seconds=float(os.environ.get("STRATA_QUERY_SECONDS", "10")),
        rows=int(os.environ.get("STRATA_QUERY_ROWS", "10000")),
    )
    return Service(
        endpoint=os.environ.get("STRATA_ENDPOINT"),
        workers=int(os.environ.get("STRATA_WORKERS", "2")),
        limits=limits,
    )
