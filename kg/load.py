"""Sources to dataset: every Turtle file below ``ontology/`` and ``data/``, each in its graph.

Which graph a file belongs to follows from its folder, so a reader of the data always
sees what kind of statement is before him:

=====================================  ==============================
file                                   graph
=====================================  ==============================
``ontology/shapes/…``, ``shapes.ttl``  ``…/graph/shapes``
other files below ``ontology/``        ``…/graph/ontology``
``data/frameworks/<id>/<layer>/…``     ``…/graph/<id>/<layer>``
other files of a framework             ``…/graph/<id>``
``data/<room>/<id>/…``                 ``…/graph/<id>``
=====================================  ==============================
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from pyoxigraph import DefaultGraph, NamedNode, Quad, RdfFormat, parse

from kg.content import data_dir, ontology_dir
from kg.errors import ParseError, StrataError
from kg.namespaces import GRAPH


@dataclass(frozen=True)
class Source:
    """One file to load: its path, its name for messages, and the graph it goes to."""

    path: Path
    name: str
    graph: NamedNode


def _graph_of(parts: tuple[str, ...]) -> str:
    if parts[0] == "ontology":
        return "shapes" if len(parts) > 2 and parts[1] == "shapes" else "ontology"
    if parts[-1] == "shapes.ttl":
        return "shapes"
    if parts[1] == "frameworks" and len(parts) > 3:
        return "/".join(parts[2:4]) if len(parts) > 4 else parts[2]
    return parts[2] if len(parts) > 3 else parts[1]


def find_sources(*, ontology: Path | None = None, data: Iterable[Path] = ()) -> list[Source]:
    """All Turtle files to build from, in a fixed order.

    Args:
        ontology: folder of the ontology; the project's own when not given.
        data: data folders, each laid out like ``data/``; the project's own when empty.

    Raises:
        StrataError: a folder does not exist.
    """
    roots = [("ontology", ontology or ontology_dir())]
    roots += [("data", d) for d in (tuple(data) or (data_dir(),))]
    found: list[Source] = []
    for room, root in roots:
        if not root.is_dir():
            raise StrataError(f"{root}: no such folder. Give a folder laid out like {room}/.")
        for path in sorted(root.rglob("*.ttl")):
            relative = (room, *path.relative_to(root).parts)
            found.append(Source(path, "/".join(relative), NamedNode(GRAPH[_graph_of(relative)])))
    return found


def parse_source(source: Source) -> Iterator[Quad]:
    """The quads of one file.

    Raises:
        ParseError: the file is not well-formed Turtle, or not UTF-8.
    """
    try:
        text = source.path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ParseError(source.name, None, f"not UTF-8 (byte {error.start})") from error
    try:
        for quad in parse(text, RdfFormat.TURTLE):
            if isinstance(quad.graph_name, DefaultGraph):
                yield Quad(quad.subject, quad.predicate, quad.object, source.graph)
            else:  # pragma: no cover - Turtle has no named graphs
                yield quad
    except SyntaxError as error:
        raise ParseError(source.name, error.lineno, error.msg) from error


def fingerprint(sources: Iterable[Source], also: Iterable[Path] = ()) -> str:
    """Digest of all source files, to tell whether a snapshot is of these sources."""
    digest = sha256()
    for source in sources:
        digest.update(source.name.encode() + b"\0" + source.path.read_bytes() + b"\0")
    for path in sorted(also):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
