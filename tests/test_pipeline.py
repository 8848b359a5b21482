"""From sources to answers: what the pipeline promises, and what must stay equal when data changes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from pyoxigraph import NamedNode, Quad
from typer.testing import CliRunner

from api.app import create_app
from kg import cli
from kg.content import ontology_dir
from kg.errors import BadParameters, NoSnapshot, QueryError, QueryTimeout, StoreUnavailable
from kg.guard import check
from kg.load import find_sources
from kg.namespaces import GRAPH
from kg.queries import answer_of, ask
from kg.remote import RemoteStore
from kg.serving import Service
from kg.snapshot import Build, build, canonical, content_hash, current, read_manifest, write
from kg.store import EmbeddedStore, MemoryStore
from kg.turtle import reformat
from kg.worker import Limits, Pool, Question

TOY = Path(__file__).parent / "toy"
ID = "https://w3id.org/strata/id/"

# ------------------------------------------------------------------ snapshots


@pytest.fixture(scope="module")
def toy() -> Build:
    """Ontology and the toy framework alone."""
    return build(find_sources(data=[TOY]))


def test_same_sources_same_hash_wherever_they_lie(toy: Build, tmp_path: Path) -> None:
    shutil.copytree(TOY, tmp_path / "elsewhere" / "data")
    again = build(find_sources(data=[tmp_path / "elsewhere" / "data"]))
    assert content_hash(canonical(again.quads)) == content_hash(canonical(toy.quads))


def test_the_order_of_statements_does_not_matter(toy: Build) -> None:
    assert content_hash(canonical(reversed(toy.quads))) == content_hash(canonical(toy.quads))


def test_one_changed_statement_changes_the_hash(toy: Build) -> None:
    extra = Quad(NamedNode(ID + "x"), NamedNode(ID + "y"), NamedNode(ID + "z"), NamedNode(GRAPH.submitted))
    assert content_hash(canonical([*toy.quads, extra])) != content_hash(canonical(toy.quads))


def test_writing_twice_keeps_one_snapshot_and_serves_it(toy: Build, tmp_path: Path) -> None:
    first = write(toy, tmp_path)
    second = write(toy, tmp_path)
    assert first.hash == second.hash == current(tmp_path).name
    assert [p.name for p in (tmp_path / "snapshots").iterdir()] == [first.hash]
    assert read_manifest(current(tmp_path)).triples == len(set(canonical(toy.quads)))


def test_a_write_that_breaks_off_leaves_what_was_served(toy: Build, tmp_path: Path, monkeypatch: Any) -> None:
    served = write(toy, tmp_path).hash
    extra = Quad(NamedNode(ID + "x"), NamedNode(ID + "y"), NamedNode(ID + "z"), NamedNode(GRAPH.submitted))
    changed = Build([], [*toy.quads, extra], "other")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kg.snapshot._write_text", fail)
    with pytest.raises(KeyboardInterrupt):
        write(changed, tmp_path)
    assert current(tmp_path).name == served
    assert [p.name for p in (tmp_path / "snapshots").iterdir()] == [served]


def test_a_snapshot_that_is_gone_is_named(toy: Build, tmp_path: Path) -> None:
    write(toy, tmp_path)
    shutil.rmtree(current(tmp_path) / "store")
    with pytest.raises(NoSnapshot, match="strata build"):
        current(tmp_path)


def test_a_new_snapshot_is_served_without_a_restart(toy: Build, tmp_path: Path) -> None:
    write(toy, tmp_path)
    service = Service(tmp_path, workers=1)
    with TestClient(create_app(service)) as client:
        before = client.get("/health").json()["snapshot"]
        extra = Quad(NamedNode(ID + "x"), NamedNode(ID + "y"), NamedNode(ID + "z"), NamedNode(GRAPH.submitted))
        after = write(Build([], [*toy.quads, extra], "other"), tmp_path).hash
        assert before != after == client.get("/health").json()["snapshot"]
        answer = client.get("/sparql", params={"query": f"ASK {{ <{ID}x> ?p ?o }}"})
        assert "true" in answer.text


# ------------------------------------------------------------------ a third framework, without Python


@pytest.fixture(scope="module")
def with_toy(built: Build, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A service over the real frameworks and a third one, added as a folder."""
    data = tmp_path_factory.mktemp("third") / "data"
    shutil.copytree(TOY, data)
    shutil.rmtree(data / "cases")
    home = data.parent / "home"
    sources = find_sources()
    result = build(
        [*sources, *(s for s in find_sources(data=[data]) if s not in sources and s.name.startswith("data/"))]
    )
    assert [str(f) for f in result.findings if f.severity == "violation"] == []
    write(result, home)
    with TestClient(create_app(Service(home, workers=1))) as client:
        yield client


