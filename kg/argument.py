"""The argument that AI risk governance is model-centric, put to the graph.

Four limitations and four recommendations, each with one or two *measures*. A measure is a
named query tagged ``argument``: for every norm it says whether the norm counts (scope) and
whether it passes (holds), as coded and under each alternative that the coders recorded.
This module adds up: the share of passing norms, and how far it moves when contested
codings are resolved otherwise, when norms are weighted by force, and when provisions are
counted instead. A verdict that is not the same all along is reported as one that flips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any, Literal

import yaml

from kg.content import queries_dir
from kg.queries import NamedQuery, all_queries, ask
from kg.store import Store

DRAWS = 1000
SEED = 20261125
RESOLVED_OTHERWISE = {"high": 0.1, "medium": 0.35, "low": 0.5}
"""Chance that a contested coding is resolved to one of its alternatives, by its confidence."""
WEIGHTS = {"binding": 1.0, "expected": 2 / 3, "voluntary": 1 / 3, "stated-intention": 1 / 6}
"""What a norm of each force counts when norms are weighted."""

Kind = Literal["limitation", "recommendation"]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Measured:
    """One measure for one framework; shares lie between 0 and 1 and are None where no norm is in scope.

    ``low`` and ``high`` bound the share as coded and 95 % of the draws in which contested codings
    are resolved at random.
    """

    framework: str
    norms: int
    passing: int
    share: float | None
    low: float | None
    high: float | None
    by_force: float | None
    by_provision: float | None
    verdict: str
    flips: tuple[str, ...]


def claims() -> dict[str, dict[str, Any]]:
    """What each limitation and recommendation says, and of whom: ``argument.yaml`` beside the queries."""
    found: dict[str, dict[str, Any]] = yaml.safe_load((queries_dir() / "argument.yaml").read_text(encoding="utf-8"))
    return found


def measures(claim: str) -> list[NamedQuery]:
    """The measures of a claim, in the order of their names."""
    return [q for q in all_queries().values() if q.about.get("claim") == claim]


def _ratio(pairs: Sequence[tuple[float, float]]) -> float | None:
    whole = sum(weight for weight, _ in pairs)
    return sum(weight * passes for weight, passes in pairs) / whole if whole else None


def _verdict(query: NamedQuery, share: float | None) -> str:
    if share is None:
        return "no-norms"
    for name in ("supports", "contradicts"):
        rule = query.about[name]
        if share > rule.get("above", 2) or share < rule.get("below", -1):
            return name
    return "undecided"


def _drawn(row: Row, what: str, random: Random) -> int:
    options, coded = row[f"{what}_options"], int(row[what])
    if options and random.random() < RESOLVED_OTHERWISE[row[f"{what}_confidence"]]:
        return int(random.choice(options))
    return coded


def _draw(row: Row, random: Random, together: bool) -> tuple[int, int]:
    """Scope and outcome of one norm in one draw; ``x`` among the options takes it out of scope."""
    if not together:
        return _drawn(row, "scope", random), _drawn(row, "holds", random)
    options = row["holds_options"]
    if options and random.random() < RESOLVED_OTHERWISE[row["holds_confidence"]]:
        option = random.choice(options)
        return (0, 0) if option == "x" else (1, int(option))
    return int(row["scope"]), int(row["holds"])


def _interval(rows: Sequence[Row], share: float | None, together: bool) -> tuple[float | None, float | None]:
    """What 95 % of the draws lie within, widened to the share as coded where that lies outside: if coders
    mostly doubt in one direction, the draws do too. Norms that nobody contests are counted once, not drawn."""
    contested = [r for r in rows if r["scope_options"] or r["holds_options"]]
    sure = [r for r in rows if not (r["scope_options"] or r["holds_options"]) and r["scope"]]
    count, passing = len(sure), sum(int(r["holds"]) for r in sure)
    random, shares = Random(SEED), []
    for _ in range(DRAWS):
        drawn = [_draw(r, random, together) for r in contested]
        whole = count + sum(s for s, _ in drawn)
        if whole:
            shares.append((passing + sum(h for s, h in drawn if s)) / whole)
    if not shares or share is None:
        return None, None
    shares.sort()
    edge = round(len(shares) * 0.025)
    return min(share, shares[edge]), max(share, shares[-1 - edge])


def _by_provision(rows: Sequence[Row]) -> float | None:
    inside: dict[str, list[int]] = {}
    for r in rows:
        inside.setdefault(r["provision"], []).append(int(r["holds"]))
    return _ratio([(1.0, sum(h) / len(h)) for h in inside.values()])


def measured(query: NamedQuery, framework: str, rows: Sequence[Row]) -> Measured:
    """One measure for one framework.

    Args:
        query: the measure, with its thresholds.
        framework: framework id.
        rows: the answer of the query for that framework, one row a norm.
    """
    scope = [r for r in rows if r["scope"]]
    share = _ratio([(1.0, int(r["holds"])) for r in scope])
    low, high = _interval(rows, share, bool(query.about.get("together")))
    by_force = _ratio([(WEIGHTS[r["force"]], int(r["holds"])) for r in scope])
    by_provision = _by_provision(scope)
    verdict = _verdict(query, share)
    others = {"low": low, "high": high, "by_force": by_force, "by_provision": by_provision}
    flips = tuple(
        f"{name}: {_verdict(query, value)}" for name, value in others.items() if _verdict(query, value) != verdict
    )
    passing = sum(int(r["holds"]) for r in scope)
    return Measured(framework, len(scope), passing, share, low, high, by_force, by_provision, verdict, flips)


@lru_cache(maxsize=64)
def _results(store: Store, snapshot: str, name: str, given: tuple[tuple[str, tuple[str, ...]], ...]) -> list[Measured]:
    query = all_queries()[name]
    rows = ask(store, name, {k: list(v) for k, v in given}).table.rows
    by_framework: dict[str, list[Row]] = {}
    for r in rows:
        by_framework.setdefault(str(r["framework"]), []).append(r)
    return [measured(query, f, r) for f, r in sorted(by_framework.items())]


def results(store: Store, query: NamedQuery, given: Mapping[str, Sequence[str]]) -> list[Measured]:
    """A measure for every framework that the filters let through.

    Raises:
        BadParameters: unknown filters or values.
    """
    frozen = tuple(sorted((k, tuple(v)) for k, v in given.items()))
    return _results(store, store.snapshot, query.name, frozen)


def argue(store: Store, kind: Kind, given: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """All four limitations or recommendations, each with its measures and their results.

    Raises:
        BadParameters: unknown filters or values.
    """
    items = []
    for name, claim in claims().items():
        if claim["kind"] != kind:
            continue
        listed = [
            {
                "name": q.name,
                "measure": q.about["measure"],
                "question": q.question,
                "rule": q.description,
                "rationale": q.about["rationale"],
                "supports": q.about["supports"],
                "contradicts": q.about["contradicts"],
                "limits": q.about["limits"],
                "results": [vars(m) | {"flips": list(m.flips)} for m in results(store, q, given)],
            }
            for q in measures(name)
        ]
        items.append({"claim": name, **{k: v for k, v in claim.items() if k != "kind"}, "measures": listed})
    return items


def flat(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each measure and framework, for tables."""
    return [
        {"claim": i["claim"], "measure": m["name"], "what": m["measure"], **r}
        for i in items
        for m in i["measures"]
        for r in m["results"]
    ]
