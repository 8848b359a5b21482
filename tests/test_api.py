"""The HTTP contract: what a program that calls it may rely on."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pyoxigraph import RdfFormat, parse
from typer.testing import CliRunner

from api.app import create_app
from api.formats import negotiate
from kg import cli
from kg.queries import all_queries
from kg.serving import Service
from kg.snapshot import Manifest

Get = Callable[..., Any]
PATHS = sorted(q.path.replace("{case}", "automated-hiring") for q in all_queries().values() if q.path)
NEEDED = {
    "/v1/gaps": {"framework": "nist-ai-rmf"},
    "/v1/compare": {"left": "nist-ai-rmf", "right": "eu-ai-act"},
    "/v1/compare/profile": {"left": "nist-ai-rmf", "right": "eu-ai-act"},
}

# ------------------------------------------------------------------ every list


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_says_where_it_comes_from(path: str, get: Get, manifest: Manifest) -> None:
    body = get(path, **NEEDED.get(path, {}))
    assert body["snapshot"] == manifest.hash
    assert body["license"].startswith("https://creativecommons.org/licenses/by/")
    assert "SELECT" in body["query"]["sparql"]
    assert isinstance(body["total"], int) or "cells" in body


@pytest.mark.parametrize("path", PATHS)
def test_an_unknown_parameter_is_an_error_that_names_the_near_ones(path: str, client: TestClient) -> None:
    answer = client.get(path, params={**NEEDED.get(path, {}), "framwork": "eu-ai-act"})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    errors = answer.json()["errors"]
    assert errors[0]["parameter"] == "framwork"
    if "framework" in errors[0]["valid"]:
        assert "did you mean framework" in errors[0]["reason"]


@pytest.mark.parametrize(
    ("parameters", "hint"),
    [
        ({"bearer": "deployers"}, "deployer"),
        ({"risk": "image-abuse"}, "image-based-sexual-abuse"),
        ({"framework": "eu-ai-acts"}, "eu-ai-act"),
        ({"as_of": "2026-13-01"}, "2026-12-02"),
        ({"as_of": "20261202"}, "2026-12-02"),
        ({"known_on": ""}, "empty"),
        ({"limit": "0"}, "1 to 1000"),
        ({"limit": "ten"}, "1 to 1000"),
        ({"cursor": "abc"}, "next"),
        ({"format": "xlsx"}, "csv"),
        ({"restating": "maybe"}, "exclude"),
    ],
)
def test_a_value_out_of_range_is_a_422_with_the_remedy(
    parameters: dict[str, str], hint: str, client: TestClient
) -> None:
    answer = client.get("/v1/norms", params=parameters)
    assert answer.status_code == 422
    assert hint in answer.text


def test_all_mistakes_are_told_at_once(client: TestClient) -> None:
    answer = client.get("/v1/norms?bearer=nobody&point=nowhere&colour=red").json()
    assert {e["parameter"] for e in answer["errors"]} == {"bearer", "point", "colour"}


def test_a_missing_parameter_is_named(client: TestClient) -> None:
    answer = client.get("/v1/gaps")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == "framework"


def test_rows_carry_what_the_contract_names(get: Get) -> None:
    norm = get("/v1/norms", framework="eu-ai-act", limit=1)["items"][0]
    named = "iri label framework path locator kind bearer action points layers risks logic instrument orientation"
    times = "in_force_from in_force_until applies_from applies_until citation_url"
    assert {*named.split(), *times.split()} <= set(norm)
    provision = get("/v1/provisions", framework="eu-ai-act", limit=1)["items"][0]
    assert {"iri", "label", "framework", "path", "locator", "heading", "summary", "citation_url"} <= set(provision)


# ------------------------------------------------------------------ paging and formats


def test_pages_join_to_the_whole_list(get: Get, client: TestClient) -> None:
    whole = [r["iri"] for r in get("/v1/norms", framework="eu-ai-act", limit=1000)["items"]]
    paged: list[str] = []
    url = "/v1/norms?framework=eu-ai-act&limit=70"
    while url:
        answer = client.get(url)
        body = answer.json()
        assert body["total"] == len(whole)
        paged += [r["iri"] for r in body["items"]]
        links = {v: k.strip("<> ") for k, _, v in (p.partition("; rel=") for p in answer.headers["link"].split(","))}
        url = links.get('"next"', "")
        assert bool(url) == (body["next"] is not None)
    assert paged == whole
    assert len(set(whole)) == len(whole)


def test_a_cursor_of_another_list_is_refused(get: Get, client: TestClient) -> None:
    cursor = get("/v1/norms", limit=5)["next"]
    assert client.get("/v1/provisions", params={"cursor": cursor}).status_code == 422


def test_csv_holds_the_whole_list_with_the_columns_of_the_query(client: TestClient, get: Get) -> None:
    answer = client.get("/v1/norms?framework=eu-ai-act", headers={"accept": "text/csv"})
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == get("/v1/norms", framework="eu-ai-act")["total"] == int(answer.headers["strata-total"])
    assert list(rows[0]) == [c.name for c in all_queries()["norms"].columns]


@pytest.mark.parametrize(
    ("form", "kind"), [("ttl", RdfFormat.TURTLE), ("nt", RdfFormat.N_TRIPLES), ("jsonld", RdfFormat.JSON_LD)]
)
def test_lists_and_things_come_as_rdf(form: str, kind: RdfFormat, client: TestClient) -> None:
    for path in ("/v1/norms?framework=nist-ai-rmf&limit=5", "/v1/norms/nist-ai-rmf/govern_1.1/norm-1"):
        answer = client.get(
            path, params={"format": form} if "?" not in path else None, headers={"accept": kind.media_type}
        )
        assert answer.status_code == 200
        subjects = {str(q.subject) for q in parse(answer.content, kind)}
        assert "<https://w3id.org/strata/id/nist-ai-rmf/govern_1.1/norm-1>" in subjects


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/csv", "text/csv"),
        ("text/html, application/xhtml+xml", "application/json"),
        ("application/json;q=0.1, text/csv", "text/csv"),
        ("text/*", "text/csv"),
        ("text/csv;q=0, application/json", "application/json"),
        ("text/csv;q=nonsense", "application/json"),
    ],
)
def test_negotiation(accept: str, expected: str) -> None:
    assert negotiate(accept, ["application/json", "text/csv"]) == expected


# ------------------------------------------------------------------ one thing at a time


def test_not_found_names_the_nearest(client: TestClient) -> None:
    answer = client.get("/v1/provisions/eu-ai-act/art_26/par_55")
    assert answer.status_code == 404
    assert "art_26/par_5" in answer.json()["detail"]
    assert "eu-ai-act" in client.get("/v1/frameworks/eu-act").json()["detail"]
    assert client.get("/v1/norms/eu-ai-act/art_26/par_2/norm-9").status_code == 404


def test_a_norm_comes_with_its_codings_and_their_reasons(get: Get) -> None:
    norm = get("/v1/norms/eu-ai-act/art_26/par_2/norm-1")
    codings = norm["codings"]
    assert {c["dimension"] for c in codings} == {
        "point",
        "risk",
        "harm",
        "logic",
        "instrument",
        "relationality",
        "stage",
    }
    assert all(c["rationale"] and c["confidence"] and c["codebook"] for c in codings)


@pytest.mark.parametrize("accept", ["text/html", "text/turtle", "application/ld+json", "application/n-triples"])
@pytest.mark.parametrize(
    "path",
    [
        "/id/eu-ai-act/art_26/par_2",
        "/id/nist-ai-rmf/govern_1.1/norm-1",
        "/vocab/point/human-oversight",
        "/vocab/risk",
        "/codebook/1.0",
    ],
)
def test_every_identifier_resolves(path: str, accept: str, client: TestClient) -> None:
    answer = client.get(path, headers={"accept": accept})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(accept)
    assert "https://w3id.org/strata" + path in answer.text or path.rpartition("/")[2] in answer.text


def test_every_term_of_the_ontology_has_its_place_on_the_page(client: TestClient) -> None:
    page = client.get("/ontology", headers={"accept": "text/html"}).text
    linked = client.get("/id/eu-ai-act/art_26/par_2", headers={"accept": "text/html"}).text
    assert 'href="/ontology#locator"' in linked
    for term in ("locator", "Norm", "intervenesAt", "Mapping", "DeveloperOnlyNorm"):
        assert f'id="{term}"' in page


def test_pages_need_no_other_host(client: TestClient) -> None:
    for path in ("/", "/docs", "/id/eu-ai-act/art_5"):
        page = client.get(path, headers={"accept": "text/html"}).text
        assert "<script src" not in page
        assert "<link" not in page
        assert "@import" not in page


def test_what_is_not_there_is_a_problem_document(client: TestClient) -> None:
    for path in ("/nothing", "/v1/nothing", "/id/eu-ai-act/art_999", "/id/../etc/passwd"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"


def test_only_reading_is_allowed(client: TestClient) -> None:
    for method in ("put", "delete", "patch"):
        assert getattr(client, method)("/v1/norms").status_code == 405


# ------------------------------------------------------------------ OpenAPI and named queries


def test_openapi_names_every_parameter_of_every_named_query(client: TestClient) -> None:
    spec = client.get("/openapi.json").json()
    for query in all_queries().values():
        if query.path:
            operation = spec["paths"][query.path]["get"]
            described = {p["name"]: p for p in operation["parameters"]}
            assert set(query.names()) <= set(described)
            assert all(p["description"] for p in described.values())
            assert "422" in operation["responses"]


def test_named_queries_run_by_name_and_show_their_sparql(client: TestClient, get: Get) -> None:
    listed = {q["name"] for q in get("/v1/queries")["items"]}
    assert listed == set(all_queries())
    by_name = get("/v1/queries/norms", framework="nist-ai-rmf")["total"]
    assert by_name == get("/v1/norms", framework="nist-ai-rmf")["total"]
    text = client.get("/v1/queries/norms", headers={"accept": "application/sparql-query"})
    assert text.headers["content-type"].startswith("application/sparql-query")
    assert client.get("/sparql", params={"query": PREFIXES + text.text}).status_code == 200
    assert client.get("/v1/queries/norm").status_code == 422


# ------------------------------------------------------------------ numbers agree

PREFIXES = """
PREFIX strata: <https://w3id.org/strata/ontology#> PREFIX skos: <http://www.w3.org/2004/02/skos/core#>
PREFIX risk: <https://w3id.org/strata/vocab/risk/> PREFIX point: <https://w3id.org/strata/vocab/point/>
PREFIX xsd: <http://www.w3.org/2001/XMLSchema#> PREFIX force: <https://w3id.org/strata/vocab/force/>
PREFIX rdfs: <http://www.w3.org/2000/01/rdf-schema#> PREFIX dcterms: <http://purl.org/dc/terms/>
PREFIX orientation: <https://w3id.org/strata/vocab/orientation/> PREFIX rdf: <http://www.w3.org/1999/02/22-rdf-syntax-ns#>
"""
# Written from the ontology alone, not from the named query: what accepted codings say, and no more.
DIRECT = (
    PREFIXES
    + """
