"""Does the data keep the promises the shapes make?

Three checks give one list of findings, each with file, node, rule and remedy: SHACL
(``ontology/shapes`` and the ``shapes.ttl`` of each framework), hygiene queries (one rule
a file in ``ontology/hygiene``), and the contradictions the OWL rules found.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

from pyoxigraph import NamedNode, Quad, QuerySolutions, RdfFormat, Store, serialize
from rdflib import Graph, URIRef
from rdflib.namespace import RDF, SH
from rdflib.term import Node

from kg.content import ontology_dir
from kg.errors import BuildError
from kg.infer import Contradiction
from kg.load import Source
from kg.namespaces import GRAPH, converter, sparql_prologue

_SHAPES = NamedNode(GRAPH.shapes)
DATASET = URIRef("https://w3id.org/strata/dataset")
SEVERITIES = ("violation", "warning", "info")


@dataclass(frozen=True, order=True)
class Finding:
    """One thing that is not as it should be, where it is, and what to do.

    ``severity`` is ``violation`` (the build stops), ``warning`` or ``info``; ``rule`` the
    local name of the shape or rule; ``line`` counts from 1, None where no file is known.
    """

    severity: str
    file: str
    line: int | None
    node: str
    rule: str
    remedy: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{self.severity}: {where}: {self.node}: {self.remedy} [{self.rule}]"


class Places:
    """Where each node is described, or else mentioned: file and line, found when first asked for."""

    def __init__(self, parsed: Sequence[tuple[Source, Sequence[Quad]]]) -> None:
        self._described: dict[str, Source] = {}
        self._mentioned: dict[str, Source] = {}
        for source, quads in parsed:
            for q in quads:
                if isinstance(q.subject, NamedNode):
                    self._described[q.subject.value] = source
                if isinstance(q.object, NamedNode):
                    self._mentioned[q.object.value] = source
                self._mentioned[q.predicate.value] = source

    def of(self, iri: str) -> tuple[str, int | None]:
        """File name and line of the block that describes ``iri``, else of what mentions it."""
        if iri in self._described:
            return self._found(self._described[iri], iri, described=True)
        if iri in self._mentioned:
            return self._found(self._mentioned[iri], iri, described=False)
        return "(no file)", None

    @staticmethod
    def _found(source: Source, iri: str, *, described: bool) -> tuple[str, int | None]:
        with source.path.open(encoding="utf-8") as lines:
            return source.name, find_line(lines, iri, described=described)


def find_line(lines: Iterable[str], iri: str, *, described: bool) -> int | None:
    """Number of the line of Turtle on which the block about ``iri`` begins, or else on which it is mentioned."""
    pattern = r"^{}(?=\s)" if described else r"(?<![\w:]){}(?=[\s;,.)\]])"
    names = {f"<{iri}>", converter().compress(iri, passthrough=True) or iri}
    for number, line in enumerate(lines, 1):
        if line.startswith("#"):
            continue
        base = re.match(r"@base\s+<([^>]+)>", line)
        if base and iri.startswith(base.group(1)):
            names.add(f"<{iri[len(base.group(1)) :]}>")
        elif any(re.search(pattern.format(re.escape(n)), line) for n in names):
            return number
    return None


def validate(
    parsed: Sequence[tuple[Source, Sequence[Quad]]],
    derived: Iterable[Quad],
    contradictions: Iterable[Contradiction],
) -> list[Finding]:
    """All findings, the gravest first.

    Args:
        parsed: the sources with their quads, as loaded.
        derived: what was inferred from them; hygiene queries see it, shapes do not, so
            that an inferred type cannot hide a wrong reference.
        contradictions: what the OWL rules found.
    """
    places = Places(parsed)
    findings: set[Finding] = set()

    def add(severity: str, node: str, rule: str, remedy: str) -> None:
        file, line = places.of(node)
        findings.add(Finding(severity, file, line, node, rule, remedy))

    asserted = [q for _, quads in parsed for q in quads]
    for severity, node, rule, remedy in shacl(asserted):
        add(severity, node, rule, remedy)
    for severity, node, rule, remedy in _hygiene([*asserted, *derived]):
        add(severity, node, rule, remedy)
    for c in contradictions:
        remedy = f"Contradicts the ontology: {c.message}. Correct the statement that makes it so."
        add("violation", c.node, c.rule, remedy)
    return sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), f))


def _graph(quads: Iterable[Quad]) -> Graph:
    data = serialize((q.triple for q in quads), format=RdfFormat.N_TRIPLES)
    assert data is not None
    return Graph(bind_namespaces="none").parse(data=data, format="nt")


def shacl(asserted: Sequence[Quad]) -> Iterable[tuple[str, str, str, str]]:
    """Results of the shapes in the graph of shapes, as severity, node, rule and remedy.

    Those about one node are had from pySHACL, those about the whole dataset (target: the
    dataset, constraint: one SELECT) from the SPARQL engine, on which they take
    milliseconds where an interpreted join takes minutes.
    """
    data = [q for q in asserted if q.graph_name != _SHAPES]
    shapes = _graph(q for q in asserted if q.graph_name == _SHAPES)
    shapes.parse(ontology_dir() / "prefixes.ttl", format="turtle")
    store = Store()
    store.bulk_extend(Quad(q.subject, q.predicate, q.object) for q in data)
    for shape in sorted(shapes.subjects(SH.targetNode, DATASET), key=str):
        rule = str(shape).rpartition("#")[2]
        severity = str(shapes.value(shape, SH.severity)).rpartition("#")[2].lower()
        for constraint in list(shapes.objects(shape, SH.sparql)):
            query = sparql_prologue() + str(shapes.value(constraint, SH.select))
            rows = store.query(query)
            assert isinstance(rows, QuerySolutions)
            for row in rows:
                message = str(shapes.value(constraint, SH.message))
                yield severity, str(getattr(row["value"], "value", "")), rule, message
        shapes.remove((shape, None, None))
    yield from _node_shapes(_graph(data), shapes)


_TARGETS = (SH.targetClass, SH.target, SH.targetSubjectsOf, SH.targetObjectsOf)


def _node_shapes(data: Graph, shapes: Graph) -> Iterable[tuple[str, str, str, str]]:
    """Results about single nodes. Shapes do not depend on each other, so they are dealt out
    to as many processes as there are processors; pySHACL is what a build spends its time on."""
    workers = min(os.cpu_count() or 1, len(data) // 20_000)
    if workers < 2 or sys.platform != "linux":
        return _judge(data, shapes)
    text = data.serialize(format="nt", encoding="utf-8")
    with ProcessPoolExecutor(workers, mp_context=get_context("forkserver")) as pool:
        found = list(pool.map(_judge_share, repeat(text, workers), _deal(data, shapes, workers)))
    return [row for rows in found for row in rows]


def _deal(data: Graph, shapes: Graph, workers: int) -> list[bytes]:
    """The shapes as N-Triples, once for each worker, each with the targets of its share only."""
    targeted = {s for p in _TARGETS for s in shapes.subjects(p)}
    weight = {
        s: sum(1 for c in shapes.objects(s, SH.targetClass) for _ in data.subjects(RDF.type, c))
        * (1 + len(list(shapes.objects(s, SH.property))))
        for s in targeted
    }
    shares: list[set[Node]] = [set() for _ in range(workers)]
    loads = [0] * workers
    for shape in sorted(targeted, key=lambda s: (-weight[s], str(s))):
        lightest = loads.index(min(loads))
        shares[lightest].add(shape)
        loads[lightest] += weight[shape]
    texts = []
    for share in shares:
        own = Graph(bind_namespaces="none")
        for triple in shapes:
            if triple[1] not in _TARGETS or triple[0] in share:
                own.add(triple)
        texts.append(own.serialize(format="nt", encoding="utf-8"))
    return texts


def _judge_share(data: bytes, shapes: bytes) -> list[tuple[str, str, str, str]]:
    graphs = (Graph(bind_namespaces="none").parse(data=t, format="nt") for t in (data, shapes))
    return _judge(*graphs)


def _judge(data: Graph, shapes: Graph) -> list[tuple[str, str, str, str]]:
    import pyshacl  # a quarter of a second, which a start that builds nothing need not wait for

    _, report, text = pyshacl.validate(
        data,
        shacl_graph=shapes,
        inference="none",
        advanced=True,
        inplace=True,
        allow_warnings=True,
        allow_infos=True,
    )
    if not isinstance(report, Graph):
        raise BuildError(f"The shapes could not be evaluated: {text}")
    rows = []
    for result in report.subjects(RDF.type, SH.ValidationResult):
        value = report.value(result, SH.value)
        source = report.value(result, SH.sourceShape)
        message = report.value(result, SH.resultMessage)
        severity = str(report.value(result, SH.resultSeverity)).rpartition("#")[2].lower()
        shown = "" if value is None else f" (found: {value})"
        node = str(report.value(result, SH.focusNode))
        rows.append((severity, node, str(source).rpartition("#")[2], f"{message}{shown}"))
    return rows


def hygiene_rules() -> list[Path]:
    """The hygiene queries, one rule a file."""
    return sorted((ontology_dir() / "hygiene").glob("*.rq"))


def _hygiene(quads: Sequence[Quad]) -> Iterable[tuple[str, str, str, str]]:
    store = Store()
    store.bulk_extend(quads)
    for path in hygiene_rules():
        text = path.read_text(encoding="utf-8")
        header = dict(re.findall(r"^#\+ (\w+): (.*)$", text, flags=re.MULTILINE))
        rows = store.query(sparql_prologue() + text, use_default_graph_as_union=True)
        assert isinstance(rows, QuerySolutions)
        for row in rows:
            node = row["node"]
            iri = node.value if isinstance(node, NamedNode) else str(node)
            yield header["severity"], iri, path.stem, header["remedy"]
