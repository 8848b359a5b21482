"""SPARQL 1.1 Protocol: the W3C's tests for queries as requests, formats, descriptions, and what is refused."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from urllib.parse import quote

import pyoxigraph
import pytest
from fastapi.testclient import TestClient
from pyoxigraph import QueryBoolean, QueryResultsFormat, QuerySolutions, RdfFormat, parse, parse_query_results
from rdflib import Graph, URIRef
from rdflib.namespace import DCAT, RDF, VOID

from kg.dumps import DUMPS
from kg.results import GRAPH_FORMATS, RESULT_FORMATS
from kg.snapshot import Manifest, content_hash, current
from kg.worker import Limits, Question, evaluate

ONTOLOGY = "https://w3id.org/strata/graph/ontology"
SHAPES = "https://w3id.org/strata/graph/shapes"
MODULE = "<https://w3id.org/strata/ontology#Norm> a <http://www.w3.org/2002/07/owl#Class>"
SHAPE = "?shape a <http://www.w3.org/ns/shacl#NodeShape>"
DIRECT = {"content-type": "application/sparql-query"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
RESULTS = {"accept": "application/sparql-results+json"}


def asked(client: TestClient, way: str, query: str, **graphs: list[str]) -> bool:
    """The answer to an ASK query, sent in one of the protocol's three ways."""
    dataset = [(f"{kind}-graph-uri", g) for kind, named in graphs.items() for g in named]
    pairs = "&".join(f"{k}={quote(v, safe='')}" for k, v in [("query", query), *dataset])
    alone = "&".join(f"{k}={quote(v, safe='')}" for k, v in dataset)
    if way == "get":
        answer = client.get(f"/sparql?{pairs}", headers=RESULTS)
    elif way == "form":
        answer = client.post("/sparql", content=pairs, headers={**FORM, **RESULTS})
    else:
        answer = client.post(f"/sparql?{alone}", content=query, headers={**DIRECT, **RESULTS})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/sparql-results+json"
    return bool(answer.json()["boolean"])


WAYS = ("get", "form", "direct")

# ------------------------------------------------------------------ W3C: what must be answered


@pytest.mark.parametrize("way", WAYS)
def test_query_in_each_way(way: str, client: TestClient) -> None:
    assert asked(client, way, "ASK {}")


@pytest.mark.parametrize("way", WAYS)
def test_query_dataset_default_graph(way: str, client: TestClient) -> None:
    assert asked(client, way, f"ASK {{ {MODULE} }}", default=[ONTOLOGY])
    assert not asked(client, way, f"ASK {{ {MODULE} }}", default=[SHAPES])


@pytest.mark.parametrize("way", WAYS)
def test_query_dataset_default_graphs(way: str, client: TestClient) -> None:
    both = f"ASK {{ {MODULE} . {SHAPE} }}"
    assert asked(client, way, both, default=[ONTOLOGY, SHAPES])
    assert not asked(client, way, both, default=[ONTOLOGY])


@pytest.mark.parametrize("way", WAYS)
def test_query_dataset_named_graphs(way: str, client: TestClient) -> None:
    query = f"ASK {{ GRAPH ?g {{ {MODULE} }} GRAPH ?h {{ {SHAPE} }} }}"
    assert asked(client, way, query, named=[ONTOLOGY, SHAPES])
    assert not asked(client, way, query, named=[ONTOLOGY])
    assert not asked(client, way, "ASK { ?s ?p ?o }", named=[ONTOLOGY]), "no default graph was named"
    assert not asked(client, way, "ASK { GRAPH ?g { ?s ?p ?o } }", default=[ONTOLOGY]), "no named graph was named"


@pytest.mark.parametrize("way", WAYS)
def test_query_dataset_full(way: str, client: TestClient) -> None:
    query = f"ASK {{ {MODULE} GRAPH ?h {{ {SHAPE} }} FILTER NOT EXISTS {{ GRAPH ?i {{ {MODULE} }} }} }}"
    assert asked(client, way, query, default=[ONTOLOGY], named=[SHAPES])


@pytest.mark.parametrize("way", WAYS)
def test_query_multiple_dataset(way: str, client: TestClient) -> None:
    """The dataset of the request wins over FROM in the query."""
    query = f"ASK FROM <{SHAPES}> {{ {MODULE} }}"
    assert asked(client, way, query, default=[ONTOLOGY])
    assert not asked(client, way, query)