SELECT ?row ?column (COUNT(DISTINCT ?norm) AS ?norms) WHERE {
  ?norm strata:framework <https://w3id.org/strata/id/nist-ai-rmf> .
  ?risked strata:codes ?norm ; strata:status/strata:isAccepted true ; strata:explicitValue|strata:implicitValue ?r .
  ?r skos:broader* ?wider . BIND(REPLACE(STR(?wider), "^.*/", "") AS ?row)
  ?pointed strata:codes ?norm ; strata:status/strata:isAccepted true ; strata:mainValue|strata:value ?p .
  ?p skos:inScheme <https://w3id.org/strata/vocab/point> . BIND(REPLACE(STR(?p), "^.*/", "") AS ?column)
} GROUP BY ?row ?column"""
)


def test_gaps_of_api_cli_and_sparql_agree_cell_by_cell(
    get: Get, client: TestClient, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = get("/v1/gaps", framework="nist-ai-rmf", rows="risk", columns="point")
    over_http = {(c["row"], c["column"]): c["norms"] for c in body["cells"]}
    assert len(over_http) == len(body["rows"]) * len(body["columns"])
    assert {c["gap"] for c in body["cells"]} <= {g["name"] for g in get("/v1/vocab/gap")["items"]}

    monkeypatch.setenv("STRATA_HOME", str(home))
    said = CliRunner().invoke(cli.app, ["gaps", "--framework", "nist-ai-rmf", "--format", "csv"])
    assert said.exit_code == 0, said.stderr
    in_terminal = {(r["row"], r["column"]): int(r["norms"]) for r in csv.DictReader(io.StringIO(said.stdout))}
    assert in_terminal == over_http

    table = client.post(
        "/sparql", content=DIRECT, headers={"content-type": "application/sparql-query", "accept": "text/csv"}
    )
    assert "strata-truncated" not in table.headers
    direct = {(r["row"], r["column"]): int(r["norms"]) for r in csv.DictReader(io.StringIO(table.text))}
    assert direct == {k: n for k, n in over_http.items() if n}


def test_every_cell_that_is_not_empty_leads_to_its_norms(get: Get) -> None:
    cells = [c for c in get("/v1/gaps", framework="nist-ai-rmf")["cells"] if c["norms"]]
    assert cells
    for c in cells:
        found = get("/v1/norms", framework="nist-ai-rmf", risk=c["row"], point=c["column"], limit=1)
        assert found["total"] == c["norms"], c


@pytest.mark.parametrize("columns", ["framework", "layer", "bearer", "kind", "stage", "logic"])
def test_coverage_cells_lead_to_their_norms(columns: str, get: Get) -> None:
    cells = get("/v1/coverage", rows="point", columns=columns)["cells"]
    for c in cells[:: len(cells) // 25 + 1]:  # a spread of them; every cell is one query
        found = get("/v1/norms", limit=1, point=c["row"], **{columns: c["column"]})
        assert found["total"] == c["norms"], c


def test_orientation_shares_are_counts_of_norms(get: Get) -> None:
    for row in get("/v1/orientation")["items"]:
        counts = {
            o: get("/v1/norms", framework=row["framework"], orientation=o, limit=1)["total"]
            for o in ("model-centric", "technical-system", "sociotechnical")
        }
        assert sum(counts.values()) == row["norms"]
        assert row["model_centric_share"] == pytest.approx(counts["model-centric"] / row["norms"], abs=1e-4)
        assert row["sociotechnical_share"] == pytest.approx(counts["sociotechnical"] / row["norms"], abs=1e-4)
        assert row["model_centric_low"] <= row["model_centric_share"] <= row["model_centric_high"]
        assert row["sociotechnical_low"] <= row["sociotechnical_share"] <= row["sociotechnical_high"]


# ------------------------------------------------------------------ time


def test_known_on_and_as_of_are_monotone_where_law_only_grows(get: Get) -> None:
    days = ["2024-08-01", "2025-02-02", "2025-08-02", "2026-08-02"]
    totals = [get("/v1/norms", framework="eu-ai-act", as_of=d, known_on="2026-01-01", limit=1)["total"] for d in days]
    assert all(a <= b for a, b in pairwise(totals))
    assert totals[0] == 0 < totals[1]


def test_before_there_was_a_text_there_are_no_norms(get: Get) -> None:
    assert get("/v1/norms", known_on="2020-01-01")["total"] == 0


# ------------------------------------------------------------------ health


def test_health_names_the_snapshot(get: Get, manifest: Manifest) -> None:
    health = get("/health")
    assert health["status"] == "ok"
    assert health["snapshot"] == manifest.hash
    assert health["triples"] == manifest.triples


def test_without_a_snapshot_the_service_says_what_to_do(tmp_path: Path) -> None:
    with TestClient(create_app(Service(tmp_path))) as fresh:
        answer = fresh.get("/v1/norms")
        assert answer.status_code == 503
        assert "strata build" in answer.json()["detail"]


def test_the_command_is_installed() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "kg", "version"], capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stdout.startswith("strata ")
