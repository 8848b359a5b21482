"""System maps: how norms reach components, and what a user gets for a map of one's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from kg import cli
from kg.cases import MapErrors, check_map
from kg.store import EmbeddedStore

Get = Callable[..., Any]
IBSA, HIRING = "image-based-sexual-abuse", "automated-hiring"

MAP: dict[str, Any] = {
    "title": "A nudify app in a school",
    "risks": ["image-based-sexual-abuse"],
    "categories": ["any-ai-system", "prohibited-practice"],
    "components": {
        "app": {
            "label": "nudify app",
            "kind": "technology",
            "points": ["market-access", "system-design"],
            "roles": ["system-developer"],
        },
        "store": {
            "label": "app store",
            "kind": "actor",
            "points": ["distribution"],
            "roles": ["platform-or-intermediary"],
        },
        "pupil": {"label": "pupil who is shown", "kind": "actor", "points": ["redress-and-support"]},
    },
    "links": [
        {"from": "store", "relation": "distributes", "to": "app"},
        {"from": "app", "relation": "harms", "to": "pupil"},
    ],
}


def cell(get: Get, case: str, component: str, framework: str, **more: str) -> dict[str, Any]:
    rows = get(f"/v1/cases/{case}/gaps", framework=framework, limit=1000, **more)["items"]
    (found,) = [r for r in rows if r["component"] == component]
    return dict(found)


def text(map_: dict[str, Any]) -> bytes:
    return json.dumps(map_, indent=1).encode()


# ------------------------------------------------------------------ the maps of this repository


def test_maps_are_whole(get: Get) -> None:
    maps = {r["case"]: r for r in get("/v1/cases")["items"]}
    assert maps[IBSA]["components"] >= 40
    assert maps[IBSA]["links"] >= 60
    assert {m["layers"] for m in maps.values()} == {5}
    components = get(f"/v1/cases/{IBSA}/components", limit=1000)["items"]
    assert all(c["sources"] or c["own_reading"] for c in components)
    assert {c["component"] for c in components} >= {"app-store", "search-engine", "payment-service", "nudify-software"}


def test_steps_of_a_pathway_run_from_hazard_to_harm(get: Get) -> None:
    rows = get(f"/v1/cases/{IBSA}/pathways", framework="eu-ai-act", limit=1000)["items"]
    pathways: dict[str, list[tuple[int, str]]] = {}
    for r in rows:
        pathways.setdefault(r["pathway"], []).append((r["order"], r["phase"]))
    for steps in pathways.values():
        assert [n for n, _ in sorted(steps)] == list(range(1, len(steps) + 1))
        assert "harm" in {phase for _, phase in steps}


# ------------------------------------------------------------------ reach


def test_the_ban_of_2026_reaches_nudifying_software_and_nothing_did_before(get: Get) -> None:
    # Art. 5(1)(ba), inserted by Regulation (EU) 2026/1744, applies from 2 December 2026.
    now = cell(get, IBSA, "nudify-software", "eu-ai-act", known_on="2026-11-25", as_of="2026-11-25")
    assert now["gap"] == "not-yet-applicable"
    assert now["applies_from"] == "2026-12-02"
    then = cell(get, IBSA, "nudify-software", "eu-ai-act", known_on="2026-11-25", as_of="2026-12-02")
    assert "not-yet-applicable" not in then["classes"]
    assert cell(get, IBSA, "nudify-software", "eu-ai-act", known_on="2026-07-01")["direct"] == 0
    norms = get(f"/v1/cases/{IBSA}/norms", component="nudify-software", framework="eu-ai-act", reach="direct")["items"]
    # (ba) on intimate material, (bb) on sexual material of children: both are risks of the map.
    assert {n["path"].rpartition("/norm-")[0] for n in norms} == {"art_5/par_1/pnt_ba", "art_5/par_1/pnt_bb"}


@pytest.mark.parametrize("component", ["app-store", "search-engine", "payment-service", "domain-registrar"])
def test_no_article_of_the_act_reaches_those_who_spread_and_earn(get: Get, component: str) -> None:
    # The Act binds providers, deployers and their chain; platforms, search and payment are nobody it names.
    assert cell(get, IBSA, component, "eu-ai-act")["gap"] == "uncovered"


def test_a_norm_reaches_only_by_point_party_and_category(get: Get) -> None:
    components = {c["component"]: c for c in get(f"/v1/cases/{HIRING}/components", limit=1000)["items"]}
    categories = set(get("/v1/cases")["items"][0]["categories"])
    for row in get(f"/v1/cases/{HIRING}/norms", framework="eu-ai-act", limit=300)["items"]:
        norm = get(f"/v1/norms/eu-ai-act/{row['path']}")
        component = components[row["component"]]
        assert set(norm["points"]) & set(component["points"]) == set(row["points"])
        assert not norm["category"] or {*norm["category"]} & {*categories, "high-risk"}


def test_an_unread_agenda_is_not_called_silent(get: Get) -> None:
    gaps = {r["gap"] for r in get(f"/v1/cases/{IBSA}/gaps", framework="uk-aisi-agenda", limit=1000)["items"]}
    assert "uncovered" not in gaps
    assert "not-read" in gaps
    table = get("/v1/gaps", framework="uk-aisi-agenda", rows="risk", columns="layer")["cells"]
    assert {c["gap"] for c in table if not c["norms"]} == {"not-read"}
    assert get("/v1/frameworks/uk-aisi-agenda")["unread"]


def test_unknown_maps_are_named(client: TestClient) -> None:
    for path in ("/v1/cases/nope", "/v1/cases/nope/gaps", "/map/nope"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert answer.json()["detail"]


# ------------------------------------------------------------------ bring your own


def test_a_map_of_ones_own_is_answered_by_the_same_rule(store: EmbeddedStore) -> None:
    found = check_map(store, text(MAP), "json", {"framework": ["eu-ai-act"], "as_of": ["2026-12-02"]})
    rows = {r["component"]: r for r in found.gaps}
    assert rows["app"]["direct"] >= 1
    assert rows["store"]["gap"] == "uncovered"
    assert {n["component"] for n in found.norms if n["reach"] == "direct"} == {"app"}
    assert found.summary["eu-ai-act"]["uncovered"] >= 1


def test_turtle_json_and_csv_of_one_map_agree(store: EmbeddedStore) -> None:
    table = (
        "component,label,kind,points,roles,risks,categories\n"
        "app,nudify app,technology,market-access system-design,system-developer,"
        "image-based-sexual-abuse,any-ai-system prohibited-practice\n"
        "store,app store,actor,distribution,platform-or-intermediary,,\n"
        "pupil,pupil who is shown,actor,redress-and-support,,,\n"
    )
    turtle = """@base <https://example.org/m/> .