def test_from_in_the_query_is_the_dataset_where_the_request_names_none(client: TestClient, manifest: Manifest) -> None:
    query = f"SELECT (COUNT(*) AS ?n) FROM <{ONTOLOGY}> {{ ?s ?p ?o }}"
    answer = client.get("/sparql", params={"query": query, "format": "csv"})
    assert answer.text.split() == ["n", str(manifest.graphs[ONTOLOGY])]
    named = f"ASK FROM NAMED <{ONTOLOGY}> {{ ?s ?p ?o }}"
    assert not asked(client, "get", named), "FROM NAMED alone leaves the default graph empty"


@pytest.mark.parametrize("graph", ["file:///etc/passwd", "http://127.0.0.1:9/data", "urn:x:none"])
def test_a_graph_that_is_not_here_is_empty_and_never_fetched(graph: str, client: TestClient) -> None:
    assert not asked(client, "get", "ASK { ?s ?p ?o }", default=[graph])
    assert not asked(client, "get", "ASK { GRAPH ?g { ?s ?p ?o } }", named=[graph])


@pytest.mark.parametrize(
    ("query", "types"),
    [
        ("SELECT (1 AS ?n) {}", RESULT_FORMATS),
        ("ASK {}", RESULT_FORMATS),
        ("CONSTRUCT WHERE { ?s ?p ?o }", GRAPH_FORMATS),
        ("DESCRIBE <https://w3id.org/strata/id/eu-ai-act>", GRAPH_FORMATS),
    ],
)
def test_query_content_type(query: str, types: dict[str, object], client: TestClient) -> None:
    default = client.get("/sparql", params={"query": query})
    assert default.headers["content-type"].split(";")[0] == next(iter(types))
    for media in types:
        answer = client.get("/sparql", params={"query": query}, headers={"accept": media})
        assert answer.headers["content-type"].split(";")[0] == media
        assert answer.content


# ------------------------------------------------------------------ W3C: what must be refused


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_bad_query_method(method: str, client: TestClient) -> None:
    answer = client.request(method, "/sparql", params={"query": "ASK {}"})
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"] or "POST" in answer.headers["allow"]


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"query=ASK%20%7B%7D&query=SELECT%20%2A%20%7B%7D", FORM, 400),  # bad_multiple_queries
        (b"ASK {}", {"content-type": "text/plain"}, 415),  # bad_query_wrong_media_type
        (b"query=ASK%20%7B%7D", {}, 415),  # bad_query_missing_form_type
        (b"ASK {}", {}, 415),  # bad_query_missing_direct_type
        (
            "ASK {}".encode("utf-16"),
            {"content-type": "application/sparql-query; charset=UTF-16"},
            415,
        ),  # bad_query_non_utf8
        ("ASK { ?s ?p 'é' }".encode("latin-1"), DIRECT, 400),
        (b"query=%FF%FE", FORM, 400),
        (b"ASK {", DIRECT, 400),  # bad_query_syntax
        (b"update=DROP%20ALL", FORM, 400),
        (b"DROP ALL", {"content-type": "application/sparql-update"}, 400),
        (b"", DIRECT, 400),
        (b"default-graph-uri=urn:x", FORM, 400),
        (b"query=ASK%7B%7D&default-graph-uri=not+absolute", FORM, 400),
    ],
)
def test_bad_requests(content: bytes, headers: dict[str, str], status: int, client: TestClient) -> None:
    answer = client.post("/sparql", content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]


def test_two_queries_in_one_address_are_refused(client: TestClient) -> None:
    assert client.get("/sparql", params={"query": ["ASK {}", "ASK {}"]}).status_code == 400
    assert client.post("/sparql?query=ASK%7B%7D", content="ASK {}", headers=DIRECT).status_code == 400
    assert client.get("/sparql?default-graph-uri=urn:x").status_code == 400
    assert client.get("/sparql?query=%FF").status_code == 400


# ------------------------------------------------------------------ formats

TERMS = (
    "SELECT * { VALUES (?a ?b) { (<urn:x:1> 'a\\tb\\nc\"\\\\é'@en) (UNDEF 1.5e0) (true 'x'^^<urn:x:t>) (-7 UNDEF) } }"
)


def test_every_results_format_says_the_same(client: TestClient) -> None:
    seen = []
    for media, kind in RESULT_FORMATS.items():
        answer = client.get("/sparql", params={"query": TERMS}, headers={"accept": media})
        if kind != QueryResultsFormat.CSV:  # CSV keeps no types
            rows = parse_query_results(answer.content, kind)
            assert isinstance(rows, QuerySolutions)
            seen.append([(r["a"], r["b"]) for r in rows])
        else:
            assert len(answer.text.split("\r\n")) == 6
    assert len(seen) == 5
    assert all(s == seen[0] for s in seen)
    assert str(seen[0][0][1]) == '"a\\tb\\nc\\"\\\\é"@en'


