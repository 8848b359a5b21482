"""The hostile queries of the tests, over and over, from a process of its own, so that only the server feels them.

python -m benchmarks.attack URL SECONDS
"""

from __future__ import annotations

import contextlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.test_hostile import QUERIES, QUERY

CLIENTS = 8


def main() -> None:
    """Send them all, eight at a time, until the time is up."""
    url, seconds = sys.argv[1], float(sys.argv[2])
    until = time.monotonic() + seconds
    queries = [q.format(port=9) if "{{" in q or "{port}" in q else q for q in QUERIES]

    def one(query: str) -> None:
        with contextlib.suppress(httpx.HTTPError):
            httpx.post(f"{url}/sparql", content=query.encode(), headers=QUERY, timeout=60)

    with ThreadPoolExecutor(CLIENTS) as pool:
        while time.monotonic() < until:
            list(pool.map(one, queries))


if __name__ == "__main__":
    main()
