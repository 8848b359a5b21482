"""The one canonical Turtle layout of this project, so that a diff shows what changed.

A thin specialisation of rdflib's Turtle serialiser: subjects in natural order of
their IRI (``art_9`` before ``art_10``, a norm before its codings), properties in one
fixed order, one value a line, and only the prefixes that the file uses.
"""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from rdflib import Graph, URIRef
from rdflib.namespace import DCTERMS, OWL, PROV, RDF, RDFS, SH, SKOS
from rdflib.plugins.serializers.turtle import TurtleSerializer

from kg.namespaces import STRATA, natural_key, prefixes

_ORDER: tuple[URIRef, ...] = tuple(
    URIRef(p)
    for p in (
        RDF.type,
        SKOS.inScheme,
        SKOS.topConceptOf,
        SKOS.broader,
        STRATA.partOf,
        STRATA.stateOf,
        STRATA.statedIn,
        STRATA.codes,
        STRATA.applicationOf,
        STRATA.dimension,
        STRATA.provisionType,
        STRATA.locator,
        STRATA.order,
        DCTERMS.identifier,
        DCTERMS.title,
        RDFS.label,
        SKOS.prefLabel,
        SKOS.altLabel,
        STRATA.heading,
        STRATA.summary,
        SKOS.definition,
        SKOS.scopeNote,
        SKOS.example,
        RDFS.subClassOf,
        RDFS.subPropertyOf,
        RDFS.domain,
        RDFS.range,
        OWL.inverseOf,
        OWL.propertyChainAxiom,
        STRATA.bearer,
        STRATA.bearerBasis,
        STRATA.holder,
        STRATA.counterparty,
        STRATA.action,
        STRATA.artefact,
        STRATA.condition,
        STRATA.exception,
        STRATA.triggeredBy,
        STRATA.mainValue,
        STRATA.value,
        STRATA.explicitValue,
        STRATA.implicitValue,
        STRATA.alternative,
        STRATA.confidence,
        STRATA.rationale,
        STRATA.knownFrom,
        STRATA.knownUntil,
        STRATA.forCategory,
        STRATA.appliesFrom,
        STRATA.appliesUntil,
        STRATA.inForceFrom,
        STRATA.inForceUntil,
        STRATA.basis,
        SH.targetClass,
        SH.path,
        SH.severity,
        SH.message,
        PROV.wasGeneratedBy,
        STRATA.codebook,
        DCTERMS.source,
        RDFS.isDefinedBy,
    )
)


class CanonicalTurtleSerializer(TurtleSerializer):
    """rdflib's Turtle with this project's order of subjects and properties."""

    predicateOrder = list(_ORDER)
    topClasses = [OWL.Ontology, SKOS.ConceptScheme]

    def orderSubjects(self) -> list[Any]:
        subjects = [s for s in self._subjects if isinstance(s, URIRef)]
        first = [s for c in self.topClasses for s in self.store.subjects(RDF.type, c)]
        rest = sorted(set(subjects) - set(first), key=lambda s: natural_key(str(s)))
        # Blank nodes are written inside their subject; those nobody refers to come last.
        roots = [s for s in self._subjects if s not in set(subjects) and not self._references[s]]
        roots.sort(key=self._signature)
        return sorted(first, key=str) + rest + roots

    def _signature(self, node: Any) -> str:
        """Text that orders blank nodes by what they say, not by their random label."""
        parts = []
        for p, o in self.store.predicate_objects(node):
            parts.append(f"{p} {o if isinstance(o, URIRef) else self._deep(o)}")
        return "\n".join(sorted(parts))

    def _deep(self, node: Any, depth: int = 4) -> str:
        if depth == 0 or not any(True for _ in self.store.predicate_objects(node)):
            return "" if node.__class__.__name__ == "BNode" else str(node)
        return "|".join(sorted(f"{p} {self._deep(o, depth - 1)}" for p, o in self.store.predicate_objects(node)))

    def objectList(self, objects: Any) -> None:
        def key(o: Any) -> tuple[int, Any]:
            if isinstance(o, URIRef):
                return (0, natural_key(str(o)))
            if o.__class__.__name__ == "BNode":
                return (2, natural_key(self._signature(o)))
            return (1, natural_key(f"{o} {getattr(o, 'language', '') or ''}"))

        super().objectList(sorted(set(objects), key=key))

    def relativize(self, uri: Any) -> Any:
        # rdflib shortens one path segment only; below the base any plain path is as good.
        if self.base is not None and str(uri).startswith(self.base):
            rest = str(uri)[len(self.base) :]
            if rest and not rest.startswith("/") and ":" not in rest.split("/")[0]:
                return URIRef(rest)
        return uri

    def serialize(
        self,
        stream: IO[bytes],
        base: str | None = None,
        encoding: str | None = None,
        spacious: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().serialize(stream, base=base, encoding=encoding, spacious=True, **kwargs)


def to_turtle(graph: Graph, base: str | None = None) -> str:
    """The graph in the canonical layout; ``base`` shortens the IRIs below it."""
    tidy = Graph(bind_namespaces="none")
    for prefix, iri in sorted(prefixes().items()):
        tidy.bind(prefix, iri, override=True, replace=True)
    for triple in graph:
        tidy.add(triple)
    out = BytesIO()
    CanonicalTurtleSerializer(tidy).serialize(out, base=base, encoding="utf-8")
    text = out.getvalue().decode("utf-8")
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def base_of(text: str) -> str | None:
    """The ``@base`` a Turtle file declares, if any."""
    found = re.search(r"^@base\s+<([^>]+)>", text, flags=re.MULTILINE)
    return found.group(1) if found else None


def reformat(path: Path) -> tuple[str, str]:
    """Text of a Turtle file before and after canonical layout (nothing is written)."""
    before = path.read_text(encoding="utf-8")
    graph = Graph(bind_namespaces="none").parse(data=before, format="turtle")
    return before, to_turtle(graph, base=base_of(before))
