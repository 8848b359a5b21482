"""The files in deploy/, run as an operator would."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import Server, free_port, wait_for

DEPLOY = Path(__file__).parents[1] / "deploy"


@pytest.fixture(scope="module")
def proxied(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """nginx with our example before the server; only ports and files differ."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed (Debian: nginx-light); .ci/run installs it")
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    site = (DEPLOY / "nginx.conf").read_text("utf-8")
    assert "listen 80;" in site
    assert "server 127.0.0.1:8000;" in site
    site = site.replace("listen 80;", f"listen 127.0.0.1:{port};")
    site = site.replace("127.0.0.1:8000", server.url.removeprefix("http://"))
    own = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("proxy", "fastcgi", "uwsgi", "scgi", "client_body")
    )
    head = f"daemon off; pid {folder}/pid; error_log {folder}/error;\nevents {{}}\n"
    (folder / "nginx.conf").write_text(f"{head}http {{ access_log off;\n{own}{site}}}\n")
    process = subprocess.Popen([program, "-p", str(folder), "-c", "nginx.conf"], stderr=subprocess.DEVNULL)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def _logged(server: Server, request_id: str) -> dict[str, Any]:
    """The log line of a request; it is written once the answer is out."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        for line in server.lines():
            if line.get("request_id") == request_id:
                return line
        time.sleep(0.05)
    raise AssertionError(f"no line of {request_id} in the log")


def test_the_proxy_example_serves_and_keeps_metrics_inside(proxied: str, server: Server) -> None:
    answer = httpx.get(f"{proxied}/sparql", params={"query": "ASK {}"}, headers={"x-forwarded-for": "203.0.113.7"})
    assert answer.json() == {"head": {}, "boolean": True}
    assert _logged(server, answer.headers["x-request-id"])["client"] == "127.0.0.1", "the proxy says who came"
    assert httpx.get(f"{proxied}/metrics").status_code == 403
    assert httpx.get(f"{server.url}/metrics").status_code == 200


def test_bounds_hold_through_the_proxy(proxied: str) -> None:
    assert httpx.post(f"{proxied}/sparql", content=b"x" * 300_000).status_code == 413
    refused = httpx.get(f"{proxied}/sparql", params={"query": "ASK {}" + " " * 20_000})
    assert refused.status_code == 414
    assert refused.headers["content-type"] == "application/problem+json", "said by the service itself"
