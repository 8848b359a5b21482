"""Running it: bounds under load, faults, switching snapshots, logs, metrics, settings, and real clients."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import httpx
import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from prometheus_client.parser import text_string_to_metric_families
from pyoxigraph import NamedNode, Quad
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.app import create_app
from kg.errors import Busy, SettingsError
from kg.line import FairLine
from kg.namespaces import GRAPH
from kg.serving import Service
from kg.settings import Settings, load_settings
from kg.snapshot import Build, Manifest, current, read_manifest, write
from kg.worker import Limits, Question
from tests.conftest import Server, serving

RUNAWAY = "SELECT (COUNT(*) AS ?n) WHERE { ?a ?b ?c . ?d ?e ?f . ?g ?h ?i }"
ASK = "/sparql?query=ASK%7B%7D"


@pytest.fixture(scope="module")
def own_home(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the snapshots that a test may switch and spoil."""
    target = tmp_path_factory.mktemp("own") / "home"
    shutil.copytree(home, target)
    return target


@pytest.fixture(scope="module")
def changed(built: Build) -> Build:
    """The build, and one statement more."""
    extra = Quad(*(NamedNode(f"urn:strata:{n}") for n in "spo"), NamedNode(GRAPH.submitted))
    return Build([], [*built.quads, extra], "other")


# ------------------------------------------------------------------ the line


def test_clients_are_served_in_turn() -> None:
    served: list[str] = []

    async def one(line: FairLine, client: str) -> None:
        async with line.turn(client):
            served.append(client)
            await asyncio.sleep(0)

    async def run() -> None:
        line = FairLine(1, waiting=50, per_client=20, patience=30)
        async with line.turn("first"):
            greedy = [asyncio.create_task(one(line, "greedy")) for _ in range(9)]
            await asyncio.sleep(0)
            modest = asyncio.create_task(one(line, "modest"))
            await asyncio.sleep(0)
        await asyncio.gather(*greedy, modest)
        assert line.free == 1
        assert len(line) == 0

    asyncio.run(run())
    assert served.index("modest") == 1, "behind one of the greedy client's nine, not behind all"


def test_a_full_line_sends_away_and_says_when_to_come_again() -> None:
    async def run() -> None:
        line = FairLine(1, waiting=3, per_client=2, patience=0.2)

        async def wait(client: str) -> None:
            async with line.turn(client):
                raise AssertionError("nobody leaves")

        async with line.turn("a"):
            waiting = [asyncio.create_task(wait(c)) for c in ("a", "a", "b")]
            await asyncio.sleep(0)
            with pytest.raises(Busy) as own:
                await wait("a")
            assert own.value.own_fault
            with pytest.raises(Busy) as others:
                await wait("c")
            assert not others.value.own_fault
            assert others.value.retry_after >= 1
            assert all(isinstance(e, Busy) for e in await asyncio.gather(*waiting, return_exceptions=True))
            assert len(line) == 0
        assert line.free == 1

    asyncio.run(run())


def test_too_many_queries_of_one_client_are_a_429(home: Path) -> None:
    few = Settings(workers=1, query_seconds=1, query_waiting=1, query_waiting_per_client=1)
    with TestClient(create_app(Service(home, settings=few))) as client, ThreadPoolExecutor(4) as pool:
        client.get("/ready")
        answers = list(pool.map(lambda _: client.get("/sparql", params={"query": RUNAWAY}), range(4)))
        refused = [a for a in answers if a.status_code == 429]
        assert refused
        assert int(refused[0].headers["retry-after"]) >= 1
        assert {a.status_code for a in answers} == {429, 503}
        assert client.get(ASK).status_code == 200


def test_the_rate_of_one_client_is_bounded_by_one_setting(home: Path) -> None:
    with TestClient(create_app(Service(home, settings=Settings(rate_per_minute=3)))) as client:
        statuses = [client.get("/v1/queries").status_code for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        refused = client.get("/v1/queries")
        assert 1 <= int(refused.headers["retry-after"]) <= 61
        assert refused.headers["content-type"] == "application/problem+json"
        assert client.get("/health").status_code == 200, "who watches the service is never turned away"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [("/sparql?query=" + "x" * 16_000, b"", 414), ("/sparql", b"x" * 200_001, 413), ("/v1/norms", b"x" * 200_001, 413)],
)
def test_what_is_too_long_is_refused_unread(path: str, body: bytes, status: int, client: TestClient) -> None:
    kind = {"content-type": "application/sparql-query"}
    answer = client.post(path, content=body, headers=kind) if body else client.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_body_without_a_length_is_counted(client: TestClient) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(30):
            yield b" " * 10_000

    answer = client.post("/sparql", content=chunks(), headers={"content-type": "application/sparql-query"})
    assert answer.status_code == 413


