"""Answers kept as long as the snapshot is the same, and ETags that say so.

An answer is a function of the snapshot, the request and, where "today" is a default, the
day. So its ETag is known before it is computed: a client that shows the ETag gets 304
without any work, and an answer given once can be given again. What depends on more than
that says ``Cache-Control: no-store`` and passes through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from cachetools import LRUCache
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import metrics
from api.record import record_of
from kg.errors import StrataError
from kg.queries import today
from kg.serving import Service

_NEVER = ("/health", "/ready", "/metrics", "/downloads")
_TIMELESS = ("/sparql", "/id/", "/vocab/", "/ontology", "/openapi.json")
_LARGEST_SHARE = 8
"""An answer that takes more than this part of the cache is not kept."""


@dataclass(frozen=True)
class _Kept:
    headers: list[tuple[bytes, bytes]]
    body: bytes
    route: str
    query_hash: str

    @property
    def size(self) -> int:
        return len(self.body) + sum(len(k) + len(v) for k, v in self.headers) + 200


class Cache:
    """ETag, 304, and a bounded memory of answers."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self.service = service
        most = service.settings.cache_mb << 20
        sizes: Callable[[_Kept], int] = lambda k: k.size  # noqa: E731
        self._answers: LRUCache[str, _Kept] | None = LRUCache(most, getsizeof=sizes) if most else None
        self._largest = most // _LARGEST_SHARE
        self._running: dict[str, asyncio.Event] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer by ETag, from memory, or by the application."""
        if scope["type"] != "http" or scope["method"] != "GET" or scope["path"].startswith(_NEVER):
            await self._pass(scope, receive, send)
            return
        try:
            snapshot = self.service.snapshot() if not self.service.is_remote else await self._remote_snapshot()
        except StrataError:
            await self._pass(scope, receive, send)  # the endpoint says what is wrong
            return
        headers = Headers(scope=scope)
        etag = _etag(scope, headers, snapshot)
        if etag in headers.get("if-none-match", ""):
            record_of(scope).cache = "not-modified"
            metrics.CACHE.labels("not-modified").inc()
            await _not_modified(send, etag, snapshot)
            return
        key = f"{etag} {headers.get('accept-encoding', '')}"
        if await self._again(key, scope, send):
            return
        done = self._running.setdefault(key, asyncio.Event())
        try:
            await self._fresh(key, etag, snapshot, scope, receive, send)
        finally:
            done.set()
            self._running.pop(key, None)

    async def _remote_snapshot(self) -> str:
        return await run_in_threadpool(self.service.snapshot)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        finally:
            _note_route(scope)

    async def _again(self, key: str, scope: Scope, send: Send) -> bool:
        """Give an answer that was given before, waiting for one that is being made."""
        if self._answers is None:
            return False
        running = self._running.get(key)
        if running is not None and key not in self._answers:
            await running.wait()
        kept = self._answers.get(key)
        metrics.CACHE.labels("miss" if kept is None else "hit").inc()
        if kept is None:
            return False
        record = record_of(scope)
        record.cache, record.route, record.query_hash = "hit", kept.route, kept.query_hash
        await send({"type": "http.response.start", "status": 200, "headers": list(kept.headers)})
        await send({"type": "http.response.body", "body": kept.body})
        return True

    async def _fresh(self, key: str, etag: str, snapshot: str, scope: Scope, receive: Receive, send: Send) -> None:
        keep, body = False, bytearray()
        start: Message = {}

        async def watched(message: Message) -> None:
            nonlocal keep, start
            if message["type"] == "http.response.start":
                start = message
                headers = MutableHeaders(scope=message)
                # A build may have replaced the snapshot since the key was made.
                keep = (
                    message["status"] == 200
                    and headers.get("strata-snapshot", snapshot) == snapshot
                    and headers.get("cache-control") != "no-store"
                )
                if keep:
                    headers["etag"] = etag
                    headers["cache-control"] = "public, no-cache"
            elif keep and len(body) <= self._largest:
                body.extend(message.get("body", b""))
            await send(message)

        await self._pass(scope, receive, watched)
        if keep and self._answers is not None and len(body) <= self._largest:
            record = record_of(scope)
            kept = _Kept(list(start["headers"]), bytes(body), record.route, record.query_hash)
            if kept.size <= self._largest:
                self._answers[key] = kept
                metrics.CACHE_BYTES.set(self._answers.currsize)


def _note_route(scope: Scope) -> None:
    route = getattr(scope.get("route"), "path", None)
    if route:
        record_of(scope).route = str(route)


def _etag(scope: Scope, headers: Headers, snapshot: str) -> str:
    day = "" if scope["path"].startswith(_TIMELESS) else today().isoformat()
    query = scope["query_string"].decode("latin-1")
    parts = (snapshot, day, headers.get("host", ""), scope["path"], query, headers.get("accept", ""))
    return f'W/"{sha256(chr(0).join(parts).encode()).hexdigest()[:32]}"'


async def _not_modified(send: Send, etag: str, snapshot: str) -> None:
    headers = [
        (b"etag", etag.encode()),
        (b"cache-control", b"public, no-cache"),
        (b"vary", b"Accept, Accept-Encoding"),
        (b"strata-snapshot", snapshot.encode("latin-1", "replace")),
    ]
    await send({"type": "http.response.start", "status": 304, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