def test_a_third_framework_appears_everywhere(with_toy: TestClient) -> None:
    def fetch(path: str) -> Any:
        answer = with_toy.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    assert {f["framework"] for f in fetch("/v1/frameworks")["items"]} >= {"eu-ai-act", "nist-ai-rmf", "harbour-charter"}
    toy = next(f for f in fetch("/v1/orientation")["items"] if f["framework"] == "harbour-charter")
    assert (toy["norms"], toy["model_centric"], toy["sociotechnical"]) == (2, 1, 1)
    cells = fetch("/v1/coverage?rows=point&columns=framework&framework=harbour-charter")["cells"]
    assert {(c["row"], c["norms"]) for c in cells} == {("human-oversight", 1), ("model-evaluation", 1)}
    gaps = fetch("/v1/gaps?framework=harbour-charter&as_of=2026-11-23")["cells"]
    classes = {(c["row"], c["column"]): c["gap"] for c in gaps if c["norms"]}
    assert classes["health-and-safety-hazard", "human-oversight"] == "covered"
    assert classes["system-malfunction", "model-evaluation"] == "not-yet-applicable"
    assert sum(c["gap"] == "uncovered" for c in gaps) == len(gaps) - len(classes)
    assert fetch("/v1/compare?left=harbour-charter&right=nist-ai-rmf")["total"] > 0
    assert fetch("/v1/norms/harbour-charter/rule_1/norm-1")["bearer"] == ["deployer"]


# ------------------------------------------------------------------ metamorphic: what must stay equal


def test_swapping_a_comparison_mirrors_it(get: Any) -> None:
    mirrored = {"only-left": "only-right", "only-right": "only-left", "added": "dropped", "dropped": "added"}
    there = get("/v1/compare", left="eu-ai-act@2026-01-01", right="eu-ai-act@2026-11-23", limit=1000)
    back = get("/v1/compare", left="eu-ai-act@2026-11-23", right="eu-ai-act@2026-01-01", limit=1000)
    seen = sorted((mirrored.get(r["status"], r["status"]), str(r["right"]), str(r["left"])) for r in there["items"])
    assert seen == sorted((r["status"], str(r["left"]), str(r["right"])) for r in back["items"])
    left = {(r["dimension"], r["concept"]): (r["left"], r["right"]) for r in there["profile"]}
    right = {(r["dimension"], r["concept"]): (r["right"], r["left"]) for r in back["profile"]}
    assert left == right
    assert len(left) > 50


def counts(store: MemoryStore) -> dict[str, Any]:
    """Numbers that no relabelling and no mapping may move."""
    gaps = ask(store, "gaps", {"framework": ["harbour-charter"]}).table.rows
    coverage = ask(store, "coverage", {"rows": ["point"], "columns": ["layer"]}).table.rows
    turned = ask(store, "orientation").table.rows
    keys = ("framework", "norms", "model_centric", "technical_system", "sociotechnical", "developer_reliance")
    return {
        "gaps": [(g["row"], g["column"], g["norms"], g["gap"]) for g in gaps],
        "coverage": [(c["row"], c["column"], c["norms"]) for c in coverage],
        "orientation": [tuple(o[k] for k in keys) for o in turned],
    }


def test_renaming_a_label_moves_no_number(toy: Build, tmp_path: Path) -> None:
    copy = tmp_path / "ontology"
    shutil.copytree(ontology_dir(), copy)
    points = copy / "vocab" / "point.ttl"
    text = points.read_text("utf-8")
    assert '"human oversight"@en' in text
    points.write_text(text.replace('"human oversight"@en', '"overseeing people"@en'), "utf-8")
    renamed = build(find_sources(ontology=copy, data=[TOY]))
    assert renamed.ok
    assert counts(MemoryStore(renamed.quads)) == counts(MemoryStore(toy.quads))


