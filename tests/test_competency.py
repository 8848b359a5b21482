"""Competency questions: answers read from the sources by hand, asked of the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Get = Callable[..., Any]
EU = "eu-ai-act"


def paths(get: Get, **filters: Any) -> set[str]:
    rows = get("/v1/norms", limit=1000, **filters)["items"]
    return {r["path"].rsplit("/norm-", 1)[0] for r in rows}


def one(get: Get, path: str, **more: Any) -> Any:
    return get(f"/v1/norms/{path}", **more)


# ------------------------------------------------------------------ what is in the graph


def test_nist_core_is_whole(get: Get) -> None:
    units = get("/v1/frameworks/nist-ai-rmf")["units"]
    assert (units["function"], units["category"], units["subcategory"]) == (4, 19, 72)


def test_every_subcategory_is_a_coded_norm(get: Get) -> None:
    # Tables 1 to 4 of NIST AI 100-1: GOVERN 19, MAP 18, MEASURE 22, MANAGE 13.
    rows = get("/v1/norms", framework="nist-ai-rmf", limit=1000)["items"]
    count = {f: sum(r["path"].startswith(f) for r in rows) for f in ("govern", "map", "measure", "manage")}
    assert count == {"govern": 19, "map": 18, "measure": 22, "manage": 13}
    for row in rows:
        path = row["path"].rsplit("/", 1)[0]
        found = get(f"/v1/provisions/nist-ai-rmf/{path}")
        assert [n["relation"] for n in found["norms"]] == ["states"]
        assert row["points"]
        assert row["kind"] == "recommendation"


def test_ledger_counts_units_against_the_source(get: Get) -> None:
    rows = get("/v1/ledger", framework=EU)["items"]
    source = {(r["version"].rpartition("/")[2], r["type"]): r["source"] for r in rows}
    assert source["2024-07-12", "article"] == 113
    assert source["2026-07-27", "article"] == 119
    assert source["2024-07-12", "annex"] == 13
    assert source["2026-07-27", "annex"] == 14
    assert source["2024-07-12", "recital"] == 180
    for r in rows:
        assert r["with_norm"] + r["without_norm"] == r["encoded"] <= r["source"]


def test_nist_ledger_has_no_hole(get: Get) -> None:
    for r in get("/v1/ledger", framework="nist-ai-rmf")["items"]:
        assert r["encoded"] == r["source"], r


@pytest.mark.parametrize(
    ("article", "units_2024", "units_2026"),
    [
        ("art_5", 27, 35),
        ("art_10", 21, 14),
        ("art_16", 13, 13),
        ("art_26", 21, 21),
        ("art_27", 12, 12),
        ("art_43", 18, 19),
        ("art_50", 9, 9),
        ("art_73", 14, 14),
        ("art_99", 29, 31),
        ("anx_III", 34, 34),
        ("art_3", 80, 82),
    ],
)
def test_units_of_an_article_in_both_states(get: Get, article: str, units_2024: int, units_2026: int) -> None:
    for day, expected in (("2026-01-01", units_2024), ("2026-11-23", units_2026)):
        below = get("/v1/provisions", framework=EU, under=article, known_on=day, limit=1000)["total"]
        assert below + 1 == expected, day


# ------------------------------------------------------------------ who must do what


def test_duties_of_deployers(get: Get) -> None:
    rows = get("/v1/norms", framework=EU, bearer="deployer", limit=1000)["items"]
    found = {r["path"].rsplit("/norm-", 1)[0] for r in rows}
    article_26 = {
        "art_26/par_1", "art_26/par_2", "art_26/par_4", "art_26/par_5", "art_26/par_6", "art_26/par_6/sub_2",
        "art_26/par_7", "art_26/par_8", "art_26/par_9", "art_26/par_10", "art_26/par_10/sub_2", "art_26/par_10/sub_3",
        "art_26/par_10/sub_5", "art_26/par_10/sub_6", "art_26/par_11", "art_26/par_12",
    }  # fmt: skip
    article_27 = {"art_27/par_1", "art_27/par_2", "art_27/par_3", "art_27/par_4"}
    article_50 = {"art_50/par_3", "art_50/par_4", "art_50/par_4/sub_2"}
    assert {p for p in found if p.startswith("art_26/")} == article_26
    assert {p for p in found if p.startswith("art_27/")} == article_27
    assert article_50 <= found
    assert all("deployer" in r["bearer"] for r in rows)
    # None of a provider's: the requirements of Articles 8 to 22 bind others.
    assert not {p for p in found if p.split("/")[0] in {f"art_{n}" for n in (*range(8, 23), 43, 53, 55, 72)}}


def test_what_importers_must_verify_before_placing_on_the_market(get: Get) -> None:
    found = paths(get, framework=EU, bearer="importer")
    assert {f"art_23/par_1/pnt_{x}" for x in "abcd"} <= found  # conformity, documents, marking, representative


def test_who_must_assess_fundamental_rights_impact_and_when(get: Get) -> None:
    norm = one(get, "eu-ai-act/art_27/par_1/norm-1")
    assert norm["bearer"] == ["deployer"]
    assert norm["category"] == ["high-risk-annex-iii"]
    assert norm["instrument"] == "impact-assessment"
    assert norm["applies_from"] == "2027-12-02"
    parts = {f["value"].rpartition("/")[2] for f in norm["facts"] if f["property"] == "elaboratedIn"}
    assert {f"pnt_{x}" for x in "abcdef"} <= parts
    assert any("Annex III" in f["value"] for f in norm["facts"] if f["property"] == "exception")


@pytest.mark.parametrize(("path", "days"), [("art_73/par_2", 15), ("art_73/par_3", 2), ("art_73/par_4", 10)])
def test_deadlines_of_serious_incident_reports(get: Get, path: str, days: int) -> None:
    # Art. 73(2): 15 days; 73(3), widespread infringement or critical infrastructure: 2; 73(4), death: 10.
    norms = get(f"/v1/provisions/{EU}/{path}")["norms"]
    found = set()
    for n in norms:
        facts = one(get, f"{EU}/{n['path']}")["facts"]
        found |= {int(f["value"]) for f in facts if f["property"] == "deadlineDays"}
    assert found == {days}


@pytest.mark.parametrize(
    ("norm", "fine"),
    [
        ("art_26/par_2/norm-1", "art_99/par_4/pnt_e"),
        ("art_5/par_1/pnt_a/norm-1", "art_99/par_3"),
        ("art_50/par_4/norm-1", "art_99/par_4/pnt_g"),
        ("art_16/pnt_b/norm-1", "art_99/par_4/pnt_a"),
        ("art_9/par_1/norm-1", "art_99/par_4/pnt_a"),
    ],
)
def test_fine_tier_of_a_duty(get: Get, norm: str, fine: str) -> None:
    facts = one(get, f"{EU}/{norm}")["facts"]
    assert fine in {
        f["value"].removeprefix(f"https://w3id.org/strata/id/{EU}/") for f in facts if f["property"] == "enforcedBy"
    }


def test_umbrella_norms_are_left_out_unless_asked(get: Get) -> None:
    assert "art_16/pnt_a" not in paths(get, framework=EU)
    assert "art_16/pnt_a" in paths(get, framework=EU, restating="only")
    whole = get("/v1/norms", framework=EU, restating="include")["total"]
    without = get("/v1/norms", framework=EU)["total"]
    assert whole - without == get("/v1/norms", framework=EU, restating="only")["total"] > 0


# ------------------------------------------------------------------ from when


def test_image_based_sexual_abuse_through_time(get: Get) -> None:
    risk = {"framework": EU, "risk": "image-based-sexual-abuse", "kind": "prohibition"}
    assert paths(get, **risk, as_of="2026-11-23") == set()
    assert paths(get, **risk, as_of="2026-12-02") == {"art_5/par_1/pnt_ba"}
    assert paths(get, **risk, as_of="2026-12-02", known_on="2026-01-01") == set()


@pytest.mark.parametrize(
    ("known_on", "category", "day"),
    [
        ("2026-01-01", "high-risk-annex-iii", "2026-08-02"),
        ("2026-01-01", "high-risk-annex-i", "2027-08-02"),
        ("2026-11-23", "high-risk-annex-iii", "2027-12-02"),
        ("2026-11-23", "high-risk-annex-i", "2028-08-02"),
    ],
)
def test_oversight_applies_by_route_and_state_of_the_law(get: Get, known_on: str, category: str, day: str) -> None:
    rows = get("/v1/norms", framework=EU, known_on=known_on, category=category, limit=1000)["items"]
    assert next(r for r in rows if r["path"] == "art_26/par_2/norm-1")["applies_from"] == day


@pytest.mark.parametrize(
    ("day", "applying", "not_applying"),
    [
        ("2025-02-01", [], ["art_4", "art_5/par_1/pnt_a", "art_53/par_1/pnt_a"]),
        ("2025-02-02", ["art_4", "art_5/par_1/pnt_a"], ["art_53/par_1/pnt_a", "art_50/par_1"]),
        ("2025-08-02", ["art_5/par_1/pnt_a", "art_53/par_1/pnt_a", "art_99/par_1"], ["art_50/par_1", "art_26/par_2"]),
        ("2026-08-02", ["art_50/par_1", "art_26/par_2", "art_86/par_1"], []),
    ],
)
def test_what_applied_as_seen_from_2026_01(get: Get, day: str, applying: list[str], not_applying: list[str]) -> None:
    found = paths(get, framework=EU, known_on="2026-01-01", as_of=day)
    assert set(applying) <= found
    assert not set(not_applying) & found


@pytest.mark.parametrize(
    ("day", "applying", "not_applying"),
    [
        ("2026-08-02", ["art_50/par_1", "art_53/par_1/pnt_a"], ["art_26/par_2", "art_5/par_1/pnt_ba"]),
        ("2026-12-02", ["art_5/par_1/pnt_ba", "art_5/par_1/pnt_bb"], ["art_26/par_2", "art_9/par_1"]),
        ("2027-12-02", ["art_26/par_2", "art_9/par_1", "art_27/par_1"], []),
    ],
)
def test_what_applies_as_seen_from_today(get: Get, day: str, applying: list[str], not_applying: list[str]) -> None:
    found = paths(get, framework=EU, known_on="2026-11-23", as_of=day)
    assert set(applying) <= found
    assert not set(not_applying) & found


def test_letter_and_effect_are_kept_apart(get: Get) -> None:
    # Art. 86 stands outside Chapter III: by the letter it applies from 2 August 2026 in either state.
    records = one(get, "eu-ai-act/art_86/par_1/norm-1")["applications"]
    now = next(r for r in records if r["known_from"] == "2026-07-27")
    assert (now["applies_from"], now["effective_from"]) == ("2026-08-02", "2027-12-02")
    assert now["effective_reason"]


def test_sensitive_data_permission_moved_to_article_4a(get: Get) -> None:
    assert one(get, "eu-ai-act/art_10/par_5/norm-1")["stands"] is False
    facts = one(get, "eu-ai-act/art_4a/par_1/norm-1")["facts"]
    assert {"art_10/par_5/norm-1"} == {f["value"].split(f"{EU}/")[1] for f in facts if f["property"] == "replaces"}


def test_what_the_amendment_added_and_changed(get: Get) -> None:
    rows = get("/v1/compare", left="eu-ai-act@2026-01-01", right="eu-ai-act@2026-11-23", limit=1000)["items"]
    by = {
        s: {r["right_path"].rsplit("/norm", 1)[0] for r in rows if r["status"] == s}
        for s in ("added", "changed", "moved")
    }
    assert {"art_5/par_1/pnt_ba", "art_5/par_1/pnt_bb", "art_4/par_3", "art_111/par_4"} <= by["added"]
    assert {"art_4/par_1", "art_4a/par_1", "art_72/par_3", "art_99/par_1"} <= by["changed"]
    assert "art_26/par_2" in by["moved"]
    assert "art_53/par_1/pnt_a" not in by["moved"]


# ------------------------------------------------------------------ where it acts


def test_orientation_has_denominators_and_intervals(get: Get) -> None:
    for r in get("/v1/orientation")["items"]:
        assert r["model_centric"] + r["technical_system"] + r["sociotechnical"] == r["norms"]
        assert r["model_centric_low"] <= r["model_centric_share"] <= r["model_centric_high"]
        assert r["sociotechnical_low"] <= r["sociotechnical_share"] <= r["sociotechnical_high"]


@pytest.mark.parametrize(
    ("norm", "orientation", "point"),
    [
        ("eu-ai-act/art_26/par_2/norm-1", "sociotechnical", "human-oversight"),
        ("eu-ai-act/art_55/par_1/pnt_a/norm-1", "model-centric", "model-evaluation"),
        ("eu-ai-act/art_12/par_1/norm-1", "technical-system", "technical-monitoring"),
    ],
)
def test_orientation_of_norms(get: Get, norm: str, orientation: str, point: str) -> None:
    found = one(get, norm)
    assert (found["orientation"], found["main_point"]) == (orientation, point)


def test_every_coding_gives_its_reason(get: Get) -> None:
    codings = one(get, "eu-ai-act/art_27/par_1/norm-1")["codings"]
    expected = ["point", "risk", "harm", "logic", "instrument", "relationality", "stage"]
    assert [c["dimension"] for c in codings] == expected
    assert all(len(c["rationale"]) > 25 and c["confidence"] in ("high", "medium", "low") for c in codings)


# ------------------------------------------------------------------ authorities, remedies and the amendment of 2026


@pytest.mark.parametrize(
    ("provision", "kind", "bearer"),
    [
        ("art_85", "right", None),  # any person may complain to market surveillance
        ("art_37/par_4", "power", "eu-commission-rulemaker"),  # the Commission may end a designation itself
        ("art_46/par_1", "power", "eu-market-surveillance-authority"),
        ("art_74/par_13", "power", "eu-market-surveillance-authority"),  # access to source code
        ("art_100/par_1", "power", "eu-edps"),
        ("art_75b", "power", "eu-ai-office"),
        ("art_59/par_1", "permission", "eu-provider"),
        ("art_64/par_2", "obligation", "eu-member-state"),
    ],
)
def test_what_a_provision_gives_and_to_whom(get: Get, provision: str, kind: str, bearer: str | None) -> None:
    norms = get(f"/v1/provisions/{EU}/{provision}")["norms"]
    rows = [one(get, f"{EU}/{n['path']}") for n in norms if n["relation"] == "states"]
    assert any(r["kind"] == kind and (bearer is None or bearer in r["bearer_source"]) for r in rows)


def facts(get: Get, path: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for f in one(get, f"{EU}/{path}")["facts"]:
        found.setdefault(f["property"], []).append(f["value"])
    return found


@pytest.mark.parametrize(
    ("norm", "days"),
    [("art_36/par_5/norm-1", 10), ("art_75/par_3/norm-2", 30), ("art_52/par_1/norm-1", 14)],
)
def test_terms_in_days(get: Get, norm: str, days: int) -> None:
    assert facts(get, norm)["deadlineDays"] == [days] or facts(get, norm)["deadlineDays"] == [str(days)]


@pytest.mark.parametrize(
    ("norm", "day"),
    [
        ("art_70/par_2/norm-2", "2025-08-02"),
        ("art_96/par_1/pnt_g/norm-1", "2027-08-01"),
        ("art_112/par_3/norm-1", "2029-08-02"),
        ("art_112/par_13/norm-1", "2031-08-02"),
    ],
)
def test_terms_by_date(get: Get, norm: str, day: str) -> None:
    assert facts(get, norm)["deadlineDate"] == [day]


@pytest.mark.parametrize(
    ("norm", "known_on", "from_day"),
    [
        ("art_31/par_4/norm-1", "2026-01-01", "2025-08-02"),  # Chapter III Section 4: Art. 113(b)
        ("art_101/par_2/norm-1", "2026-01-01", "2026-08-02"),  # Art. 101 is excepted there
        ("art_74/par_12/norm-1", "2026-11-23", "2026-08-02"),
        ("art_78/par_1/norm-1", "2026-11-23", "2025-08-02"),
        ("art_75b/norm-1", "2026-11-23", "2026-08-02"),  # inserted, general date
    ],
)
def test_from_when_enforcement_applies(get: Get, norm: str, known_on: str, from_day: str) -> None:
    assert one(get, f"{EU}/{norm}", known_on=known_on)["applies_from"] == from_day


def test_exclusive_supervision_by_the_ai_office_is_new(get: Get) -> None:
    before = get("/v1/norms", framework=EU, bearer="eu-ai-office", q="alone", known_on="2026-07-26")
    after = get("/v1/norms", framework=EU, bearer="eu-ai-office", q="alone", known_on="2026-07-27")
    assert before["total"] == 0
    assert [r["path"] for r in after["items"]] == ["art_75/par_1/norm-2"]


def test_smaller_firms_that_may_simplify_quality_management(get: Get) -> None:
    for day, text in (("2026-01-01", "microenterprise"), ("2026-11-23", "SME")):
        found = get("/v1/norms", framework=EU, kind="permission", q="quality management system", known_on=day)["items"]
        path = next(r["path"] for r in found if r["path"].startswith("art_63/"))
        assert text in " ".join(facts(get, path)["condition"])


def test_annexes_hang_on_the_norms_they_fill_in(get: Get) -> None:
    for annex, article in (("anx_IV", "art_11"), ("anx_V", "art_47"), ("anx_VI", "art_43"), ("anx_XII", "art_53")):
        norms = get(f"/v1/provisions/{EU}/{annex}")["norms"]
        assert any(n["path"].startswith(article) and n["relation"] != "states" for n in norms), annex


SUCCESSION = [  # read by hand in both memoranda
    ("sec_3/a/i/norm-1", "sec_3/a/i/norm-1", "kept"),  # a Chief AI Officer within 60 days
    ("sec_3/a/i/norm-3", "sec_3/a/i/norm-3", "kept"),  # 30 days to tell OMB of a vacancy
    ("sec_3/a/ii/norm-1", "sec_3/a/ii/norm-1", "weakened"),  # 60 days became 90
    ("sec_3/a/iii/norm-1", "sec_3/b/ii/norm-1", "kept"),  # compliance plan, every two years until 2036
    ("sec_3/a/iv/norm-1", "sec_3/b/v/norm-1", "kept"),  # yearly inventory
    ("sec_3/b/iii/norm-1", "sec_3/a/i/norm-2", "weakened"),  # GS-15 became GS-14
    ("sec_3/b/ii/J/norm-1", None, "dropped"),  # equity and inclusion
    ("sec_4/a/norm-1", "sec_2/a/norm-2", "strengthened"),  # strategy in 180 days, not 365
    ("sec_5/a/ii/norm-1", "sec_4/a/ii/norm-2", "weakened"),  # yearly certification of waivers only
    ("sec_5/b/norm-5", "sec_4/a/norm-3", "weakened"),  # 30 days became: on request
    ("sec_5/c/ii/norm-1", None, "dropped"),  # extensions
    ("sec_5/c/iii/norm-1", "sec_4/a/ii/norm-1", "kept"),  # waivers by the Chief AI Officer
    ("sec_5/c/iii/norm-4", "sec_4/a/iii/norm-3", "kept"),  # reported within 30 days
    ("sec_5/c/iv/A/norm-1", "sec_4/b/ii/norm-1", "strengthened"),  # impact assessment: seven contents, not three
    ("sec_5/c/iv/A/norm-2", "sec_4/b/ii/norm-2", "strengthened"),  # updating it: should became must
    ("sec_5/c/iv/B/norm-4", "sec_4/b/i/norm-3", "kept"),  # tests where code is closed
    ("sec_5/c/iv/D/norm-3", None, "dropped"),  # AI-specific exploits
    ("sec_5/c/iv/G/norm-2", "sec_4/b/iv/norm-2", "kept"),  # periodic training
    ("sec_5/c/iv/H/norm-1", "sec_4/b/v/norm-1", "kept"),  # human oversight
    ("sec_5/c/iv/I/norm-2", None, "dropped"),  # notice to those who meet the AI
    ("sec_5/c/v/B/norm-1", None, "dropped"),  # consultation of affected communities
    ("sec_5/c/v/D/norm-1", None, "dropped"),  # notice of adverse decisions
    ("sec_5/c/v/F/norm-1", None, "dropped"),  # opt-out
    ("sec_5/d/vii/B/norm-1", None, "dropped"),  # red-teaming of generative AI
    (None, "sec_2/c/norm-1", "added"),  # buy American
    (None, "sec_3/a/i/J/norm-1", "added"),  # tracking of AI spending
]


def test_what_became_of_m_24_10(get: Get) -> None:
    rows = get("/v1/compare", left="us-m-24-10@2025-01-01", right="us-m-25-21", limit=1000)["items"]
    found = {(r["left_path"], r["right_path"], r["status"]) for r in rows}
    assert [row for row in SUCCESSION if row not in found] == []
    assert all(r["why"] for r in rows)
    assert not {r["status"] for r in rows} & {"left-only", "right-only", "mapped"}
    assert all(r["left_locator"] for r in rows if r["status"] != "added")
    assert all(r["right_locator"] for r in rows if r["status"] != "dropped")


def test_a_verdict_on_succession_is_kept_to_its_pair(get: Get) -> None:
    rows = get("/v1/compare", left="us-m-24-10@2025-01-01", right="nist-ai-rmf", limit=1000)["items"]
    assert {r["status"] for r in rows} == {"left-only", "right-only"}
    back = get("/v1/compare", left="us-m-25-21", right="us-m-24-10@2025-01-01", limit=1000)["items"]
    assert ("sec_2/c/norm-1", None, "added") in {(r["left_path"], r["right_path"], r["status"]) for r in back}
