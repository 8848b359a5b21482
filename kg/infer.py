"""From what is asserted to what follows.

Three folders of SPARQL rules, run in their order: what accepted codings give rise to;
the OWL 2 RL rules that this ontology's axioms use, to a fixed point (W3C OWL 2 Profiles,
section 4.3); and what is computed from the closed graph (orientation, validity, labels).
The rules are files, so that an analyst can read and change them; ``owlrl`` is the
reference they are tested against, and too slow for every build.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pyoxigraph import BlankNode, NamedNode, Quad, QuerySolutions, Store, Triple

from kg.content import ontology_dir
from kg.errors import BuildError
from kg.namespaces import GRAPH, STRATA, sparql_prologue

DERIVED = NamedNode(GRAPH.derived)
_RDF_TYPE = "http://www.w3.org/1999/02/22-rdf-syntax-ns#type"
_KEPT_PREDICATES = {
    "http://www.w3.org/2004/02/skos/core#notation",
    "http://www.w3.org/2000/01/rdf-schema#label",
}
_MAX_ROUNDS = 50


@dataclass(frozen=True)
class Contradiction:
    """Something that cannot be true of ``node`` if the ontology is right."""

    rule: str
    node: str
    message: str


def _rules(folder: str) -> list[Path]:
    return sorted(p for p in (ontology_dir() / "rules" / folder).glob("*.rq"))


def _as_update(rule: Path) -> str:
    text = rule.read_text(encoding="utf-8")
    update, n = re.subn(r"^CONSTRUCT\b", "INSERT", text, count=1, flags=re.MULTILINE)
    if n != 1:
        raise BuildError(f"{rule}: a rule is one CONSTRUCT query that starts a line. Correct it.")
    return sparql_prologue() + update


def _run(store: Store, rule: Path) -> None:
    try:
        store.update(_as_update(rule))
    except SyntaxError as error:
        raise BuildError(f"{rule}: {error}. Correct the rule and build again.") from error


def _worth_keeping(triple: Triple) -> bool:
    """Inferred statements in this project's own terms; bookkeeping of the rules stays out."""
    if isinstance(triple.subject, BlankNode) or isinstance(triple.object, BlankNode):
        return False
    predicate = triple.predicate.value
    if predicate == _RDF_TYPE:
        return isinstance(triple.object, NamedNode) and triple.object.value.startswith(str(STRATA))
    return predicate.startswith(str(STRATA)) or predicate in _KEPT_PREDICATES


def infer(quads: Iterable[Quad]) -> tuple[list[Quad], list[Contradiction]]:
    """Everything that follows from ``quads``, in the graph of derived statements.

    Returns:
        The derived quads, without what was asserted already, and the contradictions
        found: empty for a consistent graph.

    Raises:
        BuildError: a rule is malformed, or the rules do not come to rest.
    """
    store = Store()
    store.bulk_extend(Quad(q.subject, q.predicate, q.object) for q in quads if q.graph_name != _SHAPES)
    asserted = {q.triple for q in store}
    for rule in _rules("1-from-codings"):
        _run(store, rule)
    _close(store)
    for rule in _rules("3-computed"):
        _run(store, rule)
    _close(store)
    derived = [
        Quad(t.subject, t.predicate, t.object, DERIVED)
        for t in (q.triple for q in store)
        if t not in asserted and _worth_keeping(t)
    ]
    return derived, _contradictions(store)


def run_rules(store: Store, names: Iterable[str]) -> None:
    """Run the computed rules of these names, in the order given, on the default graph of a store.

    Raises:
        BuildError: a rule is missing or malformed.
    """
    known = {r.stem: r for r in _rules("3-computed")}
    for name in names:
        if name not in known:
            raise BuildError(f"There is no rule {name} in rules/3-computed. Correct the name.")
        _run(store, known[name])


_SHAPES = NamedNode(GRAPH.shapes)


def _close(store: Store) -> None:
    rules = [r for r in _rules("2-owl-rl") if not r.name.startswith("false-")]
    for _ in range(_MAX_ROUNDS):
        before = len(store)
        for rule in rules:
            _run(store, rule)
        if len(store) == before:
            return
    raise BuildError(
        f"The OWL rules did not come to rest in {_MAX_ROUNDS} rounds. Look for a rule that makes new nodes."
    )


def _contradictions(store: Store) -> list[Contradiction]:
    found: list[Contradiction] = []
    for rule in _rules("2-owl-rl"):
        if not rule.name.startswith("false-"):
            continue
        text = rule.read_text(encoding="utf-8")
        message = re.search(r"^#\+ message: (.*)$", text, flags=re.MULTILINE)
        rows = store.query(sparql_prologue() + text)
        assert isinstance(rows, QuerySolutions)
        for row in rows:
            what = message.group(1) if message else "contradicts the ontology"
            node = str(getattr(row["node"], "value", row["node"]))
            found.append(Contradiction(rule.stem, node, f"{what}: {row['other']} and {row['third']}"))
    return sorted(set(found), key=lambda c: (c.rule, c.node, c.message))
