"""Who means harm: the server stays up, dials nobody, gets its memory back, and serves the others."""

from __future__ import annotations

import re
import socket
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from urllib.parse import quote

import httpx
import pytest

from tests.conftest import Server

QUERY = {"content-type": "application/sparql-query"}
BIG = "?a ?b ?c . ?d ?e ?f . ?g ?h ?i"
REST = {200, 400, 404, 405, 406, 408, 413, 414, 415, 422, 429, 503}
"""What may be answered: anything but a failure of our own."""

# Each must be stopped or refused, or is harmless; {port} is a socket that must see no visitor.
QUERIES = [
    # cartesian products
    f"SELECT (COUNT(*) AS ?n) {{ {BIG} }}",
    f"SELECT DISTINCT ?a ?d ?g {{ {BIG} }}",
    f"SELECT * {{ {BIG} }} ORDER BY ?a ?f ?h",
    f"ASK {{ {BIG} FILTER(?a = ?d && ?d = ?g && ?c != ?c) }}",
    "CONSTRUCT { ?a ?e ?c } { ?a ?b ?c . ?d ?e ?f . ?g ?h ?i }",
    "SELECT (MAX(CONCAT(STR(?a), STR(?d))) AS ?m) { ?a ?b ?c . ?d ?e ?f }",
    "SELECT (GROUP_CONCAT(CONCAT(STR(?a), STR(?c), STR(?f))) AS ?x) { ?a ?b ?c . ?d ?e ?f }",
    "SELECT * { { SELECT ?a { ?a ?b ?c } } { SELECT ?d { ?d ?e ?f } } FILTER(?a != ?a) }",
    # deep paths
    "SELECT (COUNT(*) AS ?n) { ?a (<urn:x>|!<urn:x>)* ?b }",
    "SELECT * { ?a (!<urn:x>)+ ?b . ?b (!<urn:y>)+ ?c } ORDER BY ?c",
    "SELECT * { ?a (^!<urn:x>/!<urn:x>)* ?b FILTER(?a = <urn:none>) }",
    "SELECT (COUNT(*) AS ?n) { ?a ((!<urn:x>)/(!<urn:x>)/(!<urn:x>)/(!<urn:x>)) ?b . ?b (!<urn:x>)* ?c }",
    "ASK { ?a " + "/".join(["(!<urn:x>)*"] * 30) + " ?b FILTER(?b = 0) }",
    # regular expressions
    "SELECT * { ?a ?b ?c FILTER(REGEX(STR(?c), '(a+)+(a+)+(a+)+$')) }",
    "SELECT * { ?a ?b ?c FILTER(REGEX('" + "a" * 5000 + "!', '(a|aa)+$')) }",
    "SELECT * { ?a ?b ?c FILTER(REGEX(STR(?c), '" + "(" * 200 + "a" + ")*" * 200 + "')) }",
    "SELECT * { ?a ?b ?c FILTER(REGEX(STR(?c), '((a{1,999}){1,999}){1,999}')) }",
    "SELECT (REPLACE(STR(?c), '(.*)(.*)(.*)', '$1$1$1$1$1$1$1$1') AS ?x) { ?a ?b ?c }",
    "SELECT * { ?a ?b ?c FILTER(REGEX(STR(?c), '[')) }",
    # size
    "SELECT * { VALUES ?x { " + " ".join(f"<urn:x:{n}>" for n in range(3900)) + " } ?x ?y ?z }",
    "SELECT * { VALUES (?x ?y) { " + "(1 2) " * 8000 + " } VALUES ?z { " + "1 " * 500 + " } }",
    "SELECT * { ?a ?b ?c FILTER(?a IN (" + ", ".join(f"<urn:{n}>" for n in range(4000)) + ")) }",
    "SELECT * { " + " UNION ".join(["{ ?a ?b ?c }"] * 2500) + " }",
    "SELECT * { " + "OPTIONAL { ?a ?b ?c " * 1500 + "}" * 1500 + " }",
    "SELECT * { " + "{ " * 4000 + "}" * 4000 + " }",
    "SELECT (" + "(" * 3000 + "1" + ")" * 3000 + " AS ?x) {}",
    "SELECT (" + "+".join(["1"] * 20000) + " AS ?x) {}",
    "SELECT (" + "!" * 40000 + "true AS ?x) {}",
    "SELECT " + " ".join(f"(?v{n} AS ?w{n})" for n in range(1500)) + " {}",
    "SELECT * { BIND(CONCAT(" + ", ".join(["'" + "x" * 900 + "'"] * 50) + ") AS ?x) ?a ?b ?c }",
    "SELECT (SHA512(CONCAT(STR(?a), STR(?d))) AS ?x) { ?a ?b ?c . ?d ?e ?f } ORDER BY ?x",
    "SELECT * { ?a ?b ?c }" + " " * 60_000,
    "PREFIX : <urn:> " * 3000 + "ASK {}",
    # out of the house
    "SELECT * {{ SERVICE <http://127.0.0.1:{port}/> {{ ?s ?p ?o }} }}",
    "SELECT * {{ SERVICE SILENT <http://127.0.0.1:{port}/sparql> {{ ?s ?p ?o }} }}",
    "SELECT * {{ BIND(<http://127.0.0.1:{port}/> AS ?g) SERVICE ?g {{ ?s ?p ?o }} }}",
    "ASK {{ FILTER EXISTS {{ SERVICE <http://127.0.0.1:{port}/> {{ ?s ?p ?o }} }} }}",
    "SELECT (1 AS ?n) {{ {{ SELECT * {{ MINUS {{ SERVICE <http://127.0.0.1:{port}/> {{}} }} }} }} }}",
    "CONSTRUCT WHERE {{ ?s ?p ?o SERVICE <http://127.0.0.1:{port}/> {{ ?s ?p ?o }} }}",
    "SELECT * FROM <http://127.0.0.1:{port}/data.ttl> {{ ?s ?p ?o }}",
    "SELECT * FROM NAMED <http://127.0.0.1:{port}/data.ttl> {{ GRAPH ?g {{ ?s ?p ?o }} }}",
    "SELECT * FROM <file:///etc/passwd> {{ ?s ?p ?o }}",
    "DESCRIBE <http://127.0.0.1:{port}/thing>",
    "SELECT * {{ GRAPH <http://127.0.0.1:{port}/> {{ ?s ?p ?o }} }}",
    # writing
    "LOAD <http://127.0.0.1:{port}/data.ttl>",
    "LOAD SILENT <file:///etc/passwd> INTO GRAPH <urn:x>",
    "INSERT DATA {{ <urn:a> <urn:b> <urn:c> }}",
    "DELETE WHERE {{ ?s ?p ?o }}",
    "DROP ALL ; CLEAR ALL",
    "ASK {{}} ; INSERT DATA {{ <urn:a> <urn:b> <urn:c> }}",
]