def test_memory_is_bounded_and_comes_back(home: Path) -> None:
    service = Service(home, workers=1, limits=Limits(seconds=20, rows=10, memory=700 << 20))
    try:
        service.warm()
        before = service.worker_memory()
        with pytest.raises(Exception, match="memory"):
            service.run(Question("SELECT * { ?a ?b ?c . ?d ?e ?f } ORDER BY ?c ?f"))
        assert service.run(Question("ASK {}"))[0].body
        assert service.worker_memory() < before + (100 << 20)
    finally:
        service.close()


def test_answers_kept_take_no_more_than_they_may(home: Path) -> None:
    small = Settings(cache_mb=1, query_rows=500)
    with TestClient(create_app(Service(home, settings=small))) as client:
        for n in range(40):
            query = f"SELECT * {{ ?s ?p ?o }} OFFSET {n} LIMIT 300"
            first, second = (client.get("/sparql", params={"query": query, "format": "csv"}) for _ in range(2))
            assert first.content == second.content
        sizes = {
            s.name: s.value
            for f in text_string_to_metric_families(client.get("/metrics").text)
            for s in f.samples
            if s.name == "strata_cache_bytes"
        }
        assert 0 < sizes["strata_cache_bytes"] <= 1 << 20


# ------------------------------------------------------------------ faults


def test_killed_query_processes_are_replaced_and_nobody_notices(own_home: Path, tmp_path: Path) -> None:
    with serving(own_home, tmp_path / "log", workers=2) as server:
        family = _descendants(server.process.pid)
        assert len(family) >= 3
        for pid in family:
            os.kill(pid, signal.SIGKILL)
        for _ in range(4):
            answer = httpx.get(server.url + ASK + "&x=" + os.urandom(4).hex(), timeout=30)
            assert answer.json() == {"head": {}, "boolean": True}


def _descendants(pid: int) -> list[int]:
    """Processes that run queries below a process: those of its fork server."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if b"forkserver" in command and parent != os.getpid() and _ancestor(int(folder.name), pid):
            found.append(int(folder.name))
    return found


def _ancestor(pid: int, wanted: int) -> bool:
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
        if pid == wanted:
            return True
    return False


WRITER = """
import os, sys
from pathlib import Path
import kg.snapshot as s
from pyoxigraph import NamedNode, Quad
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
quads = [Quad(NamedNode("urn:a"), NamedNode("urn:b"), NamedNode(f"urn:{n}"), NamedNode("urn:g")) for n in range(50)]
plain = s._write_text
def slow(path, text):
    print("writing", flush=True)
    sys.stdin.read()