MAPPING = """
@prefix strata: <https://w3id.org/strata/ontology#> .
@prefix skos: <http://www.w3.org/2004/02/skos/core#> .
<https://w3id.org/strata/mapping/test/1> a strata:Mapping ;
    strata:mappingSubject <https://w3id.org/strata/id/harbour-charter/rule_1> ;
    strata:mappingPredicate skos:closeMatch ;
    strata:mappingObject <https://w3id.org/strata/id/harbour-charter/rule_2> ;
    strata:mappingComment "Both rules keep loads from falling."@en ;
    strata:justification <https://w3id.org/semapv/vocab/ManualMappingCuration> .
"""


def test_adding_a_mapping_moves_no_count(toy: Build, tmp_path: Path) -> None:
    shutil.copytree(TOY, tmp_path / "data")
    (tmp_path / "data" / "crosswalks").mkdir()
    (tmp_path / "data" / "crosswalks" / "test.ttl").write_text(MAPPING)
    mapped = build(find_sources(data=[tmp_path / "data"]))
    assert [str(f) for f in mapped.findings if f.severity == "violation"] == []
    assert counts(MemoryStore(mapped.quads)) == counts(MemoryStore(toy.quads))
    norm, other = (f"{ID}harbour-charter/rule_{n}/norm-1" for n in (1, 2))
    pairs = f"SELECT ?o {{ <{norm}> <https://w3id.org/strata/ontology#correspondsTo> ?o FILTER(?o != <{norm}>) }}"
    assert MemoryStore(toy.quads).select(pairs).rows == []
    assert MemoryStore(mapped.quads).select(pairs).rows == [{"o": other}]


def test_splitting_a_norm_of_two_bearers_keeps_each_bearers_counts(toy: Build, tmp_path: Path) -> None:
    whole, split = tmp_path / "whole", tmp_path / "split"
    for folder in (whole, split):
        shutil.copytree(TOY, folder)
    norms = whole / "frameworks" / "harbour-charter" / "norms" / "rules.ttl"
    text = norms.read_text("utf-8")
    joint = text.replace("strata:bearer role:deployer", "strata:bearer role:deployer, role:worker")
    norms.write_text(joint, "utf-8")
    for layer in ("norms", "codings"):
        file = split / "frameworks" / "harbour-charter" / layer / "rules.ttl"
        body = file.read_text("utf-8")
        second = "\n".join(x for x in body.splitlines() if not x.startswith("@")).split("\n<rule_2")[0]
        second = second.replace("rule_1/norm-1", "rule_1/norm-2").replace("role:deployer", "role:worker")
        file.write_text(body + second.replace('"@en ;\n    prov', ' The other side."@en ;\n    prov') + "\n", "utf-8")

    def by_bearer(folder: Path) -> dict[tuple[Any, Any], int]:
        result = build(find_sources(data=[folder]))
        assert [str(f) for f in result.findings if f.severity == "violation"] == []
        rows = ask(MemoryStore(result.quads), "coverage", {"rows": ["bearer"], "columns": ["point"]}).table.rows
        return {
            (r["row"], r["column"]): r["norms"] for r in rows if r["row"] in ("deployer", "worker", "system-developer")
        }

    assert by_bearer(whole) == by_bearer(split)
    assert ("worker", "human-oversight") in by_bearer(whole)


# ------------------------------------------------------------------ canonical Turtle


def test_canonical_layout_is_a_fixed_point() -> None:
    for source in find_sources(data=[TOY]):
        before, after = reformat(source.path)
        assert after == before, source.name


@pytest.mark.parametrize(
    "text", ["<a:b> <a:c> 1 , 2 .", '<a:b> <a:c> "x\\ny"@en ; a <a:d> .', "<a:b> <a:c> ( 1 [ <a:e> <a:f> ] ) ."]
)
def test_reformatting_keeps_every_statement(text: str, tmp_path: Path) -> None:
    from rdflib import Graph
    from rdflib.compare import isomorphic

    file = tmp_path / "x.ttl"
    file.write_text(text)
    _, after = reformat(file)
    assert isomorphic(Graph().parse(data=text, format="turtle"), Graph().parse(data=after, format="turtle"))


