"""Prefixes and the namespaces code needs by name.

The prefix map is data: ``ontology/prefixes.ttl`` declares it with ``sh:declare``, so
that Turtle files, SPARQL queries, the JSON-LD context and this code cannot disagree.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from rdflib import Graph, Namespace
from rdflib.namespace import SH

from kg.content import ontology_dir

if TYPE_CHECKING:
    import curies

STRATA = Namespace("https://w3id.org/strata/ontology#")
VOCAB = Namespace("https://w3id.org/strata/vocab/")
ID = Namespace("https://w3id.org/strata/id/")
GRAPH = Namespace("https://w3id.org/strata/graph/")


@cache
def prefixes() -> dict[str, str]:
    """Prefix to namespace, as declared in the ontology."""
    graph = Graph().parse(ontology_dir() / "prefixes.ttl", format="turtle")
    return {str(graph.value(d, SH.prefix)): str(graph.value(d, SH.namespace)) for d in graph.objects(None, SH.declare)}


@cache
def converter() -> curies.Converter:
    """CURIEs to IRIs and back."""
    import curies  # a third of a second, which a start need not wait for

    return curies.Converter.from_prefix_map(prefixes())


@cache
def sparql_prologue() -> str:
    """``PREFIX`` lines for every declared prefix, in alphabetical order."""
    return "".join(f"PREFIX {p}: <{ns}>\n" for p, ns in sorted(prefixes().items()))