def test_every_graph_format_says_the_same(client: TestClient) -> None:
    query = "CONSTRUCT { ?s ?p ?o } { ?s ?p ?o . ?s a <https://w3id.org/strata/ontology#Framework> }"
    seen = []
    for media, kind in GRAPH_FORMATS.items():
        answer = client.get("/sparql", params={"query": query}, headers={"accept": media})
        seen.append({str(q.triple) for q in parse(answer.content, kind)})
    assert len(seen) == 6
    assert all(s == seen[0] for s in seen)
    assert len(seen[0]) > 20


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("text/csv;q=0.5, application/sparql-results+xml;q=0.9", "application/sparql-results+xml"),
        ("application/json", "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/sparql-results+json"),
        ("image/png, text/*;q=0.2", "text/csv"),
        ("*/*;q=0.1, text/tab-separated-values", "text/tab-separated-values"),
        ("application/sparql-results+json;q=0, */*", "application/sparql-results+xml"),
        ("application/sparql-results+json;q=0.001, text/turtle", "application/sparql-results+json"),
    ],
)
def test_accept_is_weighed(accept: str, expected: str, client: TestClient) -> None:
    answer = client.get("/sparql", params={"query": "SELECT (1 AS ?n) {}"}, headers={"accept": accept})
    assert answer.headers["content-type"].split(";")[0] == expected
    assert "accept" in answer.headers["vary"].lower()


@pytest.mark.parametrize(("query", "accept"), [("ASK {}", "text/turtle"), ("DESCRIBE <urn:x:1>", "text/csv")])
def test_a_format_that_cannot_hold_the_result_is_a_406_that_lists_those_that_can(
    query: str, accept: str, client: TestClient
) -> None:
    answer = client.get("/sparql", params={"query": query}, headers={"accept": accept})
    assert answer.status_code == 406
    assert next(iter(RESULT_FORMATS if query.startswith("ASK") else GRAPH_FORMATS)) in answer.json()["detail"]


def test_format_overrules_accept(client: TestClient) -> None:
    ask = {"query": "SELECT (1 AS ?n) {}"}
    assert client.get("/sparql", params={**ask, "format": "tsv"}, headers={"accept": "text/csv"}).text == "?n\n1\n"
    assert client.get("/sparql", params={**ask, "format": "text/csv"}).text == "n\r\n1\r\n"
    assert client.get("/sparql", params={**ask, "format": "ttl"}).status_code == 406
    unknown = client.get("/sparql", params={**ask, "format": "xlsx"})
    assert unknown.status_code == 422
    assert "csv" in unknown.json()["detail"]


def test_a_cut_answer_says_so_in_header_and_body(client: TestClient) -> None:
    everything = {"query": "SELECT * { ?s ?p ?o }"}
    as_json = client.get("/sparql", params=everything)
    assert len(as_json.json()["results"]["bindings"]) == 500
    assert as_json.headers["strata-truncated"] == "rows=500"
    assert 'rel="help"' in as_json.headers["link"]
    note = as_json.json()["head"]["link"][0]
    assert f'<link href="{note}"/>' in client.get("/sparql", params={**everything, "format": "xml"}).text
    assert 'id="bounds"' in client.get(note.partition(".test")[2]).text
    triples = {"query": "CONSTRUCT WHERE { ?s ?p ?o }"}
    for form in ("ttl", "nt", "trig", "nq", "rdf"):
        answer = client.get("/sparql", params={**triples, "format": form})
        assert answer.headers["strata-truncated"] == "rows=500"
        assert "Cut at 500 triples" in answer.text
        kind = GRAPH_FORMATS[answer.headers["content-type"].split(";")[0]]
        assert len(list(parse(answer.content, kind))) == 500


def test_a_boolean_can_be_read_by_a_program(client: TestClient) -> None:
    answer = client.get("/sparql", params={"query": "ASK { <urn:x:1> ?p ?o }", "format": "xml"})
    found = parse_query_results(answer.content, QueryResultsFormat.XML)
    assert isinstance(found, QueryBoolean)
    assert not found


# ------------------------------------------------------------------ HTTP: HEAD, ETag, CORS, compression


def test_head_is_get_without_the_body(client: TestClient) -> None:
    for path in (
        "/sparql?query=ASK%7B%7D",
        "/sparql",
        "/v1/frameworks",
        "/health",
        "/id/eu-ai-act",
        "/.well-known/void",
    ):
        whole, head = client.get(path), client.head(path)
        assert head.status_code == whole.status_code == 200
        assert head.content == b""
        assert head.headers["content-type"] == whole.headers["content-type"]


