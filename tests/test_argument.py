"""The argument: measures that can come out either way, and how sure they are."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from kg import cli
from kg.argument import argue, claims, measured, measures, results
from kg.queries import NamedQuery, all_queries, answer_of, ask
from kg.store import EmbeddedStore

Get = Callable[..., Any]


def row(
    holds: int,
    *,
    scope: int = 1,
    force: str = "binding",
    provision: str = "a",
    options: list[str] | None = None,
    confidence: str = "",
) -> dict[str, Any]:
    return {
        "framework": "x",
        "provision": provision,
        "force": force,
        "scope": scope,
        "scope_options": [],
        "scope_confidence": None,
        "holds": holds,
        "holds_options": options or [],
        "holds_confidence": confidence,
    }


@pytest.fixture(scope="module")
def query() -> NamedQuery:
    return all_queries()["limitation-4a"]  # supports above 0.5, contradicts below 0.25


def test_four_and_four_each_with_a_measure() -> None:
    kinds = [c["kind"] for c in claims().values()]
    assert kinds == ["limitation"] * 4 + ["recommendation"] * 4
    for name in claims():
        assert measures(name)
        for m in measures(name):
            assert {"measure", "rationale", "supports", "contradicts", "limits"} <= m.about.keys()


def test_a_verdict_can_come_out_either_way(query: NamedQuery) -> None:
    assert measured(query, "x", [row(1), row(1), row(0)]).verdict == "supports"
    assert measured(query, "x", [row(0)] * 9 + [row(1)]).verdict == "contradicts"
    assert measured(query, "x", [row(1), row(0), row(0)]).verdict == "undecided"
    assert measured(query, "x", [row(1, scope=0)]).verdict == "no-norms"


def test_uncontested_codings_have_no_interval(query: NamedQuery) -> None:
    m = measured(query, "x", [row(1), row(0)])
    assert m.share == m.low == m.high == 0.5


def test_contested_codings_move_the_share_and_the_same_seed_gives_the_same_interval(query: NamedQuery) -> None:
    rows = [row(1, options=["0"], confidence="low") for _ in range(40)]
    m = measured(query, "x", rows)
    assert m.share == m.high == 1.0
    assert m.low is not None
    assert 0.2 < m.low < 0.7
    assert measured(query, "x", rows) == m
    sure = measured(query, "x", [row(1, options=["0"], confidence="high") for _ in range(40)])
    assert sure.low is not None
    assert sure.low > m.low


def test_a_conclusion_that_flips_is_reported(query: NamedQuery) -> None:
    # Six of ten norms pass, but all six stand in one provision: counted by provision, one of five.
    rows = [row(1, provision="a") for _ in range(6)] + [row(0, provision=f"b{n}") for n in range(4)]
    m = measured(query, "x", rows)
    assert m.verdict == "supports"
    assert "by_provision: contradicts" in m.flips
    # Weighted by force, the two binding norms that fail weigh more than the three voluntary ones that pass.
    weighed = measured(query, "x", [row(0), row(0), *[row(1, force="voluntary", provision=f"c{n}") for n in range(3)]])
    assert weighed.by_force == pytest.approx(1 / 3)
    assert "by_force: undecided" in weighed.flips


def test_one_coding_that_decides_both_is_drawn_once(store: EmbeddedStore) -> None:
    together = all_queries()["limitation-1b"]
    rows = [row(0, scope=0, options=["1"], confidence="low"), row(1)]
    m = measured(together, "x", rows)
    assert (m.share, m.low, m.high) == (1.0, 1.0, 1.0)  # in scope it passes, out of scope it does not count


@pytest.mark.parametrize("name", [q for q in all_queries() if all_queries()[q].about])
def test_each_norm_is_counted_once_in_a_measure(store: EmbeddedStore, name: str) -> None:
    rows = ask(store, name, {}).table.rows
    assert rows
    assert len({r["iri"] for r in rows}) == len(rows)
    assert {r["holds"] for r in rows} <= {0, 1}
    assert {o for r in rows for o in (*r["holds_options"], *r["scope_options"])} <= {"0", "1", "x"}


def test_measures_agree_with_the_orientation_query(store: EmbeddedStore) -> None:
    """Two queries written apart give the same shares."""
    profile = {r["framework"]: r for r in answer_of(store, "orientation")}
    for name, column in (("limitation-1a", "relational_share"), ("limitation-3a", "technocratic_reliance")):
        for m in results(store, all_queries()[name], {}):
            assert m.share == pytest.approx(profile[m.framework][column], abs=1e-4), (name, m.framework)


def test_the_norms_behind_a_share_are_one_request_away(get: Get) -> None:
    body = get("/v1/limitations", framework="nist-ai-rmf")
    assert [i["number"] for i in body["items"]] == [1, 2, 3, 4]
    for item in body["items"]:
        for m in item["measures"]:
            (result,) = m["results"]
            rows = get(f"/v1/queries/{m['name']}", framework="nist-ai-rmf", limit=1000)["items"]
            assert sum(r["scope"] for r in rows) == result["norms"]
            assert sum(r["holds"] for r in rows if r["scope"]) == result["passing"]
    assert body["how_sure"]["seed"]


def test_a_framework_that_does_not_part_makers_from_users_has_no_verdict_on_developers(get: Get) -> None:
    (two,) = [i for i in get("/v1/limitations", framework="nist-ai-rmf")["items"] if i["number"] == 2]
    assert {r["verdict"] for m in two["measures"] for r in m["results"]} == {"no-norms"}


def test_the_paper_is_not_credited_with_more_than_was_read(get: Get) -> None:
    for path in ("/v1/limitations", "/v1/recommendations"):
        assert all("not read" in i["source"] for i in get(path, framework="nist-ai-rmf")["items"])


def test_csv_and_command_line_give_the_same_numbers(
    client: TestClient, home: Path, monkeypatch: pytest.MonkeyPatch, store: EmbeddedStore
) -> None:
    answer = client.get("/v1/recommendations", params={"framework": "nist-ai-rmf", "format": "csv"})
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    monkeypatch.setenv("STRATA_HOME", str(home))
    said = CliRunner().invoke(cli.app, ["recommendations", "--framework", "nist-ai-rmf", "--format", "csv"])
    assert said.exit_code == 0
    mine = list(csv.DictReader(io.StringIO(said.stdout)))
    assert [(r["measure"], r["norms"], r["share"]) for r in rows] == [
        (r["measure"], r["norms"], r["share"]) for r in mine
    ]
    assert len(rows) == sum(len(i["measures"]) for i in argue(store, "recommendation", {"framework": ["nist-ai-rmf"]}))


def test_unknown_filters_are_refused(client: TestClient) -> None:
    answer = client.get("/v1/limitations", params={"framwork": "nist-ai-rmf"})
    assert answer.status_code == 422
    assert "framework" in answer.text
