"""HTTP/1.1 as uvicorn speaks it, with a bound that it lacks: the head of a request must arrive in time."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


class PunctualProtocol(H11Protocol):
    """Hangs up on who takes too long over the head of a request.

    uvicorn's keep-alive time runs only between requests and ends with the first byte, so that one who
    sends a byte now and then would hold a connection for ever. The same time bounds the head here.
    """

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection opens: its first head is due."""
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Bytes arrive: with the first after an answer, the next head begins."""
        if self.cycle is None or self.cycle.response_complete:
            self._expect()
        super().data_received(data)

    def handle_events(self) -> None:
        """Bytes are read: once a request has begun, its head was in time."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._arrived()

    def connection_lost(self, exc: Exception | None) -> None:
        """A connection closes: nothing is due any more."""
        self._arrived()
        super().connection_lost(exc)

    def _expect(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(self.timeout_keep_alive, self.transport.close)

    def _arrived(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
