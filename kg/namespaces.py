"""Prefixes and the namespaces code needs by name.

The prefix map is data: ``ontology/prefixes.ttl`` declares it with ``sh:declare``, so
that Turtle files, SPARQL queries, the JSON-LD context and this code cannot disagree.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from pyoxigraph import Literal, NamedNode, parse

from kg.content import ontology_dir

if TYPE_CHECKING:
    import curies


class Namespace(str):
    """The names that begin alike, each by attribute or by index.

    rdflib has one too. But a server that starts asks rdflib nothing, and importing it takes a
    fifth of the second in which it should answer; see ``benchmarks/``.
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> str:
        """The name, in full."""
        if name.startswith("__"):
            raise AttributeError(name)
        return f"{self}{name}"

    def __getitem__(self, name: object) -> str:
        """The name, in full."""
        return f"{self}{name}"


STRATA = Namespace("https://w3id.org/strata/ontology#")
VOCAB = Namespace("https://w3id.org/strata/vocab/")
ID = Namespace("https://w3id.org/strata/id/")
GRAPH = Namespace("https://w3id.org/strata/graph/")
_PREFIX = re.compile(r"([a-z][\w-]*):")
_SH = Namespace("http://www.w3.org/ns/shacl#")


@cache
def prefixes() -> dict[str, str]:
    """Prefix to namespace, as declared in the ontology."""
    declared: dict[str, dict[str, str]] = {}
    for s, p, o, _ in parse(path=str(ontology_dir() / "prefixes.ttl")):
        if isinstance(p, NamedNode) and isinstance(o, Literal) and p.value in (_SH.prefix, _SH.namespace):
            declared.setdefault(str(s), {})[p.value] = o.value
    return {d[_SH.prefix]: d[_SH.namespace] for d in declared.values()}


@cache
def converter() -> curies.Converter:
    """CURIEs to IRIs and back."""
    import curies  # a third of a second, which a start need not wait for

    return curies.Converter.from_prefix_map(prefixes())


def sparql_prologue(query: str | None = None) -> str:
    """``PREFIX`` lines in alphabetical order, for every declared prefix or for those that a query uses."""
    used = set(prefixes()) if query is None else set(_PREFIX.findall(query))
    return "".join(f"PREFIX {p}: <{ns}>\n" for p, ns in sorted(prefixes().items()) if p in used)


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that reads runs of digits as numbers.

    >>> sorted(["art_10", "art_9", "art_9/par_1"], key=natural_key)
    ['art_9', 'art_9/par_1', 'art_10']
    """
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.split(r"(\d+)", text) if part)
