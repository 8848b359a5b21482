"""What stands before every endpoint: request ids, logs and metrics; bounds; HEAD."""

from __future__ import annotations

import asyncio
import re
import time
import uuid

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import metrics
from api.logs import ACCESS, LOG
from api.problems import problem
from api.record import KEY, Record, record_of
from kg.errors import Busy
from kg.line import FairLine
from kg.settings import Settings

_REQUEST_ID = re.compile(r"[A-Za-z0-9._\-]{1,64}")
_OPERATION = ("/health", "/ready", "/metrics")
"""Answered whatever the load: who watches the service must see it when it is busy."""
_ELSEWHERE = ("/sparql", "/downloads")
"""What has bounds of its own, or is no work but only long."""
_PATIENCE = 60.0
"""Seconds after which one who waits for a turn is sent away."""


class Observe:
    """Gives each request an id, says it in the answer, and notes what became of it.

    An ``X-Request-ID`` that comes in is kept if it is plain; anything else is replaced, so
    that nobody can write into the log or the headers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and note what became of it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        client = scope.get("client")
        record = Record(
            request_id=given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex,
            client=client[0] if client else "-",
        )
        scope[KEY] = record
        status, size, start = 500, 0, time.perf_counter()

        async def noted(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = record.request_id
            elif message["type"] == "http.response.body":
                size += len(message.get("body", b""))
            await send(message)

        metrics.RUNNING.inc()
        try:
            await self.app(scope, receive, noted)
        except Exception:
            LOG.exception("unexpected error", extra={"request_id": record.request_id})
            raise
        finally:
            seconds = time.perf_counter() - start
            metrics.RUNNING.dec()
            metrics.REQUESTS.labels(metrics.method_label(scope["method"]), record.route, str(status)).inc()
            metrics.SECONDS.labels(record.route).observe(seconds)
            _log(scope, record, status, size, seconds)


def _log(scope: Scope, record: Record, status: int, size: int, seconds: float) -> None:
    fields = {
        "request_id": record.request_id,
        "client": record.client,
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "ms": round(1000 * seconds, 2),
        "bytes": size,
        "snapshot": record.snapshot[:16],
        "query_hash": record.query_hash,
        "cache": record.cache,
        **record.notes,
    }
    # repr-like escaping: a path may hold line breaks once it is decoded.
    line = f"{scope['method']} {scope['path'].encode('unicode_escape').decode()}"
    ACCESS.info(line, extra={k: v for k, v in fields.items() if v not in (None, "")})


class Bounds:
    """Refuses what is too long, too slow or too much, before anything is done about it."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        self.running = 0
        self._rate = RateLimitItemPerMinute(settings.rate_per_minute) if settings.rate_per_minute else None
        self._seen = MovingWindowRateLimiter(MemoryStorage()) if self._rate else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, unless it is too much."""
        if scope["type"] != "http" or scope["path"] in _OPERATION:
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        self.running += 1
        try:
            await self.app(scope, self._bounded(receive), send)
        finally:
            self.running -= 1

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        most = self.settings.max_url
        length = len(scope.get("raw_path") or scope["path"].encode()) + len(scope["query_string"])
        if length > most:
            return problem(
                414,
                "Address too long",
                f"The address has {length} characters; at most {most} are accepted. POST longer queries.",
            )
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isascii() and declared.isdigit() and int(declared[:18]) > self.settings.max_body:
            return _too_large(self.settings.max_body)
        if self._seen is not None and self._rate is not None:
            client = record_of(scope).client
            if not self._seen.hit(self._rate, client):
                reset = self._seen.get_window_stats(self._rate, client).reset_time
                return problem(
                    429,
                    "Too many requests",
                    f"At most {self.settings.rate_per_minute} requests a minute are answered. Wait a moment.",
                    retry_after=max(1, round(reset - time.time())),
                )
        if self.running >= self.settings.max_requests:
            return problem(503, "Too busy", "Too many requests are in work. Try again in a moment.", retry_after=2)
        return None

    def _bounded(self, receive: Receive) -> Receive:
        received, whole = 0, False
        loop = asyncio.get_running_loop()
        until = loop.time() + self.settings.body_seconds

        async def bounded() -> Message:
            nonlocal received, whole
            if whole:  # what comes now is only the end of the connection
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.01, until - loop.time()))
            except TimeoutError:
                raise HTTPException(
                    408, f"The body did not arrive within {self.settings.body_seconds:g} seconds"
                ) from None
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                whole = not message.get("more_body", False)
                if received > self.settings.max_body:
                    raise HTTPException(413, f"At most {self.settings.max_body} bytes are accepted as a body")
            return message

        return bounded


def _too_large(most: int) -> ASGIApp:
    return problem(413, "Body too large", f"At most {most} bytes are accepted as a body. Shorten the query.")


class Turns:
    """Lets few answers be worked out at one time, and the clients have them in turn.

    Stands behind the cache, so that only work waits. Queries from outside have a line of their own.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        most = settings.max_requests
        self.line = FairLine(settings.computing, waiting=most, per_client=most, patience=_PATIENCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on when its turn comes."""
        if scope["type"] != "http" or scope["path"] in _OPERATION or scope["path"].startswith(_ELSEWHERE):
            await self.app(scope, receive, send)
            return
        try:
            async with self.line.turn(record_of(scope).client):
                await self.app(scope, receive, send)
        except Busy as error:
            await problem(503, "Too busy", str(error), retry_after=error.retry_after)(scope, receive, send)


class Head:
    """HEAD for every address that can be read: the answer to GET without its body."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, HEAD as GET."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def bodyless(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self.app({**scope, "method": "GET"}, receive, bodyless)