s._write_text = slow
s.write(s.Build([], quads, "x"), Path(sys.argv[1]))
"""


def test_a_build_killed_while_it_writes_leaves_what_was_served_and_no_rest(own_home: Path, changed: Build) -> None:
    served = current(own_home).name
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(own_home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"writing\n"
    writer.kill()
    writer.communicate()
    rests = [p.name for p in (own_home / "snapshots").iterdir() if p.name.startswith(".building")]
    assert rests, "it was killed in the middle"
    assert current(own_home).name == served
    again = write(changed, own_home)
    assert sorted(p.name for p in (own_home / "snapshots").iterdir()) == sorted([served, again.hash])
    write(Build([], changed.quads[:-1], "x"), own_home)
    assert current(own_home).name == served


# ------------------------------------------------------------------ a new snapshot, and the end


def test_a_new_snapshot_takes_over_without_a_dropped_request(own_home: Path, changed: Build, tmp_path: Path) -> None:
    before = current(own_home).name
    stop = Event()
    with serving(own_home, tmp_path / "log", processes=2, workers=1) as server:

        def ask() -> list[tuple[int, str]]:
            seen = []
            with httpx.Client(base_url=server.url, timeout=30) as http:
                while not stop.is_set():
                    for path in (f"{ASK}&x={len(seen)}", "/v1/queries", "/v1/frameworks"):
                        answer = http.get(path)
                        seen.append((answer.status_code, answer.headers.get("strata-snapshot", "")))
            return seen

        with ThreadPoolExecutor(2) as pool:
            running = [pool.submit(ask) for _ in range(2)]
            try:
                time.sleep(0.5)
                after = write(changed, own_home).hash
                until = time.monotonic() + 30
                while time.monotonic() < until:
                    if httpx.get(server.url + ASK).headers["strata-snapshot"] == after:
                        break
                time.sleep(0.5)
            finally:
                stop.set()
            seen = [s for r in running for s in r.result()]
        assert {status for status, _ in seen} == {200}
        assert {snapshot for _, snapshot in seen} - {""} == {before, after}
        assert httpx.get(f"{server.url}/health").json()["snapshot"] == after


def test_requests_that_run_are_finished_at_shutdown(home: Path, tmp_path: Path) -> None:
    with serving(home, tmp_path / "log", workers=1, query_seconds=4) as server, ThreadPoolExecutor(1) as pool:
        long = "SELECT (COUNT(*) AS ?n) { ?a a ?b . ?c a ?b . ?a ?p ?d } "
        running = pool.submit(httpx.get, f"{server.url}/sparql", params={"query": long}, timeout=60)
        time.sleep(0.4)
        server.process.send_signal(signal.SIGTERM)
        answer = running.result()
        assert answer.status_code in (200, 503), "an answer, not a broken connection"
        assert server.process.wait(40) in (0, -signal.SIGTERM)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/health")


# ------------------------------------------------------------------ logs, metrics, settings


def test_every_request_leaves_one_line_with_its_id_and_no_query_text(server: Server) -> None:
    mark = "SELECT (42 AS ?secret_question) {}"
    httpx.get(f"{server.url}/sparql", params={"query": mark}, headers={"x-request-id": "log-test-1"})
    httpx.get(f"{server.url}/v1/norms?bearer=nobody", headers={"x-request-id": "log-test-2"})
    until = time.monotonic() + 10
    found: dict[str, dict[str, object]] = {}
    while len(found) < 2 and time.monotonic() < until:
        found = {str(x["request_id"]): x for x in server.lines() if str(x.get("request_id", "")).startswith("log-test")}
    asked, wrong = found["log-test-1"], found["log-test-2"]
    assert asked["status"] == 200
    assert len(str(asked["query_hash"])) == 16
    assert {"time", "level", "method", "path", "ms", "bytes", "client"} <= set(asked)
    assert wrong["status"] == 422
    assert "secret_question" not in server.log.read_text("utf-8")


def test_metrics_count_by_route_and_not_by_address(server: Server) -> None:
    for n in range(3):
        httpx.get(f"{server.url}/v1/frameworks/none-{n}")
    httpx.get(f"{server.url}/sparql", params={"query": "ASK { ?none a ?such }"})
    samples = [
        s
        for f in text_string_to_metric_families(httpx.get(f"{server.url}/metrics").text)
        for s in f.samples
        if s.name == "strata_requests_total"
    ]
    routes = {s.labels["route"] for s in samples}
    assert "/v1/frameworks/{framework_id}" in routes
    assert not any("none-" in r for r in routes)
    missed = [s.value for s in samples if s.labels["route"].endswith("{framework_id}") and s.labels["status"] == "404"]
    assert missed
    assert missed[0] >= 3
    names = {f.name for f in text_string_to_metric_families(httpx.get(f"{server.url}/metrics").text)}
    assert {"strata_query_seconds", "strata_workers_replaced", "strata_cache", "strata_snapshot_triples"} <= names


def test_ready_says_no_until_there_is_something_to_serve(tmp_path: Path) -> None:
    with TestClient(create_app(Service(tmp_path))) as client:
        answer = client.get("/ready")
        assert answer.status_code == 503
        assert "strata build" in answer.json()["detail"]
        assert "retry-after" in answer.headers


def test_settings_come_from_environment_before_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "strata.toml"
    file.write_text('query_seconds = 3\nquery_rows = 77\nhome = "/srv/strata"\n')
    monkeypatch.setenv("STRATA_SETTINGS", str(file))
    monkeypatch.setenv("STRATA_QUERY_SECONDS", "4")
    monkeypatch.delenv("STRATA_HOME", raising=False)
    found = load_settings()
    assert (found.query_seconds, found.query_rows, found.home) == (4.0, 77, Path("/srv/strata"))


@pytest.mark.parametrize(
    ("text", "variable", "hint"),
    [
        ("query_second = 3\n", "", "query_second"),
        ("query_seconds = \n", "", "TOML"),
        ("query_seconds = -1\n", "", "QUERY_SECONDS"),
        ("", "many", "STRATA_WORKERS"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(
    text: str, variable: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "strata.toml"
    file.write_text(text)
    monkeypatch.setenv("STRATA_SETTINGS", str(file))
    if variable:
        monkeypatch.setenv("STRATA_WORKERS", variable)
    with pytest.raises(SettingsError, match=hint):
        load_settings()


def test_no_two_query_processes_draw_the_same(server: Server) -> None:
    asked = {"query": "SELECT (STRUUID() AS ?u) {}", "format": "csv"}
    drawn = [httpx.get(f"{server.url}/sparql", params=asked).text for _ in range(6)]  # processes take turns
    assert len(set(drawn)) == len(drawn)


def test_every_setting_is_in_the_manual() -> None:
    manual = (Path(__file__).parents[1] / "docs" / "deploy.md").read_text("utf-8")
    for name, field in Settings.model_fields.items():
        assert f"`{name}`" in manual, name
        assert field.description


# ------------------------------------------------------------------ OpenAPI


CONFORMS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def schema_client(home: Path) -> Iterator[TestClient]:
    quick = Service(home, workers=2, limits=Limits(seconds=2, rows=100))
    with TestClient(create_app(quick), raise_server_exceptions=False) as client:
        yield client


def test_no_request_the_document_allows_gets_an_answer_it_does_not_name(schema_client: TestClient) -> None:
    document = schemathesis.openapi.from_asgi("/openapi.json", schema_client.app)
    tried = 0
    for result in document.get_all_operations():
        operation = result.ok()
        if operation.path == "/downloads/{name}":  # its files are tested whole in test_protocol
            continue

        @settings(
            max_examples=6, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
        )
        @given(case=operation.as_strategy())
        def conforms(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=CONFORMS)

        conforms()
        tried += 1
    assert tried > 20


# ------------------------------------------------------------------ real clients

EXAMPLE = """
PREFIX strata: <https://w3id.org/strata/ontology#>
SELECT ?norm ?action WHERE { ?norm a strata:Prohibition ; strata:action ?action } ORDER BY ?norm LIMIT 5
"""


def test_sparqlwrapper_asks_in_every_format(server: Server) -> None:
    import SPARQLWrapper as Wrapper

    endpoint = Wrapper.SPARQLWrapper(f"{server.url}/sparql")
    for method in (Wrapper.GET, Wrapper.POST):
        for request_method in (Wrapper.URLENCODED, Wrapper.POSTDIRECTLY):
            if method == Wrapper.GET and request_method == Wrapper.POSTDIRECTLY:
                continue
            endpoint.setMethod(method)
            endpoint.setRequestMethod(request_method)
            endpoint.setQuery(EXAMPLE)
            endpoint.setReturnFormat(Wrapper.JSON)
            assert len(endpoint.query().convert()["results"]["bindings"]) == 5
    endpoint.setMethod(Wrapper.GET)
    endpoint.setRequestMethod(Wrapper.URLENCODED)
    for form in (Wrapper.XML, Wrapper.CSV, Wrapper.TSV):
        endpoint.setReturnFormat(form)
        assert endpoint.query().convert()
    endpoint.setQuery("CONSTRUCT WHERE { ?s a <https://w3id.org/strata/ontology#Framework> }")
    for form in (Wrapper.TURTLE, Wrapper.RDFXML, Wrapper.JSONLD):
        endpoint.setReturnFormat(form)
        assert endpoint.query().convert()


def test_rdflib_reads_it_as_a_store(server: Server, manifest: Manifest) -> None:
    from rdflib import Graph, URIRef
    from rdflib.plugins.stores.sparqlstore import SPARQLStore

    graph = Graph(SPARQLStore(f"{server.url}/sparql"))
    assert len(list(graph.query(EXAMPLE))) == 5
    assert graph.query("ASK { ?s a <https://w3id.org/strata/ontology#Norm> }").askAnswer
    article = URIRef("https://w3id.org/strata/id/eu-ai-act/art_26/par_2")
    assert len(list(graph.predicate_objects(article))) > 3


def test_comunica_asks_it(server: Server, tmp_path: Path) -> None:
    """Run where the command is installed; .ci/run installs it from npm."""
    command = shutil.which("comunica-sparql") or os.environ.get("STRATA_COMUNICA")
    if not command:
        pytest.skip("comunica-sparql is not installed")
    said = subprocess.run(
        [command, f"sparql@{server.url}/sparql", EXAMPLE, "-t", "application/sparql-results+json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert len(json.loads(said.stdout)["results"]["bindings"]) == 5


def test_the_manifest_is_what_is_served(server: Server, home: Path) -> None:
    assert httpx.get(f"{server.url}/health").json()["triples"] == read_manifest(current(home)).triples