@prefix dcterms: <http://purl.org/dc/terms/> .
@prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
@prefix strata: <https://w3id.org/strata/ontology#> .
@prefix v: <https://w3id.org/strata/vocab/> .

<map> a strata:SystemMap ; dcterms:title "mine"@en ;
    strata:mapsRisk <https://w3id.org/strata/vocab/risk/image-based-sexual-abuse> ;
    strata:mapsCategory <https://w3id.org/strata/vocab/category/any-ai-system>,
        <https://w3id.org/strata/vocab/category/prohibited-practice> .
"""
    vocab = "https://w3id.org/strata/vocab"
    for name, c in MAP["components"].items():
        points = ", ".join(f"<{vocab}/point/{p}>" for p in c["points"])
        roles = "".join(f" ; strata:playsRole <{vocab}/role/{r}>" for r in c.get("roles", ()))
        turtle += (
            f'<{name}> a strata:Component ; rdfs:label "{c["label"]}"@en ; strata:onMap <map> ; '
            f"strata:situatedAt {points} ; strata:mainlySituatedAt <{vocab}/point/{c['points'][0]}> ; "
            f"strata:componentKind <{vocab}/component-kind/{c['kind']}>{roles} .\n"
        )
    answers = [
        check_map(store, d, f).gaps for d, f in ((text(MAP), "json"), (table.encode(), "csv"), (turtle.encode(), "ttl"))
    ]
    assert answers[0] == answers[1] == answers[2]


def test_every_error_comes_at_once_with_line_and_remedy(store: EmbeddedStore) -> None:
    wrong = b"""{
 "title": "Broken",
 "risks": ["image-based-sexual-abus"],
 "componets": {},
 "components": {
  "app": {"label": "app", "kind": "technologie", "points": ["market-access"]},
  "store": {"label": "store", "kind": "actor", "pionts": ["distribution"]}
 },
 "links": [{"from": "store", "relation": "distributes", "to": "ap"}]
}"""
    with pytest.raises(MapErrors) as caught:
        check_map(store, wrong, "json")
    by_line = {(e.line, e.rule) for e in caught.value.errors}
    assert {
        (3, "map-risk"),
        (4, "map-field"),
        (6, "component-kind"),
        (7, "map-field"),
        (7, "component-point"),
        (9, "link-to"),
    } <= by_line
    said = str(caught.value)
    assert "Did you mean image-based-sexual-abuse" in said
    assert "Did you mean technology" in said
    assert "Did you mean points" in said


@pytest.mark.parametrize(
    ("data", "form", "line", "words"),
    [
        (b'{"title": "x",\n "risks": [', "json", None, "map-syntax"),
        (b"", "json", None, "empty"),
        (b"- &a [x]\n- *a\n", "json", None, "Aliases"),
        (b"component,points\napp,distribution\n", "csv", 1, "risks"),
        (b"component,points,risks\n,distribution,opacity\n", "csv", 2, "no component"),
        (
            b"@prefix s: <https://w3id.org/strata/ontology#> .\n<https://e.org/a> a s:Component ;;; .\n<x",
            "ttl",
            3,
            "map-syntax",
        ),
        (b"\xff\xfe", "csv", 1, "UTF-8"),
        (b'{"title": "x", "risks": ["opacity"], "components": {}}', "json", None, "no component"),
    ],
)
def test_broken_maps_are_refused_with_the_place(
    store: EmbeddedStore, data: bytes, form: str, line: int | None, words: str
) -> None:
    with pytest.raises(MapErrors) as caught:
        check_map(store, data, form)
    assert words in str(caught.value)
    if line:
        assert line in {e.line for e in caught.value.errors}


def test_checking_a_map_leaves_the_served_graph_as_it_was(client: TestClient, get: Get) -> None:
    before = get("/v1/cases")
    answer = client.post(
        "/v1/cases/check",
        params={"framework": "eu-ai-act"},
        content=text(MAP),
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 200
    assert {r["framework"] for r in answer.json()["items"]} == {"eu-ai-act"}
    assert get("/v1/cases") == before


@pytest.mark.parametrize(
    ("content", "media", "status"),
    [(b"{}", "image/png", 415), (b"x" * (600 << 10), "text/csv", 413), (b"{}", "application/json", 422)],
)
def test_maps_that_cannot_be_taken_are_problems(client: TestClient, content: bytes, media: str, status: int) -> None:
    answer = client.post("/v1/cases/check", content=content, headers={"content-type": media})
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("application/problem+json")


def test_the_command_prints_file_line_and_remedy(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRATA_HOME", str(home))
    path = tmp_path / "mine.json"
    path.write_bytes(text(MAP).replace(b"distributes", b"distribute"))
    said = CliRunner().invoke(cli.app, ["case", "check", str(path)])
    assert said.exit_code == 1
    assert f"{path}:" in said.output
    assert "Did you mean distributes" in said.output
    path.write_bytes(text(MAP))
    said = CliRunner().invoke(cli.app, ["case", "check", str(path), "--framework", "eu-ai-act", "--format", "csv"])
    assert said.exit_code == 0
    assert said.output.startswith("component,")
    assert CliRunner().invoke(cli.app, ["case", "check", str(tmp_path / "none.json")]).exit_code == 2


# ------------------------------------------------------------------ pages


@pytest.mark.parametrize(
    "path",
    [
        "/matrix",
        "/matrix?rows=risk&columns=framework",
        f"/map/{IBSA}",
        f"/map/{HIRING}?framework=us-m-25-21",
        "/maps",
        "/argument",
    ],
)
def test_pages_need_no_other_host_and_link_to_what_is_behind(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert "<script" not in answer.text
    assert 'src="http' not in answer.text
    assert "/v1/" in answer.text or "/map/" in answer.text