SOME = "/sparql?query=SELECT%20%2A%20%7B%20%3Fs%20%3Fp%20%3Fo%20%7D%20LIMIT%20300"


@pytest.mark.parametrize("path", ["/v1/frameworks", SOME])
def test_a_client_with_the_right_copy_gets_304(path: str, client: TestClient) -> None:
    first = client.get(path)
    etag = first.headers["etag"]
    again = client.get(path, headers={"if-none-match": f'"other", {etag}'})
    assert again.status_code == 304
    assert again.content == b""
    assert again.headers["etag"] == etag
    assert client.get(path, headers={"if-none-match": '"other"'}).content == first.content
    assert client.get(path, headers={"accept": "text/csv"}).headers["etag"] != etag
    assert client.get(path + "&format=csv" if "?" in path else path + "?format=csv").headers["etag"] != etag


def test_an_answer_of_the_moment_is_not_kept(client: TestClient) -> None:
    query = {"query": "SELECT (STRUUID() AS ?u) {}"}
    one, two = client.get("/sparql", params=query), client.get("/sparql", params=query)
    assert one.text != two.text
    assert "etag" not in one.headers
    assert one.headers["cache-control"] == "no-store"


def test_any_page_may_ask_from_a_browser(client: TestClient) -> None:
    origin = {"origin": "https://example.org"}
    answer = client.get("/sparql?query=ASK%7B%7D", headers=origin)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "strata-truncated" in answer.headers["access-control-expose-headers"].lower()
    refused = client.get("/sparql?query=no", headers=origin)
    assert refused.status_code == 400
    assert refused.headers["access-control-allow-origin"] == "*"
    wish = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    preflight = client.options("/sparql", headers={**origin, **wish})
    assert preflight.status_code == 200
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "content-type" in preflight.headers["access-control-allow-headers"].lower()


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_answers_are_compressed_for_who_takes_it(coding: str, client: TestClient) -> None:
    plain = client.get(SOME, headers={"accept-encoding": "identity"})
    packed = client.get(SOME, headers={"accept-encoding": coding})
    assert packed.headers["content-encoding"] == coding
    assert int(packed.headers["content-length"]) < len(plain.content) / 3
    assert "accept-encoding" in packed.headers["vary"].lower()
    assert packed.content == plain.content
    assert "content-encoding" not in plain.headers


# ------------------------------------------------------------------ descriptions and dumps


@pytest.mark.parametrize(
    "media", ["text/turtle", "application/n-triples", "application/ld+json", "application/rdf+xml"]
)
def test_the_endpoint_describes_itself(media: str, client: TestClient, manifest: Manifest) -> None:
    answer = client.get("/sparql", headers={"accept": media})
    assert answer.headers["content-type"].split(";")[0] == media
    found = Graph().parse(data=answer.text, format={"application/rdf+xml": "xml"}.get(media, media))
    sd = "http://www.w3.org/ns/sparql-service-description#"
    service = URIRef("http://strata.test/sparql")
    assert (service, URIRef(sd + "endpoint"), service) in found
    assert (service, URIRef(sd + "feature"), URIRef(sd + "UnionDefaultGraph")) in found
    assert {str(o) for o in found.objects(None, URIRef(sd + "name"))} == set(manifest.graphs)
    written = {str(o).rpartition("/")[2] for o in found.objects(service, URIRef(sd + "resultFormat"))}
    assert {"SPARQL_Results_JSON", "Turtle", "TriG", "N-Quads", "JSON-LD", "RDF_XML"} <= written


def test_void_counts_are_those_of_the_graph(client: TestClient, manifest: Manifest) -> None:
    found = Graph().parse(data=client.get("/.well-known/void").text, format="turtle")
    dataset = found.value(None, RDF.type, DCAT.Dataset)
    assert int(str(found.value(dataset, VOID.triples))) == manifest.triples
    norm = URIRef("https://w3id.org/strata/ontology#Norm")
    part = found.value(None, VOID["class"], norm)
    count = "SELECT (COUNT(DISTINCT ?s) AS ?n) { ?s a <https://w3id.org/strata/ontology#Norm> }"
    asked_for = client.get("/sparql", params={"query": count, "format": "csv"}).text.split()[1]
    assert str(found.value(part, VOID.entities)) == asked_for
    dumps = {str(o) for o in found.objects(dataset, VOID.dataDump)}
    assert dumps == {f"http://strata.test/downloads/{n}" for n in DUMPS}
    assert {str(o) for o in found.objects(None, DCAT.downloadURL)} == dumps