# ------------------------------------------------------------------ queries from outside


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("SELECT * { SERVICE <http://example.org/sparql> { ?s ?p ?o } }", "SERVICE is refused"),
        ("SELECT * { SERVICE SILENT <http://x.example/> { ?s ?p ?o } }", "SERVICE is refused"),
        ("SELECT * { OPTIONAL { { SELECT * { sErViCe ?g { ?s ?p ?o } } } } }", "SERVICE is refused"),
        ("ASK { FILTER NOT EXISTS { SERVICE <http://x.example/> { ?s ?p ?o } } }", "SERVICE is refused"),
        ("CONSTRUCT { ?s ?p ?o } WHERE { ?s ?p ?o MINUS { SERVICE <http://x.example/> { ?s ?p ?o } } }", "SERVICE"),
        ("SELECT * FROM <http://example.org/data> { ?s ?p ?o }", "FROM"),
        ("SELECT * FROM NAMED <file:///etc/passwd> { GRAPH ?g { ?s ?p ?o } }", "FROM"),
        ("INSERT DATA { <a:b> <a:c> <a:d> }", "only reads"),
        ("DELETE WHERE { ?s ?p ?o }", "only reads"),
        ("LOAD <http://example.org/data>", "only reads"),
        ("DROP ALL", "only reads"),
        ("SELECT * WHERE { ?s ?p", "Line 1"),
        ("", "Line 1"),
        ("SELECT * { ?s ?p ?o }" + " " * 60_000, "characters"),
        ("SELECT * {" + "{" * 5000 + "}" * 5000 + "}", "nested|malformed|Line"),
    ],
)
def test_a_query_that_may_not_run_is_refused_with_the_reason(query: str, reason: str, client: TestClient) -> None:
    with pytest.raises(QueryError, match=reason):
        check(query)
    answer = client.post("/sparql", content=query, headers={"content-type": "application/sparql-query"})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * { ?s ?p 'SERVICE <http://example.org/> { }' } LIMIT 1",
        "SELECT ?service { ?service ?p ?o } LIMIT 1 # SERVICE <http://example.org/>",
        "PREFIX service: <http://example.org/service#> SELECT * { ?s service:load ?o } LIMIT 1",
        "SELECT * FROM <https://w3id.org/strata/graph/ontology> { ?s ?p ?o } LIMIT 1",
        "DESCRIBE <https://w3id.org/strata/id/eu-ai-act>",
    ],
)
def test_words_that_only_look_dangerous_are_allowed(query: str, client: TestClient) -> None:
    check(query)
    assert client.get("/sparql", params={"query": query}).status_code == 200


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80))
def test_no_text_makes_the_guard_fail_in_another_way(text: str) -> None:
    with suppress(QueryError):
        assert check(text) in {"SELECT", "ASK", "CONSTRUCT", "DESCRIBE"}


RUNAWAY = "SELECT (COUNT(*) AS ?n) WHERE { ?a ?b ?c . ?d ?e ?f . ?g ?h ?i }"


def test_a_runaway_query_is_stopped_and_the_next_one_answered(home: Path) -> None:
    pool = Pool(current(home), size=1, limits=Limits(seconds=1, rows=10))
    try:
        with pytest.raises(QueryTimeout):
            pool.run(Question(RUNAWAY, "text/csv"))
        assert pool.run(Question("SELECT (1 AS ?n) {}", "text/csv")).body.split() == [b"n", b"1"]
    finally:
        pool.close()


def test_truncation_is_said(client: TestClient, service: Service) -> None:
    answer = client.get("/sparql", params={"query": "SELECT * { ?s ?p ?o }"}, headers={"accept": "text/csv"})
    assert answer.headers["strata-truncated"] == f"rows={service.limits.rows}"
    assert len(answer.text.strip().splitlines()) == service.limits.rows + 1
    whole = client.get("/sparql", params={"query": "SELECT * { ?s ?p ?o } LIMIT 7"}, headers={"accept": "text/csv"})
    assert "strata-truncated" not in whole.headers


@pytest.mark.parametrize(
    ("accept", "query"),
    [
        ("application/sparql-results+json", "SELECT * { ?s ?p ?o } LIMIT 2"),
        ("application/sparql-results+xml", "ASK { ?s ?p ?o }"),
        ("text/tab-separated-values", "SELECT * { ?s ?p ?o } LIMIT 2"),
        ("text/turtle", "CONSTRUCT WHERE { ?s ?p ?o } LIMIT 2"),
        ("application/n-triples", "CONSTRUCT WHERE { ?s ?p ?o } LIMIT 2"),
    ],
)
def test_the_sparql_protocol_in_its_three_ways(accept: str, query: str, client: TestClient) -> None:
    headers = {"accept": accept}
    by_get = client.get("/sparql", params={"query": query}, headers=headers)
    by_form = client.post("/sparql", data={"query": query}, headers=headers)
    kind = {"content-type": "application/sparql-query"}
    direct = client.post("/sparql", content=query, headers={**headers, **kind})
    for answer in (by_get, by_form, direct):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(accept)
    assert len(by_get.content) == len(by_form.content) == len(direct.content)


