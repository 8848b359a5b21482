"""A user's own system map, laid over the frameworks without touching what is served.

A map comes as Turtle in the terms of the ontology, as JSON (or YAML), or as CSV with one
component a row. It is checked by the same shapes as the maps of this repository, all
errors at once, and then asked the same named queries on a scratch graph that holds the map
and what of the frameworks these queries need.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

import yaml
from pyoxigraph import Literal, NamedNode, Quad, RdfFormat, parse
from pyoxigraph import Store as Oxigraph

from kg.content import ontology_dir
from kg.errors import BadParameter, StrataError
from kg.infer import run_rules
from kg.load import Source, parse_source
from kg.namespaces import GRAPH, STRATA, VOCAB
from kg.queries import ask
from kg.store import MemoryStore, Store

FORMATS = ("ttl", "json", "csv")
MAX_BYTES = 512 << 10
MAX_THINGS = 2000
MAX_NORMS = 2000
_BASE = "https://w3id.org/strata/id/case/yours"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_RDFS = "http://www.w3.org/2000/01/rdf-schema#"
_SKOS = "http://www.w3.org/2004/02/skos/core#"
_DCTERMS = "http://purl.org/dc/terms/"
_SUBMITTED = NamedNode(GRAPH.submitted)
_FILTERS = ("framework", "known_on", "as_of", "kind", "bearer", "logic", "instrument", "force")
_RULES = ("13-case-notation", "70-meets", "71-meets-category", "72-reach-directly", "73-reach-generally")


@dataclass(frozen=True)
class MapError:
    """One thing wrong with a map: line counting from 1 where known, node, rule and remedy."""

    line: int | None
    node: str
    rule: str
    remedy: str

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return f"{where}{self.node}: {self.remedy} [{self.rule}]"


class MapErrors(StrataError):
    """All that is wrong with a map."""

    def __init__(self, errors: Sequence[MapError]) -> None:
        self.errors = sorted(errors, key=lambda e: (e.line or 0, e.node, e.rule))
        super().__init__("\n".join(map(str, self.errors)))


@dataclass(frozen=True)
class Checked:
    """What a sound map gives: its rows of ``case-gaps`` and ``case-norms``, and counts by framework and class.

    ``norms`` is cut at :data:`MAX_NORMS`; ``norms_total`` says how many there are.
    """

    title: str
    gaps: list[dict[str, Any]]
    norms: list[dict[str, Any]]
    norms_total: int
    summary: dict[str, dict[str, int]]


@dataclass
class _Draft:
    """A map on its way to triples: statements, the line each node was read from, and errors so far."""

    quads: list[Quad] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)
    errors: list[MapError] = field(default_factory=list)

    def add(self, subject: str, predicate: str, value: NamedNode | Literal) -> None:
        self.quads.append(Quad(NamedNode(subject), NamedNode(predicate), value, _SUBMITTED))

    def wrong(self, line: int | None, node: str, rule: str, remedy: str) -> None:
        self.errors.append(MapError(line, node, rule, remedy))


# ------------------------------------------------------------------ reading


_Node = yaml.nodes.Node
_FIELDS: dict[str, dict[str, str]] = {
    "components": {
        "label": "text",
        "kind": "component-kind",
        "points": "point*",
        "roles": "role*",
        "definition": "text",
    },
    "links": {"from": "component", "relation": "link-relation", "to": "component", "note": "text"},
    "pathways": {"label": "text", "harms": "harm*", "hazard": "component*", "harmed": "component*", "steps": "steps"},
    "mitigations": {"label": "text", "at": "component*", "logic": "logic", "point": "point*", "rationale": "text"},
}
_TOP = ("id", "title", "description", "risks", "categories", "sources", "definitions", *_FIELDS)
_LOOSE = ("id", "source", "reading", "reading_why", "limits", "description", "risks")
_CLASS = {"components": "Component", "links": "Link", "pathways": "HarmPathway", "mitigations": "Mitigation"}
_PREDICATE = {
    ("components", "label"): _RDFS + "label",
    ("components", "kind"): STRATA.componentKind,
    ("components", "points"): STRATA.situatedAt,
    ("components", "roles"): STRATA.playsRole,
    ("components", "definition"): _SKOS + "definition",
    ("links", "from"): STRATA.linkFrom,
    ("links", "relation"): STRATA.relation,
    ("links", "to"): STRATA.linkTo,
    ("links", "note"): _SKOS + "note",
    ("pathways", "label"): _RDFS + "label",
    ("pathways", "harms"): STRATA.endsInHarm,
    ("pathways", "hazard"): STRATA.hazardAt,
    ("pathways", "harmed"): STRATA.harmedParty,
    ("mitigations", "label"): _RDFS + "label",
    ("mitigations", "at"): STRATA.atComponent,
    ("mitigations", "logic"): STRATA.mitigationLogic,
    ("mitigations", "point"): STRATA.actsAtPoint,
    ("mitigations", "rationale"): STRATA.works,
    ("steps", "label"): _RDFS + "label",
    ("steps", "at"): STRATA.atComponent,
    ("steps", "phase"): STRATA.phase,
}
_STEP = {"at": "component", "label": "text", "phase": "phase"}


def _line(node: _Node) -> int:
    return int(node.start_mark.line) + 1


def _items(draft: _Draft, node: _Node, what: str) -> Iterator[tuple[str, _Node, _Node]]:
    """Key, key node and value node of a mapping."""
    if not isinstance(node, yaml.MappingNode):
        draft.wrong(_line(node), what, "map-structure", f"Write {what} as a mapping of names to values.")
        return
    for key, value in node.value:
        yield str(key.value), key, value


def _texts(draft: _Draft, node: _Node, what: str) -> list[tuple[str, int]]:
    nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
    found = []
    for n in nodes:
        if isinstance(n, yaml.ScalarNode):
            found.append((str(n.value), _line(n)))
        else:
            draft.wrong(_line(n), what, "map-structure", f"Write {what} as text, or as a list of texts.")
    return found


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-")[:80] or "unnamed"


def _component(name: str) -> str:
    return f"{_BASE}/component/{_slug(name)}"


def _value(kind: str, text: str) -> NamedNode | Literal:
    if kind == "text":
        return Literal(text, language="en")
    return NamedNode(_component(text) if kind == "component" else VOCAB[f"{kind}/{_slug(text)}"])


def _fields(draft: _Draft, iri: str, room: str, node: _Node, fields: Mapping[str, str]) -> None:
    for key, key_node, value in _items(draft, node, iri.removeprefix(_BASE + "/")):
        kind = fields.get(key)
        if kind is None:
            if key not in _LOOSE:
                valid = (*fields, *_LOOSE)
                near = get_close_matches(key, valid, n=1)
                hint = f" Did you mean {near[0]}?" if near else f" Valid: {', '.join(fields)}."
                draft.wrong(
                    _line(key_node), iri.removeprefix(_BASE + "/"), "map-field", f"Unknown field '{key}'.{hint}"
                )
            continue
        if kind == "steps":
            _steps(draft, iri, value)
            continue
        for position, (text, line) in enumerate(_texts(draft, value, key)):
            draft.add(iri, str(_PREDICATE[(room, key)]), _value(kind.rstrip("*"), text))
            draft.lines.setdefault(f"{iri} {text}", line)
            if (room, key, position) == ("components", "points", 0):
                draft.add(iri, str(STRATA.mainlySituatedAt), _value("point", text))


def _steps(draft: _Draft, pathway: str, node: _Node) -> None:
    if not isinstance(node, yaml.SequenceNode):
        draft.wrong(_line(node), pathway.removeprefix(_BASE + "/"), "map-structure", "Write steps as a list.")
        return
    for number, step in enumerate(node.value, 1):
        iri = f"{pathway}/step-{number}"
        draft.lines[iri] = _line(step)
        draft.add(iri, _RDF + "type", NamedNode(STRATA.PathwayStep))
        draft.add(iri, str(STRATA.stepOf), NamedNode(pathway))
        draft.add(iri, str(STRATA.order), Literal(number))
        _fields(draft, iri, "steps", step, _STEP)


def _things(draft: _Draft, room: str, node: _Node) -> Iterator[tuple[str, _Node, _Node]]:
    """Name, place and body of each thing in a room: a mapping by name, or a list with ids."""
    if isinstance(node, yaml.MappingNode):
        yield from ((str(k.value), k, v) for k, v in node.value)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value, 1):
            ids = [str(v.value) for k, v in item.value if k.value == "id"] if isinstance(item, yaml.MappingNode) else []
            yield ids[0] if ids else str(number), item, item
    else:
        draft.wrong(_line(node), room, "map-structure", f"Write {room} as a mapping by name, or as a list with ids.")


def _from_json(data: str) -> _Draft:
    draft = _Draft()
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        if any(isinstance(e, yaml.AliasEvent) for e in yaml.parse(data, Loader=loader)):
            raise MapErrors([MapError(None, "map", "map-syntax", "Aliases are not allowed. Write every value out.")])
        root = yaml.compose(data, Loader=loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = int(mark.line) + 1 if mark else None
        problem = getattr(error, "problem", None) or "not JSON"
        raise MapErrors([MapError(line, "map", "map-syntax", f"{problem}. Correct the syntax there.")]) from None
    if root is None:
        raise MapErrors([MapError(None, "map", "map-syntax", "The file is empty. Write a map with components.")])
    draft.lines[_BASE] = 1
    draft.add(_BASE, _RDF + "type", NamedNode(STRATA.SystemMap))
    for key, key_node, value in _items(draft, root, "map"):
        if key in ("title", "description"):
            for text, _ in _texts(draft, value, key):
                draft.add(_BASE, _DCTERMS + key, Literal(text, language="en"))
        elif key in ("risks", "categories"):
            kind, predicate = ("risk", STRATA.mapsRisk) if key == "risks" else ("category", STRATA.mapsCategory)
            for text, line in _texts(draft, value, key):
                draft.add(_BASE, str(predicate), _value(kind, text))
                draft.lines[f"{_BASE} {text}"] = line
        elif key in _FIELDS:
            for name, place, body in _things(draft, key, value):
                iri = f"{_BASE}/{_CLASS[key].lower() if key != 'pathways' else 'pathway'}/{_slug(name)}"
                if iri in draft.lines:
                    draft.wrong(
                        _line(place), iri.removeprefix(_BASE + "/"), "map-name", "This name is used twice. Rename one."
                    )
                draft.lines.setdefault(iri, _line(place))
                draft.add(iri, _RDF + "type", NamedNode(STRATA[_CLASS[key]]))
                if key != "mitigations":
                    draft.add(iri, str(STRATA.onMap), NamedNode(_BASE))
                _fields(draft, iri, key, body, _FIELDS[key])
        elif key not in _TOP:
            near = get_close_matches(key, _TOP, n=1)
            hint = f" Did you mean {near[0]}?" if near else f" Valid: {', '.join(_TOP)}."
            draft.wrong(_line(key_node), "map", "map-field", f"Unknown field '{key}'.{hint}")
    return draft


_CSV_COLUMNS = ("component", "label", "kind", "points", "roles", "risks", "categories")


def _from_csv(data: str) -> _Draft:
    """One component a row; lists in a cell are separated by spaces; risks and categories are gathered over all rows."""
    draft = _Draft()
    reader = csv.reader(io.StringIO(data, newline=""))
    try:
        rows = [(reader.line_num, row) for row in reader if any(c.strip() for c in row)]
    except csv.Error as error:
        raise MapErrors([MapError(reader.line_num, "map", "map-syntax", f"{error}. Correct the row.")]) from None
    header = [c.strip().lower() for c in rows[0][1]] if rows else []
    for name in header:
        if name not in _CSV_COLUMNS:
            near = get_close_matches(name, _CSV_COLUMNS, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            draft.wrong(1, "map", "map-field", f"Unknown column '{name}'.{hint} Valid: {', '.join(_CSV_COLUMNS)}.")
    for name in ("component", "points", "risks"):
        if name not in header:
            draft.wrong(1, "map", "map-field", f"The column '{name}' is missing. Add it to the first row.")
    draft.lines[_BASE] = 1
    draft.add(_BASE, _RDF + "type", NamedNode(STRATA.SystemMap))
    draft.add(_BASE, _DCTERMS + "title", Literal("Your map", language="en"))
    for line, row in rows[1:]:
        if len(row) > len(header):
            draft.wrong(
                line, "map", "map-structure", "The row has more cells than the first row. Quote cells with commas."
            )
        cells = {n: c.strip() for n, c in zip(header, row, strict=False)}
        if not cells.get("component"):
            draft.wrong(line, "map", "map-name", "The row names no component. Fill the column 'component'.")
            continue
        iri = _component(cells["component"])
        if iri in draft.lines:
            draft.wrong(line, iri.removeprefix(_BASE + "/"), "map-name", "This name is used twice. Rename one.")
        draft.lines.setdefault(iri, line)
        draft.add(iri, _RDF + "type", NamedNode(STRATA.Component))
        draft.add(iri, str(STRATA.onMap), NamedNode(_BASE))
        draft.add(iri, _RDFS + "label", Literal(cells.get("label") or cells["component"], language="en"))
        draft.add(iri, str(STRATA.componentKind), _value("component-kind", cells.get("kind") or "actor"))
        for position, point in enumerate(cells.get("points", "").split()):
            draft.add(iri, str(STRATA.situatedAt), _value("point", point))
            if position == 0:
                draft.add(iri, str(STRATA.mainlySituatedAt), _value("point", point))
        for role in cells.get("roles", "").split():
            draft.add(iri, str(STRATA.playsRole), _value("role", role))
        for column, kind, predicate in (
            ("risks", "risk", STRATA.mapsRisk),
            ("categories", "category", STRATA.mapsCategory),
        ):
            for text in cells.get(column, "").split():
                draft.add(_BASE, str(predicate), _value(kind, text))
                draft.lines.setdefault(f"{_BASE} {text}", line)
    return draft


def _from_turtle(data: str) -> _Draft:
    from kg.validate import find_line  # see kg.snapshot.build

    draft = _Draft()
    try:
        for q in parse(data, RdfFormat.TURTLE):
            draft.quads.append(Quad(q.subject, q.predicate, q.object, _SUBMITTED))
    except SyntaxError as error:
        raise MapErrors(
            [MapError(error.lineno, "map", "map-syntax", f"{error.msg}. Correct the syntax there.")]
        ) from None
    text = data.splitlines()
    for node in {q.subject.value for q in draft.quads if isinstance(q.subject, NamedNode)}:
        line = find_line(text, node, described=True)
        if line:
            draft.lines[node] = line
    return draft


# ------------------------------------------------------------------ checking


_ASKED = [
    "intervenesAt",
    "party",
    "concernsRisk",
    "addressesRisk",
    "triggeredBy",
    "framework",
    "force",
    "hasLogic",
    "mainlyUsesInstrument",
    "path",
    "action",
    "statedIn",
    "locator",
    "kind",
    "comprises",
    "validity",
    "knownFrom",
    "knownUntil",
    "appliesFrom",
    "appliesUntil",
    "effectiveFrom",
    "application",
    "inLayer",
    "order",
    "unreadPartOf",
    "mightConcern",
    "generalBearer",
    "borneBy",
    "restatesOutside",
    "usesInstrument",
]


@lru_cache(maxsize=2)
def _context(store: Store, snapshot: str) -> tuple[Quad, ...]:
    """What of the served graph a map is asked against: statements by the predicates that rules and queries use."""
    predicates = " ".join(f"<{STRATA[n]}>" for n in _ASKED)
    others = f"<{_SKOS}notation> <{_SKOS}broader> <{_RDF}type>"
    query = (
        "SELECT ?s ?p ?o (isIRI(?o) AS ?iri) (STR(DATATYPE(?o)) AS ?type) (LANG(?o) AS ?language) "
        f"WHERE {{ VALUES ?p {{ {predicates} {others} }} ?s ?p ?o FILTER(isIRI(?s) && !isBlank(?o)) }}"
    )
    quads = []
    for r in store.select(query).rows:
        term: NamedNode | Literal
        if r["iri"]:
            term = NamedNode(str(r["o"]))
        elif r["language"]:
            term = Literal(str(r["o"]), language=str(r["language"]))
        else:
            term = Literal(str(r["o"]), datatype=NamedNode(str(r["type"])))
        quads.append(Quad(NamedNode(str(r["s"])), NamedNode(str(r["p"])), term))
    # Maps that are served stay out of the answer about the user's own.
    served = {
        q.subject for q in quads if q.predicate.value == _RDF + "type" and q.object == NamedNode(STRATA.Component)
    }
    return tuple(q for q in quads if q.subject not in served)


@lru_cache(maxsize=1)
def _shapes() -> tuple[Quad, ...]:
    path = ontology_dir() / "shapes" / "case.ttl"
    return tuple(parse_source(Source(path, "ontology/shapes/case.ttl", NamedNode(GRAPH.shapes))))


def _nearest(remedy: str, known: Sequence[str]) -> str:
    """A remedy with the value that was found, and the nearest concept if it is a misspelt one."""
    found = re.search(rf"\(found: {re.escape(str(VOCAB))}([\w-]+)/([\w.-]+)\)", remedy)
    if not found:
        return remedy.replace(_BASE + "/", "")
    scheme, name = found.groups()
    near = get_close_matches(name, [k.partition("/")[2] for k in known if k.startswith(scheme + "/")], n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else f" See /v1/vocab/{scheme}."
    return remedy.replace(found.group(0), f"(found: {name}).{hint}")


def _name(quad: Quad) -> str:
    return quad.subject.value if isinstance(quad.subject, NamedNode) else ""


def _faults(draft: _Draft, context: Sequence[Quad]) -> list[MapError]:
    from kg.validate import shacl  # see kg.snapshot.build

    vocab = str(VOCAB)
    concepts = [q for q in context if q.predicate.value == _RDF + "type" and _name(q).startswith(vocab)]
    known = sorted({_name(q).removeprefix(vocab) for q in concepts})
    errors = list(draft.errors)
    for severity, node, rule, remedy in shacl([*draft.quads, *concepts, *_shapes()]):
        if severity != "violation" or rule == "case-grounded":  # a user need not cite
            continue
        value = re.search(r"\(found: (\S+)\)", remedy)
        last = value.group(1).rpartition("/")[2] if value else ""
        line = draft.lines.get(f"{node} {last}", draft.lines.get(node))
        errors.append(
            MapError(line, "map" if node == _BASE else node.removeprefix(_BASE + "/"), rule, _nearest(remedy, known))
        )
    if not any(q.object == NamedNode(STRATA.Component) for q in draft.quads):
        errors.append(MapError(None, "map", "map-empty", "There is no component on the map. Add at least one."))
    if len({q.subject for q in draft.quads}) > MAX_THINGS:
        errors.append(MapError(None, "map", "map-size", f"More than {MAX_THINGS} things on one map. Split it."))
    return errors


def check_map(store: Store, data: bytes, form: str, given: Mapping[str, Sequence[str]] | None = None) -> Checked:
    """Check a map and lay it over the frameworks. The served graph is only read.

    Args:
        store: the served graph.
        data: the map, UTF-8.
        form: one of :data:`FORMATS`; ``json`` takes YAML too.
        given: filters of ``case-gaps``, such as ``framework``, ``known_on`` or ``as_of``.

    Raises:
        MapErrors: the map has errors, all of them.
        BadParameter: unknown format or filter.
        BadParameters: unknown values of filters.
    """
    if form not in FORMATS:
        raise BadParameter("format", f"unknown format '{form}'", FORMATS)
    filters = {k: list(v) for k, v in (given or {}).items() if k != "format"}
    for name in filters:
        if name not in _FILTERS:
            raise BadParameter(name, f"unknown parameter '{name}'", _FILTERS)
    if len(data) > MAX_BYTES:
        raise MapErrors([MapError(None, "map", "map-size", f"More than {MAX_BYTES} bytes. Split the map.")])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise MapErrors([MapError(line, "map", "map-syntax", "Not UTF-8. Save the file as UTF-8.")]) from None
    draft = {"ttl": _from_turtle, "json": _from_json, "csv": _from_csv}[form](text)
    context = _context(store, store.snapshot)
    errors = _faults(draft, context)
    if errors:
        raise MapErrors(errors)
    return _asked(draft, context, filters)


def _asked(draft: _Draft, context: Sequence[Quad], filters: Mapping[str, Sequence[str]]) -> Checked:
    scratch = Oxigraph()
    scratch.bulk_extend(context)
    scratch.bulk_extend(Quad(q.subject, q.predicate, q.object) for q in draft.quads)
    for q in draft.quads:  # the one entailment a map needs
        if q.predicate.value == str(STRATA.mainlySituatedAt):
            scratch.add(Quad(q.subject, NamedNode(STRATA.situatedAt), q.object))
    run_rules(scratch, _RULES)
    update = "INSERT { ?c <%s> ?n } WHERE { { ?c <%s> ?n } UNION { ?c <%s> ?n } }"
    scratch.update(update % (STRATA.reachedBy, STRATA.reachedDirectlyBy, STRATA.reachedGenerallyBy))
    maps = [
        q.subject.value
        for q in draft.quads
        if q.object == NamedNode(STRATA.SystemMap) and isinstance(q.subject, NamedNode)
    ]
    titles = [
        q.object.value for q in draft.quads if q.predicate.value == _DCTERMS + "title" and isinstance(q.object, Literal)
    ]
    asked = MemoryStore.of(scratch, "map")
    try:
        case = maps[0].rpartition("/")[2]
        given = {**{k: list(v) for k, v in filters.items()}, "case": [case]}
        gaps = ask(asked, "case-gaps", given).table.rows
        norms = ask(asked, "case-norms", given).table.rows
    finally:
        asked.close()
    summary: dict[str, Counter[str]] = {}
    for r in gaps:
        summary.setdefault(str(r["framework"]), Counter())[str(r["gap"])] += 1
    counted = {f: dict(sorted(c.items())) for f, c in sorted(summary.items())}
    return Checked(titles[0] if titles else case, gaps, norms[:MAX_NORMS], len(norms), counted)