def test_dumps_hold_the_whole_snapshot(client: TestClient, manifest: Manifest) -> None:
    items = client.get("/downloads").json()["items"]
    assert {i["name"] for i in items} == set(DUMPS)
    quads = client.get("/downloads/strata.nq.gz")
    assert quads.headers["content-type"] == "application/gzip"
    lines = gzip.decompress(quads.content).decode().splitlines()
    assert content_hash(lines) == manifest.hash, "the file proves the snapshot's name"
    turtle = gzip.decompress(client.get("/downloads/strata.ttl.gz").content)
    union = {line.rpartition(" <")[0] for line in lines if "_:" not in line}
    assert len({str(q.triple) for q in parse(turtle, RdfFormat.TURTLE) if "_:" not in str(q)}) == len(union)
    etag = quads.headers["etag"]
    assert client.get("/downloads/strata.nq.gz", headers={"if-none-match": etag}).status_code == 304
    part = client.get("/downloads/strata.nq.gz", headers={"range": "bytes=0-9"})
    assert part.status_code == 206
    assert part.content == quads.content[:10]
    assert client.get("/downloads/../current").status_code == 404
    assert client.get("/downloads/other.gz").status_code == 404


# ------------------------------------------------------------------ the second wall


class Listener:
    """A socket on the loopback that remembers whether anybody came."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.visited = Event()
        Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.visited.set()
            connection.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    found = Listener()
    yield found
    found.socket.close()


def _service(port: int) -> str:
    return f"SELECT * {{ SERVICE <http://127.0.0.1:{port}/> {{ ?s ?p ?o }} }}"


def test_the_listener_would_notice(listener: Listener, store: object) -> None:
    """The engine itself does dial out: without the walls a SERVICE that slips through is a connection."""
    with pytest.raises((OSError, RuntimeError, ValueError)):
        list(pyoxigraph.Store().query(_service(listener.port)))  # type: ignore[arg-type]
    assert listener.visited.wait(5)


def test_no_query_opens_a_connection_even_past_the_first_wall(
    listener: Listener, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import multiprocessing as mp

    context = mp.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_walled, args=(theirs, str(current(home) / "store"), listener.port))
    child.start()
    assert ours.poll(60)
    said = ours.recv()
    child.join()
    if said["walls"] != ["files", "network"]:
        pytest.skip(f"this system has only these walls: {said['walls']}")
    assert said["guarded"].startswith("SERVICE is refused")
    assert "could not finish" in said["unguarded"] or "does not accept" in said["unguarded"]
    assert said["rows"] > 1000, "what is allowed still works"
    assert said["file"] == said["written"] == said["program"] == "OSError"
    assert not listener.visited.wait(1)


def _walled(pipe: object, folder: str, port: int) -> None:
    """In a process behind both walls: the query with and without the guard, files, programs."""
    import os
    import subprocess

    import kg.worker
    import kg.zygote  # as a query process does: behind the walls nothing can be imported
    from kg.errors import QueryError
    from kg.guard import Examined
    from kg.namespaces import prefixes
    from kg.sandbox import enter

    prefixes()
    said: dict[str, object] = {"walls": list(enter(Path(folder), memory=4 << 30))}
    store = pyoxigraph.Store.read_only(folder)

    def attempt(query: str) -> str:
        try:
            return evaluate(store, Question(query), Limits()).body.decode()
        except QueryError as error:
            return str(error)

    def outcome(work: object) -> str:
        try:
            return f"worked: {work()!r}"  # type: ignore[operator]
        except OSError:
            return "OSError"

    said["guarded"] = attempt(_service(port))
    kg.worker._examine = lambda _: Examined("SELECT", False, False)  # type: ignore[assignment]
    said["unguarded"] = attempt(_service(port))
    said["rows"] = attempt("SELECT ?s { ?s ?p ?o } LIMIT 1001").count('"type"')
    said["file"] = outcome(Path("/etc/hostname").read_text)
    said["written"] = outcome(lambda: Path("/tmp/strata-test").write_text("x"))
    said["program"] = outcome(lambda: subprocess.run(["true"], check=True))
    pipe.send(said)  # type: ignore[attr-defined]
    os._exit(0)


def test_the_service_says_which_walls_stand(client: TestClient) -> None:
    ready = client.get("/ready").json()
    assert ready["status"] == "ready"
    assert set(ready["walls"]) <= {"files", "network"}
    assert json.dumps(ready)
