"""The same program over other engines: real servers, started here, loaded by the Graph Store Protocol."""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from kg.errors import NotAcceptable, QueryError, QueryTimeout, StoreUnavailable
from kg.namespaces import GRAPH, STRATA
from kg.queries import all_queries, ask
from kg.remote import RemoteStore, load
from kg.serving import Service
from kg.snapshot import Manifest, current
from kg.store import EmbeddedStore
from kg.worker import Limits, Question
from tests.conftest import free_port, wait_for

PROVISION = "https://w3id.org/strata/id/eu-ai-act/art_26/par_2"
GIVEN: dict[str, dict[str, list[str]]] = {
    "axis": {"dimension": ["point"]},
    "compare": {"left": ["us-m-24-10@2025-01-01"], "right": ["us-m-25-21"]},
    "compare-profile": {"left": ["nist-ai-rmf"], "right": ["eu-ai-act"]},
    "case-components": {"case": ["automated-hiring"]},
    "case-gaps": {"case": ["automated-hiring"], "framework": ["nist-ai-rmf"]},
    "case-links": {"case": ["automated-hiring"]},
    "case-mitigations": {"case": ["automated-hiring"]},
    "case-norms": {"case": ["automated-hiring"], "framework": ["nist-ai-rmf"]},
    "case-pathways": {"case": ["automated-hiring"], "framework": ["nist-ai-rmf"]},
    "concepts": {"scheme": ["point"]},
    "explanations": {"provision": [PROVISION]},
    "gaps": {"framework": ["nist-ai-rmf"]},
    "norm-applications": {"norm": [f"{PROVISION}/norm-1"]},
    "norm-codings": {"norm": [f"{PROVISION}/norm-1"]},
    "norm-facts": {"norm": [f"{PROVISION}/norm-1"]},
    "norms": {"framework": ["nist-ai-rmf"]},
    "norms-of-provision": {"provision": [PROVISION]},
    "text-states": {"provision": [PROVISION]},
    "versions": {"framework": ["eu-ai-act"]},
    **{name: {"framework": ["nist-ai-rmf"]} for name, query in all_queries().items() if query.about},
}
"""Parameters for the queries that need some, or whose answer without any is very long."""

FILTERED: list[tuple[str, dict[str, list[str]]]] = [
    ("coverage", {"rows": ["layer"], "columns": ["bearer"], "layer": ["society"]}),
    ("coverage", {"framework": ["us-m-25-21", "us-m-24-10"], "point": ["training-data", "system-design"]}),
    ("norms", {"bearer": ["deployer"], "harm": ["psychological"]}),
    ("norms", {"framework": ["eu-ai-act"], "as_of": ["2026-12-02"], "kind": ["prohibition"]}),
    ("total", {"q": ["Risk"], "restating": ["include"]}),
    ("total", {"known_on": ["2026-01-01"], "orientation": ["sociotechnical"]}),
    ("compare", {"left": ["eu-ai-act@2026-01-01"], "right": ["eu-ai-act"]}),
    ("compare", {"left": ["nist-ai-rmf"], "right": ["us-m-25-21"]}),
    ("case-gaps", {"case": ["image-based-sexual-abuse"]}),
]
"""Questions with filters, which engines take in different ways."""