def _requests(base: str, port: int) -> list[tuple[str, str, dict[str, str], bytes]]:
    """Requests that are odd as HTTP: method, path, headers, body."""
    dial = quote(f"http://127.0.0.1:{port}/x", safe="")
    return [
        ("POST", "/sparql", QUERY, b"x" * 10_000_000),
        ("POST", "/v1/norms", {"content-type": "application/json"}, b"[" * 10_000_000),
        ("POST", "/sparql", QUERY, b"\xff\xfe\x00A\x00S\x00K"),
        ("POST", "/sparql", {"content-type": "application/sparql-query; charset=utf-16"}, "ASK {}".encode("utf-16")),
        ("POST", "/sparql", {"content-type": "multipart/form-data; boundary=x"}, b"--x\r\n"),
        ("POST", "/sparql", {**QUERY, "content-encoding": "gzip"}, b"\x1f\x8b\x08\x00bomb"),
        ("POST", "/sparql", {"content-type": "application/x-www-form-urlencoded"}, b"a=1&" * 20_000),
        ("GET", "/sparql?query=%C0%AE%C0%AE", {}, b""),
        ("GET", "/sparql?query=ASK%7B%7D%00", {}, b""),
        ("GET", f"/sparql?query=ASK%7B%7D&default-graph-uri={dial}&named-graph-uri={dial}", {}, b""),
        ("GET", "/sparql?query=" + "x" * 30_000, {}, b""),
        ("GET", "/" + "a/" * 12_000, {}, b""),
        ("GET", "/v1/norms?q=" + "%25" * 3000, {}, b""),
        ("GET", "/v1/norms?cursor=" + "W10=" * 500, {}, b""),
        ("GET", "/v1/norms?limit=" + "9" * 4000, {}, b""),
        ("GET", "/id/..%2f..%2f..%2fetc%2fpasswd", {}, b""),
        ("GET", "/downloads/..%2f..%2fcurrent", {}, b""),
        ("GET", "/downloads/%2e%2e/%2e%2e/%2e%2e/etc/passwd", {}, b""),
        ("GET", "/v1/frameworks/..%00", {}, b""),
        ("GET", "/health", {"x-request-id": "a" * 5000}, b""),
        ("GET", "/sparql?query=ASK%7B%7D", {"accept": ",;q=;,/,*/*;q=99," * 300}, b""),
        ("GET", "/sparql?query=ASK%7B%7D", {"if-none-match": "*," * 3000, "range": "bytes=0-0,1-1"}, b""),
        ("GET", "/sparql?query=ASK%7B%7D", {"x-forwarded-for": "1.2.3.4," * 500}, b""),
        ("BREW", "/sparql", {}, b""),
    ]


