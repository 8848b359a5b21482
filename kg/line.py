"""Who is served next when more is asked than can run: one of each client in turn."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from kg.errors import Busy


class FairLine:
    """A bounded number of places, and a bounded line before them.

    A place that comes free goes to the client whose turn it is, not to whoever asked most:
    each client has a line of its own, and the lines are served in rotation.

    Args:
        places: how many may be inside at a time.
        waiting: how many may wait, of all clients together.
        per_client: how many of one client may wait.
        patience: seconds after which one who waits is sent away.
    """

    def __init__(self, places: int, *, waiting: int, per_client: int, patience: float) -> None:
        self.free = places
        self.waiting = waiting
        self.per_client = per_client
        self.patience = patience
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(line) for line in self._lines.values())

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """Wait for a place and hold it.

        Raises:
            Busy: the line is full, or it took too long.
        """
        await self._enter(client)
        try:
            yield
        finally:
            self._leave()

    async def _enter(self, client: str) -> None:
        if self.free and not self._lines:
            self.free -= 1
            return
        seconds = max(1, round(self.patience / 2))
        line = self._lines.get(client, deque())
        if len(line) >= self.per_client:
            raise Busy(
                f"You have {len(line)} queries waiting already. Wait for their answers.",
                retry_after=seconds,
                own_fault=True,
            )
        if len(self) >= self.waiting:
            raise Busy("Too many queries are waiting. Try again in a moment.", retry_after=seconds)
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(place)
        self._lines[client] = line
        try:
            await asyncio.wait_for(asyncio.shield(place), self.patience)
        except BaseException as error:
            if place.done() and not place.cancelled():  # given a place while leaving: pass it on
                self._leave()
            else:
                line.remove(place)
                if not line:
                    self._lines.pop(client, None)
            if isinstance(error, TimeoutError):
                raise Busy("Too much is asked at once just now. Try again in a moment.", retry_after=seconds) from None
            raise

    def _leave(self) -> None:
        if not self._lines:
            self.free += 1
            return
        client, line = self._lines.popitem(last=False)
        place = line.popleft()
        if line:
            self._lines[client] = line  # to the end: the others are served first
        place.set_result(None)
