"""Named queries: one file of SPARQL with a header is a question anyone can ask.

The header follows grlc (lines that begin with ``#+``, together one YAML document). It
names the question, the parameters with their types, and the columns; command line, HTTP
API, OpenAPI, CSV and documentation are all read from it. A parameter ``x`` is the SPARQL
variable ``?_x``, left open in the file by ``VALUES ?_x { UNDEF }``, so each file is valid
SPARQL as it stands. Binding replaces UNDEF by terms written by a library, never by text
from outside. A line ``FILTER(!BOUND(?_x) || ...)`` stands for those who give x: without it
line and VALUES are left out, so that engine and reader see what was asked and no more; any
other line that ends in ``#* with x`` likewise. A line ``#* include part`` brings in
``parts/part.rq`` with its parameters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from difflib import get_close_matches
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import yaml
from pyoxigraph import Literal, NamedNode, Quad

from kg.content import queries_dir
from kg.errors import BadParameter, BadParameters, QueryError
from kg.namespaces import GRAPH, ID, VOCAB, natural_key, sparql_prologue
from kg.store import Store, Table, Value

OPEN_END = "9999-12-31"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The one in C where there is one: all headers are read at every start."""
_OPEN = re.compile(r"VALUES \?_(\w+) \{ UNDEF \}")
_XSD_DATE = NamedNode("http://www.w3.org/2001/XMLSchema#date")
TYPES = (
    "framework",
    "concept",
    "dimension",
    "scheme",
    "date",
    "text",
    "integer",
    "choice",
    "state",
    "resource",
    "case",
)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a named query; ``type`` is one of :data:`TYPES`."""

    name: str
    type: str
    description: str
    scheme: str | None = None
    choices: tuple[str, ...] = ()
    repeat: bool = False
    required: bool = False
    default: str | None = None
    variable: str | None = None
    example: str | None = None

    @property
    def bound_to(self) -> str:
        """Name of the SPARQL variable, without its underscore."""
        return self.variable or self.name


@dataclass(frozen=True)
class Column:
    """One column of an answer; ``type`` is text, list, iri, date, integer, number or share (0 to 1)."""

    name: str
    description: str
    type: str = "text"


@dataclass(frozen=True)
class NamedQuery:
    """A question with its parameters, its columns and its SPARQL.

    ``glance`` names the columns that a table on a terminal shows; all of them if empty.
    ``about`` is what else the header says, for those who know what to do with it.
    """

    name: str
    summary: str
    question: str
    description: str
    tags: tuple[str, ...]
    path: str | None
    shape: str
    sort: tuple[str, ...]
    glance: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    columns: tuple[Column, ...]
    text: str
    about: Mapping[str, Any] = field(default_factory=dict)

    def parameter(self, name: str) -> Parameter:
        """The parameter of that name.

        Raises:
            BadParameter: there is none; names the nearest and all that are valid.
        """
        for p in self.parameters:
            if p.name == name:
                return p
        raise BadParameter(name, _unknown("parameter", name, self.names()), self.names())

    def names(self) -> tuple[str, ...]:
        """Names of all parameters."""
        return tuple(p.name for p in self.parameters)


@dataclass(frozen=True)
class Answer:
    """The rows of a named query, and what is needed to trust and repeat them."""

    query: NamedQuery
    table: Table
    sparql: str
    parameters: dict[str, list[str]] = field(default_factory=dict)


def _unknown(what: str, value: str, valid: Sequence[str]) -> str:
    near = get_close_matches(value, valid, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}" if near else ""
    return f"unknown {what} '{value}'{hint}"


# ------------------------------------------------------------------ reading


def _split(path: Path) -> tuple[dict[str, Any], str]:
    head, body = [], []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#+"):
            head.append(line[3:] if line.startswith("#+ ") else line[2:])
        else:
            body.append(line)
    try:
        header = yaml.load("\n".join(head), Loader=_LOADER) or {}
    except yaml.YAMLError as error:
        raise QueryError(
            f"{path.name}: the header is not YAML ({error}). Mend the lines that begin with #+."
        ) from error
    return header, "\n".join(body) + "\n"


def _parameters(raw: Mapping[str, Mapping[str, Any]], where: str) -> dict[str, Parameter]:
    found = {}
    for name, spec in raw.items():
        values = dict(spec)
        if "choices" in values:
            values["choices"] = tuple(values["choices"])
        p = Parameter(name=name, **values)
        if p.type not in TYPES:
            raise QueryError(f"{where}: parameter {name} has unknown type {p.type}. Use one of {', '.join(TYPES)}.")
        found[name] = p
    return found


def read_query(path: Path) -> NamedQuery:
    """The named query in a file.

    Raises:
        QueryError: the header is malformed or lacks a field, or an include is missing.
    """
    header, body = _split(path)
    parameters: dict[str, Parameter] = {}
    for part in header.get("include", []):
        part_path = path.parent / "parts" / f"{part}.rq"
        if not part_path.is_file():
            raise QueryError(f"{path.name}: no part named {part}. Put it in queries/parts/{part}.rq.")
        part_header, part_body = _split(part_path)
        parameters |= _parameters(part_header.get("parameters", {}), part_path.name)
        body = body.replace(f"#* include {part}\n", part_body)
    own = _parameters(header.get("parameters", {}), path.name)
    parameters = own | {k: v for k, v in parameters.items() if k not in own}
    try:
        return NamedQuery(
            name=path.stem,
            summary=header["summary"],
            question=header["question"],
            description=str(header["description"]).strip(),
            tags=tuple(header.get("tags", ())),
            path=header.get("path"),
            shape=header.get("shape", "list"),
            sort=tuple(header.get("sort", ())),
            glance=tuple(header.get("glance", ())),
            parameters=tuple(parameters.values()),
            columns=tuple(Column(name=k, **v) for k, v in header["columns"].items()),
            text=body,
            about=header.get("about", {}),
        )
    except KeyError as error:
        raise QueryError(f"{path.name}: the header lacks {error}. Add a line beginning with #+.") from error


@cache
def all_queries() -> dict[str, NamedQuery]:
    """Every named query, by name."""
    return {p.stem: read_query(p) for p in sorted(queries_dir().glob("*.rq"))}


def find_query(name: str) -> NamedQuery:
    """The named query of that name.

    Raises:
        BadParameter: there is none.
    """
    known = all_queries()
    if name not in known:
        raise BadParameter("name", _unknown("query", name, tuple(known)), tuple(known))
    return known[name]


# ------------------------------------------------------------------ valid values


@lru_cache(maxsize=64)
def _names(store: Store, snapshot: str, pattern: str) -> dict[str, str]:
    query = f"{sparql_prologue()}SELECT ?name ?iri WHERE {{ {pattern} }} ORDER BY ?name"
    return {str(r["name"]): str(r["iri"]) for r in store.select(query).rows}


def valid_values(store: Store, parameter: Parameter) -> dict[str, str]:
    """Names a parameter takes, and the IRI each stands for; empty for free values."""
    patterns = {
        "framework": "?iri a strata:Framework ; skos:notation ?name .",
        "state": "?iri a strata:Framework ; skos:notation ?name .",
        "case": "?iri a strata:SystemMap ; skos:notation ?name .",
        "dimension": "?iri a strata:Dimension ; strata:counts ?p ; skos:notation ?name .",
        "scheme": "?iri a skos:ConceptScheme . BIND(REPLACE(STR(?iri), '^.*/', '') AS ?name)",
        "concept": f"?iri skos:inScheme <{VOCAB[parameter.scheme or '']}> ; skos:notation ?name .",
    }
    if parameter.type == "choice":
        return {c: c for c in parameter.choices}
    if parameter.type not in patterns:
        return {}
    return _names(store, store.snapshot, patterns[parameter.type])


# ------------------------------------------------------------------ binding


def today() -> date:
    """Today in UTC; the default of ``known_on``."""
    return datetime.now(UTC).date()


def _date(name: str, text: str) -> Literal:
    if text == "today":
        text = today().isoformat()
    try:
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            raise ValueError
        return Literal(date.fromisoformat(text).isoformat(), datatype=_XSD_DATE)
    except ValueError:
        raise BadParameter(name, f"'{text}' is not a day of the calendar; write it as 2026-12-02") from None


def _term(store: Store, p: Parameter, text: str) -> str:
    """A parameter value as a SPARQL term, or a row of terms for a state."""
    if not text.strip():
        raise BadParameter(p.name, "empty value; leave the parameter out instead", tuple(valid_values(store, p)))
    if p.type == "date":
        return str(_date(p.name, text))
    if p.type == "text":
        if len(text) > 200:
            raise BadParameter(p.name, f"{len(text)} characters; at most 200")
        return str(Literal(text))
    if p.type == "integer":
        if not re.fullmatch(r"-?\d{1,9}", text):
            raise BadParameter(p.name, f"'{text}' is not a whole number")
        return str(Literal(int(text)))
    if p.type == "resource":
        if not text.startswith(str(ID)):
            raise BadParameter(p.name, f"'{text}' is not an identifier of this graph; it begins with {ID}")
        try:
            return str(NamedNode(text))
        except ValueError:
            raise BadParameter(p.name, f"'{text}' is not an IRI") from None
    if p.type == "state":
        name, _, day = text.partition("@")
        iri = _known(store, p, name)
        return f"({NamedNode(iri)} {_date(p.name, day or 'today')})"
    iri = _known(store, p, text)
    return str(Literal(iri)) if p.type == "choice" else str(NamedNode(iri))


def _known(store: Store, p: Parameter, text: str) -> str:
    valid = valid_values(store, p)
    if text not in valid:
        what = {"concept": f"{p.scheme} concept", "state": "framework", "case": "system map"}.get(p.type, p.type)
        raise BadParameter(p.name, _unknown(what, text, tuple(valid)), tuple(valid))
    return valid[text]


def _values(store: Store, p: Parameter, given: Sequence[str]) -> list[str]:
    if len(given) > 1 and not p.repeat:
        raise BadParameter(p.name, "given more than once; it takes one value")
    if given:
        return list(given)
    if p.default is not None:
        return [today().isoformat() if p.default == "today" else p.default]
    if p.required:
        raise BadParameter(p.name, "missing; it is required", tuple(valid_values(store, p)))
    return []


def bind(store: Store, query: NamedQuery, given: Mapping[str, Sequence[str]]) -> Answer:
    """The query with its parameters filled in; its table is still empty.

    Raises:
        BadParameters: unknown names or values, missing or repeated ones, all of them at once.
    """
    errors: list[BadParameter] = []
    for name in given:
        try:
            query.parameter(name)
        except BadParameter as error:
            errors.append(error)
    terms, used = dict[str, str](), dict[str, list[str]]()
    for p in query.parameters:
        try:
            values = _values(store, p, given.get(p.name, ()))
            term = " ".join(_term(store, p, v) for v in values)
        except BadParameter as error:
            errors.append(error)
            continue
        if values:
            used[p.name], terms[p.bound_to] = values, term
    if errors:
        raise BadParameters(tuple(errors))
    text = _asked(query.text, frozenset(terms))
    for name, term in terms.items():
        text = text.replace(f"VALUES ?_{name} {{ UNDEF }}", f"VALUES ?_{name} {{ {term} }}")
        text = text.replace(
            f"VALUES (?_{name} ?_{name}_on) {{ (UNDEF UNDEF) }}", f"VALUES (?_{name} ?_{name}_on) {{ {term} }}"
        )
    return Answer(query, Table((), []), text, used)


@lru_cache(maxsize=512)
def _asked(text: str, given: frozenset[str]) -> str:
    """The text with the filters on the variables that are given in force, and without what waits for others.

    One row without a value joins with anything, so SPARQL says the same with and without what is open;
    engines do not all (Virtuoso 7.2 loses rows), and none is faster for it.
    """
    for name in given:
        v = rf"\?_{name}"
        # One statement that only has to exist is joined, so that engines look it up: Virtuoso 7.2 cannot see
        # the value from inside EXISTS. A row may come twice then; queries with such a line group their rows.
        text = re.sub(rf"FILTER\(!BOUND\({v}\) \|\| EXISTS \{{ ([^(){{}}]*) \}}\)$", r"\1 .", text, flags=re.M)
        text = text.replace(f"FILTER(!BOUND(?_{name}) || ", "FILTER(")
    for name in set(_OPEN.findall(text)) - given:
        text = re.sub(rf"^(?:[ \t]*FILTER\(!BOUND\(\?_{name}\) \|\| .*|.* #\* with {name})\n", "", text, flags=re.M)
        open_ = rf"VALUES \?_{name} \{{ UNDEF \}}"
        text = re.sub(rf"^[ \t]*{open_}[ \t]*\n|{open_}", "", text, flags=re.M)
    text = re.sub(r" #\* with \w+$", "", text, flags=re.M)
    return sparql_prologue(text) + text


# ------------------------------------------------------------------ running


def _cell(column: Column, value: Value) -> Any:
    if column.type == "list":
        return sorted(str(value).split()) if value else []
    if column.type == "date" and value == OPEN_END:
        return None
    if column.type in ("number", "share") and isinstance(value, int | float):
        return round(float(value), 4)
    return value


@lru_cache(maxsize=256)
def _rows(store: Store, snapshot: str, sparql: str) -> Table:
    return store.select(sparql)


def ask(store: Store, name: str, given: Mapping[str, Sequence[str]] | None = None) -> Answer:
    """Run a named query.

    Answers are pure functions of snapshot and query text, and cached by both. Rows are
    in the order the header names, numbers in paths read as numbers.

    Raises:
        BadParameter: no such query.
        BadParameters: see :func:`bind`.
        QueryError: the query is malformed.
        StoreUnavailable: the graph cannot be reached.
    """
    query = find_query(name)
    answer = bind(store, query, given or {})
    raw = _rows(store, store.snapshot, answer.sparql)
    rows = [{c.name: _cell(c, r.get(c.name)) for c in query.columns} for r in raw.rows]
    if query.sort:
        rows.sort(key=lambda r: tuple(natural_key("" if r[k] is None else str(r[k])) for k in query.sort))
    return replace(answer, table=Table(tuple(c.name for c in query.columns), rows))


def answer_of(store: Store, name: str, /, **given: str | Sequence[str]) -> list[dict[str, Any]]:
    """Rows of a named query, with parameters as keywords; for programs and notebooks."""
    listed = {k: [v] if isinstance(v, str) else list(v) for k, v in given.items()}
    return ask(store, name, listed).table.rows


def axis(store: Store, dimension: str) -> list[dict[str, Any]]:
    """The concepts of a dimension in the order of their scheme, as a table shows them."""
    return ask(store, "axis", {"dimension": [dimension]}).table.rows


# ------------------------------------------------------------------ publishing


def description_quads() -> list[Quad]:
    """The named queries as ``sh:SPARQLExecutable``, so that editors can show them."""
    sh, rdf = "http://www.w3.org/ns/shacl#", "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
    graph = NamedNode(GRAPH.queries)
    quads = []
    for q in all_queries().values():
        node = NamedNode(f"https://w3id.org/strata/query/{q.name}")
        for p, o in (
            (rdf + "type", NamedNode(sh + "SPARQLExecutable")),
            (rdf + "type", NamedNode(sh + "SPARQLSelectExecutable")),
            ("http://www.w3.org/2000/01/rdf-schema#label", Literal(q.summary, language="en")),
            ("http://www.w3.org/2000/01/rdf-schema#comment", Literal(q.question, language="en")),
            (sh + "prefixes", NamedNode("https://w3id.org/strata/prefixes")),
            (sh + "select", Literal(q.text)),
        ):
            quads.append(Quad(node, NamedNode(p), o, graph))
        for tag in q.tags:
            quads.append(Quad(node, NamedNode("https://schema.org/keywords"), Literal(tag), graph))
    return quads