@contextmanager
def oxigraph_server(folder: Path) -> Iterator[str]:
    """An Oxigraph server with nothing in it; the address without the name of a service."""
    program = shutil.which("oxigraph", path=str(Path(sys.executable).parent))
    assert program, "the development dependency 'oxigraph' brings the server"
    url = f"http://127.0.0.1:{free_port()}"
    bind = url.removeprefix("http://")
    command = [program, "serve", "--location", str(folder / "data"), "--bind", bind, "--union-default-graph"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for(f"{url}/query?query=ASK%7B%7D", process)
        yield url
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def oxigraph(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The Oxigraph server with the snapshot in it."""
    with oxigraph_server(tmp_path_factory.mktemp("oxigraph")) as url:
        load(current(home), f"{url}/store")
        yield url


INI = """
[Database]
DatabaseFile = virtuoso.db
ErrorLogFile = virtuoso.log
LockFile = virtuoso.lck
TransactionFile = virtuoso.trx
xa_persistent_file = virtuoso.pxa
[TempDatabase]
DatabaseFile = temp.db
TransactionFile = temp.trx
[Parameters]
ServerPort = 127.0.0.1:{sql}
NumberOfBuffers = 20000
MaxMemPoolSize = 2000000000
DirsAllowed = .
[HTTPServer]
ServerPort = 127.0.0.1:{http}
ServerThreads = 10
ServerRoot = .
[SPARQL]
ResultSetMaxRows = 1000000
"""


@pytest.fixture(scope="module")
def virtuoso(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Virtuoso with the snapshot in it."""
    program = shutil.which("virtuoso-t")
    if program is None:
        pytest.skip("virtuoso-t is not installed (Debian: virtuoso-opensource-7-bin); .ci/run installs it")
    folder, port = tmp_path_factory.mktemp("virtuoso"), free_port()
    (folder / "virtuoso.ini").write_text(INI.format(sql=free_port(), http=port))
    with (folder / "out").open("wb") as log:
        process = subprocess.Popen([program, "-f", "-c", "virtuoso.ini"], cwd=folder, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{url}/sparql?query=ASK%7B%7D", process, 90)
        load(current(home), f"{url}/sparql-graph-crud-auth", auth=("dba", "dba"))
        yield url
    finally:
        process.kill()
        process.wait()


def rows_of(store: Any, name: str, given: dict[str, list[str]] | None = None) -> Counter[str]:
    """The rows of a named query, whatever their order; joined texts as sets, since SPARQL leaves their order open."""
    query = all_queries()[name]
    rows = ask(store, name, GIVEN.get(name, {}) if given is None else given).table.rows

    def plain(value: Any) -> Any:
        return sorted(value.split("; ")) if isinstance(value, str) and "; " in value else value

    return Counter(repr([plain(r[c.name]) for c in query.columns]) for r in rows)


@pytest.mark.parametrize("name", sorted(all_queries()))
def test_oxigraph_answers_every_named_query_as_embedded(name: str, oxigraph: str, store: EmbeddedStore) -> None:
    with closing(RemoteStore(f"{oxigraph}/query")) as remote:
        assert rows_of(remote, name) == rows_of(store, name)


@pytest.mark.parametrize("name", sorted(all_queries()))
def test_virtuoso_answers_every_named_query_as_embedded(name: str, virtuoso: str, store: EmbeddedStore) -> None:
    with closing(RemoteStore(f"{virtuoso}/sparql", timeout=60)) as remote:
        assert rows_of(remote, name) == rows_of(store, name)


@pytest.mark.parametrize(("name", "given"), FILTERED)
@pytest.mark.parametrize("engine", ["oxigraph", "virtuoso"])
def test_filters_mean_the_same_on_every_engine(
    engine: str, name: str, given: dict[str, list[str]], store: EmbeddedStore, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(engine) + ("/query" if engine == "oxigraph" else "/sparql")
    with closing(RemoteStore(url, timeout=60)) as remote:
        here = rows_of(store, name, given)
        assert sum(here.values()) > 0
        assert rows_of(remote, name, given) == here


def test_a_truth_value_that_comes_as_a_table_is_read_as_one(virtuoso: str) -> None:
    with closing(RemoteStore(f"{virtuoso}/sparql")) as remote:
        yes, no = (Question(f"ASK {{ ?s <{p}> ?o }}", "text/csv") for p in (f"{STRATA.framework}", "urn:none"))
        assert remote.run(yes, Limits()).body == b"true"
        assert remote.run(no, Limits()).body == b"false"


def test_a_table_that_is_no_truth_value_is_not_taken_for_one() -> None:
    with pytest.raises(StoreUnavailable, match="truth value"):
        _store([EMPTY])[0].run(Question("ASK {}"), Limits())


def test_results_end_in_the_thread_that_made_them(store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever thread collects lets go of what an error keeps alive; no object of the engine may be there."""
    said: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda event: said.append(str(event.exc_value)))
    row = {"s": {"type": "literal", "value": "x" * 100}}
    table = httpx.Response(200, json={"head": {"vars": ["s"]}, "results": {"bindings": [row] * 50}})
    broken = httpx.Response(200, text=table.text[:-40])
    calls: list[Callable[[], object]] = [
        lambda: _store([table])[0].run(Question("SELECT ?s {}"), Limits(rows=10)),
        lambda: _store([table])[0].run(Question("SELECT ?s {}"), Limits(answer=1000)),
        lambda: _store([broken])[0].run(Question("SELECT ?s {}"), Limits()),
        lambda: _store([table])[0].run(Question("ASK {}"), Limits()),
        lambda: _store([broken])[0].select("SELECT ?s {}"),
        lambda: store.select("CONSTRUCT WHERE { ?s ?p ?o }"),
    ]
    for call in calls:
        with ThreadPoolExecutor(1) as other:
            failed = other.submit(call).exception()
        del failed
        gc.collect()
        assert not said


def test_the_api_over_another_engine_is_the_same(oxigraph: str, client: TestClient, manifest: Manifest) -> None:
    remote = Service(endpoint=f"{oxigraph}/query", limits=Limits(seconds=5, rows=500))
    with TestClient(create_app(remote), base_url="http://strata.test") as other:
        for path in ("/v1/norms?framework=nist-ai-rmf", "/v1/coverage?rows=layer&columns=bearer", "/v1/frameworks"):
            there, here = other.get(path).json(), client.get(path).json()
            assert there == here
            assert there["snapshot"] == manifest.hash, "loading wrote which snapshot it is"
        assert other.get("/v1/frameworks").headers["etag"] == client.get("/v1/frameworks").headers["etag"]
        assert other.get("/ready").json()["snapshot"] == manifest.hash
        query = {"query": "SELECT * { ?s a <https://w3id.org/strata/ontology#Framework> } ORDER BY ?s", "format": "csv"}
        assert other.get("/sparql", params=query).text == client.get("/sparql", params=query).text
        graphs = {"query": "ASK { ?s ?p ?o }", "default-graph-uri": "urn:none", "format": "csv"}
        assert other.get("/sparql", params=graphs).text == "false"
        cut = other.get("/sparql", params={"query": "CONSTRUCT WHERE { ?s ?p ?o }", "format": "nq"})
        assert cut.headers["strata-truncated"] == "rows=500"
        assert other.get("/sparql", params={"query": "SELECT * { SERVICE <http://x/> {} }"}).status_code == 400
        assert other.get("/sparql", params={"query": "ASK {}"}, headers={"accept": "text/turtle"}).status_code == 406
        assert other.get("/downloads").json()["items"] == []


def test_loading_again_takes_away_graphs_that_are_gone(home: Path, tmp_path: Path) -> None:
    whole = (current(home) / "dataset.nq").read_text("utf-8").splitlines()
    manifest = json.loads((current(home) / "manifest.json").read_text())
    with oxigraph_server(tmp_path) as url, closing(RemoteStore(f"{url}/query")) as remote:
        for names in (("shapes", "queries"), ("shapes",)):
            folder = tmp_path / "-".join(names)
            folder.mkdir()
            graphs = {g: [x for x in whole if x.endswith(f" <{g}> .")] for g in (str(GRAPH[n]) for n in names)}
            (folder / "dataset.nq").write_text("".join(f"{x}\n" for xs in graphs.values() for x in xs), "utf-8")
            sizes = {g: len(xs) for g, xs in graphs.items()}
            (folder / "manifest.json").write_text(json.dumps({**manifest, "hash": folder.name, "graphs": sizes}))
            load(folder, f"{url}/store", batch=1000)
            found = remote.select("SELECT ?g (COUNT(*) AS ?n) { GRAPH ?g { ?s ?p ?o } } GROUP BY ?g").rows
            assert {r["g"]: r["n"] for r in found} == {**sizes, str(GRAPH.snapshot): 1 + len(names)}
        with closing(RemoteStore(f"{url}/query")) as fresh:
            assert fresh.snapshot == "shapes"


# ------------------------------------------------------------------ when it is away


def _store(answers: list[httpx.Response | Exception], tries: int = 3) -> tuple[RemoteStore, list[httpx.Request]]:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        said = answers[min(len(seen), len(answers)) - 1]
        if isinstance(said, Exception):
            raise said
        return said

    client = httpx.Client(transport=httpx.MockTransport(answer))
    return RemoteStore("http://far.test/query", client=client, tries=tries), seen


EMPTY = httpx.Response(200, json={"head": {"vars": ["s"]}, "results": {"bindings": []}})


def test_a_failure_that_passes_is_not_seen() -> None:
    store, seen = _store([httpx.ConnectError("no"), httpx.Response(503), EMPTY])
    assert store.select("SELECT ?s {}").rows == []
    assert len(seen) == 3


def test_a_failure_that_stays_is_told_after_so_many_tries() -> None:
    store, seen = _store([httpx.ConnectError("no")], tries=2)
    with pytest.raises(StoreUnavailable, match=r"far\.test.*STRATA_ENDPOINT"):
        store.select("SELECT ?s {}")
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("said", "error", "hint"),
    [
        (httpx.ReadTimeout("slow"), QueryTimeout, "in time"),
        (httpx.Response(400, text="bad syntax at 7"), QueryError, "bad syntax at 7"),
        (httpx.Response(500, text="broken"), StoreUnavailable, "broken"),
        (httpx.Response(200, text="<html>"), StoreUnavailable, "Is it a query endpoint"),
    ],
)
def test_what_will_not_pass_is_not_tried_again(
    said: httpx.Response | Exception, error: type[Exception], hint: str
) -> None:
    store, seen = _store([said])
    with pytest.raises(error, match=hint):
        store.select("SELECT ?s {}")
    assert len(seen) == 1


def test_queries_from_outside_are_guarded_before_they_leave() -> None:
    store, seen = _store([EMPTY])
    with pytest.raises(QueryError, match="SERVICE"):
        store.run(Question("SELECT * { SERVICE <http://x/> {} }"), Limits())
    with pytest.raises(NotAcceptable):
        store.run(Question("ASK {}", results=None), Limits())
    assert seen == []


def test_loading_where_one_may_not_says_what_is_missing(home: Path) -> None:
    refuse = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(401)))
    with pytest.raises(StoreUnavailable, match="--user"):
        load(current(home), "http://far.test/store", client=refuse)