# ------------------------------------------------------------------ one interface, two stores


def test_a_remote_endpoint_answers_as_the_embedded_store_does(home: Path, service: Service) -> None:
    # The limit of rows on our own endpoint would cut long answers, so the questions are short.
    app = create_app(service)
    with TestClient(app, base_url="http://strata.test") as transport:
        remote, near = RemoteStore("http://strata.test/sparql", client=transport), EmbeddedStore(current(home))
        for name, parameters in (
            ("norms", {"framework": ["eu-ai-act"], "bearer": ["deployer"]}),
            ("coverage", {"rows": ["layer"], "columns": ["framework"]}),
            ("orientation", {}),
            ("ledger", {}),
        ):
            assert ask(remote, name, parameters).table == ask(near, name, parameters).table
        assert remote.snapshot == near.snapshot
        iri = ID + "nist-ai-rmf/govern_1.1"
        lines = [s.describe([iri], "application/n-triples").count(b"\n") for s in (remote, near)]
        assert lines[0] == lines[1] > 3


def test_an_endpoint_that_does_not_answer_is_named() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    remote = RemoteStore("http://nowhere.test/sparql", client=httpx.Client(transport=httpx.MockTransport(refuse)))
    with pytest.raises(StoreUnavailable, match="STRATA_ENDPOINT"):
        remote.select("SELECT * {}")
    broken = RemoteStore(
        "http://b.test/", client=httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(500)))
    )
    with pytest.raises(StoreUnavailable, match="500"):
        broken.select("SELECT * {}")


# ------------------------------------------------------------------ parameters never become query text


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=1, max_size=60))
def test_any_text_is_searched_for_and_never_run(toy_store: MemoryStore, text: str) -> None:
    try:
        rows = ask(toy_store, "norms", {"q": [text]}).table.rows
    except BadParameters:
        assert not text.strip()
        return
    assert all(text.lower() in str(r["action"]).lower() for r in rows)


@pytest.fixture(scope="module")
def toy_store(toy: Build) -> MemoryStore:
    return MemoryStore(toy.quads)


# ------------------------------------------------------------------ the command line


def test_misuse_and_findings_have_their_exit_codes(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STRATA_HOME", str(home))
    run = CliRunner().invoke
    wrong = run(cli.app, ["norms", "--bearer", "deployerr"])
    assert wrong.exit_code == 2
    assert "did you mean deployer" in wrong.stderr
    assert run(cli.app, ["norms", "--bearer"]).exit_code == 2
    assert run(cli.app, ["ask", "nothing"]).exit_code == 2
    assert run(cli.app, ["norms", "--format", "pdf"]).exit_code == 2
    assert run(cli.app, ["query", str(tmp_path / "none.rq")]).exit_code == 2
    assert run(cli.app, ["validate", str(tmp_path / "none.ttl")]).exit_code == 1
    broken = tmp_path / "x.ttl"
    broken.write_text("<a:b> <a:c>")
    assert run(cli.app, ["validate", str(broken)]).exit_code == 1


def test_an_own_query_runs_in_the_terminal(
    store: EmbeddedStore, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STRATA_HOME", str(home))
    file = tmp_path / "count.rq"
    file.write_text("SELECT (COUNT(*) AS ?n) { ?s a <https://w3id.org/strata/ontology#Framework> }")
    said = CliRunner().invoke(cli.app, ["query", str(file)])
    assert said.exit_code == 0, said.stderr
    assert said.stdout.split() == ["n", str(len(answer_of(store, "frameworks")))]


@pytest.mark.parametrize("ending", [".nq", ".trig", ".nt", ".ttl", ".jsonld", ".rdf"])
def test_the_whole_graph_can_be_exported(
    ending: str, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STRATA_HOME", str(home))
    target = tmp_path / f"strata{ending}"
    said = CliRunner().invoke(cli.app, ["export", str(target)])
    assert said.exit_code == 0, said.stderr
    assert b"w3id.org/strata" in target.read_bytes()