class Trap:
    """A socket that nobody may come to."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.sprung = Event()
        Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        try:
            while True:
                self.socket.accept()
                self.sprung.set()
        except OSError:
            return


@pytest.fixture
def trap() -> Iterator[Trap]:
    found = Trap()
    yield found
    found.socket.close()


def _family_memory(pid: int) -> int:
    """Resident bytes of a process and all below it."""
    children: dict[int, list[int]] = {}
    sizes: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "status").read_text()
        except OSError:
            continue
        found = {k: int(v) for k, v in re.findall(r"^(Pid|PPid|VmRSS):\s+(\d+)", status, re.M)}
        children.setdefault(found.get("PPid", 0), []).append(found["Pid"])
        sizes[found["Pid"]] = 1024 * found.get("VmRSS", 0)
    total, todo = 0, [pid]
    while todo:
        one = todo.pop()
        total += sizes.get(one, 0)
        todo += children.get(one, [])
    return total


def _slow_client(url: str) -> None:
    """Sends half a request, then nothing."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST /sparql HTTP/1.1\r\nHost: x\r\nContent-Type: application/sparql-query\r\n")
        connection.sendall(b"Content-Length: 1000\r\n\r\nASK")
        connection.settimeout(10)
        said = connection.recv(100)
        assert b" 408 " in said, said


def _trickling_client(url: str) -> None:
    """Sends a byte of a head now and then, and never the last."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        until = time.monotonic() + 30
        connection.settimeout(0.5)
        while time.monotonic() < until:
            with suppress(TimeoutError):
                if connection.recv(1) == b"":
                    return
            try:
                connection.sendall(b"a")
            except OSError:
                return
        raise AssertionError("the server waits for the head for ever")


def _raw(url: str, request: bytes) -> bytes:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(request)
        connection.settimeout(5)
        return connection.recv(65_536)


def _polite(url: str, stop: Event) -> list[float]:
    """Another client, who asks what anybody asks, and how long it takes."""
    times = []
    with httpx.Client(base_url=url, timeout=30) as http:
        while not stop.is_set():
            start = time.perf_counter()
            assert http.get("/v1/norms/eu-ai-act/art_26/par_2/norm-1").status_code == 200
            times.append(time.perf_counter() - start)
            time.sleep(0.03)
    return times


def _send(url: str, method: str, path: str, headers: dict[str, str], body: bytes) -> int:
    try:
        return httpx.request(method, url + path, headers=headers, content=body, timeout=60).status_code
    except (httpx.RemoteProtocolError, httpx.WriteError, httpx.ReadError):
        assert len(body) > 1_000_000 or len(path) > 20_000  # the server may hang up on what is far too long
        return 413


def test_nothing_hostile_brings_the_server_down_or_out(server: Server, trap: Trap) -> None:
    url = server.url
    queries = [q.format(port=trap.port) if "{{" in q or "{port}" in q else q for q in QUERIES]
    assert len(queries) + len(_requests(url, trap.port)) >= 60
    httpx.get(f"{url}/v1/norms/eu-ai-act/art_26/par_2/norm-1")
    before = _family_memory(server.process.pid)
    stop, noise = Event(), Event()
    with ThreadPoolExecutor(10) as pool:
        try:
            quiet = pool.submit(_polite, url, stop)
            time.sleep(2)
            stop.set()
            resting = quiet.result()
            beside = pool.submit(_polite, url, noise)
            slow = [pool.submit(one, url) for one in (_slow_client, _slow_client, _trickling_client)]
            statuses = list(pool.map(lambda q: _send(url, "POST", "/sparql", QUERY, q.encode()), queries))
            statuses += [_send(url, *one) for one in _requests(url, trap.port)]
            for one in slow:
                one.result()
        finally:
            stop.set()
            noise.set()
        harassed = beside.result()
    assert set(statuses) <= REST, sorted(set(statuses) - REST)
    assert {400, 413, 414, 503} <= set(statuses)
    assert server.process.poll() is None
    assert httpx.get(f"{url}/sparql?query=ASK%7B%7D").json()["boolean"] is True
    assert httpx.get(f"{url}/v1/norms?limit=1").json()["total"] > 500, "nothing was written"
    assert not trap.sprung.is_set(), "somebody dialled out"
    # Not a time: two medians of one run, on a machine that others share; benchmarks/ has the percentiles.
    assert statistics.median(harassed) < 10 * statistics.median(resting) + 0.05
    assert _family_memory(server.process.pid) < before + (400 << 20)


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /health HTTP/1.1\r\nHost: x\r\nX-Request-ID: a\r\n b: c\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX-Request-ID: a\x00b\r\n\r\n",
        b"GET /health%0d%0aX-Evil:%201 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /v1/norms?q=%0d%0aX-Evil:%201 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,
        b"GET " + b"A" * 70_000,
    ],
)
def test_nobody_writes_into_the_headers(request_: bytes, server: Server) -> None:
    head = _raw(server.url, request_).partition(b"\r\n\r\n")[0].lower()
    assert b"\r\nx-evil" not in head
    assert httpx.get(f"{server.url}/health").status_code == 200
    assert all("\n" not in str(line.get("path", "")) or "message" in line for line in server.lines())


def test_an_id_that_is_not_plain_is_replaced(server: Server) -> None:
    mine = httpx.get(f"{server.url}/health", headers={"x-request-id": "abc-1.2_3"})
    assert mine.headers["x-request-id"] == "abc-1.2_3"
    odd = httpx.get(f"{server.url}/health", headers={"x-request-id": "a b;c"})
    assert re.fullmatch(r"[0-9a-f]{32}", odd.headers["x-request-id"])
