"""What a query from outside may be: one that reads this graph and nothing else.

Decided on the parsed query, never on its text. SERVICE would make the engine open a
connection, FROM could name a file or a host, and an update would write; each is refused
with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kg.errors import QueryError
from kg.namespaces import GRAPH

if TYPE_CHECKING:
    from rdflib.plugins.sparql.parserutils import CompValue

# The parser's grammar takes a sixth of a second to set up. The server examines queries in processes
# that are forked from one that has it (kg.zygote), so its own start need not wait for it.

MAX_LENGTH = 50_000
"""Longest accepted query, in characters."""
_FLEETING = frozenset(f"Builtin_{n}" for n in ("NOW", "RAND", "UUID", "STRUUID", "BNODE"))


@dataclass(frozen=True)
class Examined:
    """A query that may run: its form, whether it names its own dataset, and whether its
    answer depends on the snapshot alone (``pure``), so that it may be kept."""

    form: str
    has_dataset: bool
    pure: bool


def _walk(node: Any) -> Iterator[CompValue]:
    from rdflib.plugins.sparql.parserutils import CompValue

    stack = [node]
    while stack:
        item = stack.pop()
        if isinstance(item, CompValue):
            yield item
            stack.extend(item.values())
        elif not isinstance(item, str) and hasattr(item, "__iter__"):
            stack.extend(item)


def check(query: str) -> str:
    """Accept a query, and say of which form it is.

    Returns:
        ``SELECT``, ``ASK``, ``CONSTRUCT`` or ``DESCRIBE``.

    Raises:
        QueryError: the query is too long, malformed, an update, or reaches out of this graph.
    """
    return examine(query).form


def examine(query: str) -> Examined:
    """Accept a query, and say what matters about it before it runs.

    Raises:
        QueryError: the query is too long, malformed, an update, or reaches out of this graph.
    """
    from pyparsing import ParseException
    from rdflib.plugins.sparql.parser import parseQuery

    if len(query) > MAX_LENGTH:
        raise QueryError(f"The query has {len(query)} characters; at most {MAX_LENGTH} are accepted.")
    try:
        prologue, parsed = parseQuery(query)
    except ParseException as error:
        if _is_update(query):
            raise QueryError("This endpoint only reads: updates are refused.") from error
        raise QueryError(f"Line {error.lineno}, column {error.column}: {error.msg}.") from error
    except RecursionError as error:
        raise QueryError("The query is nested too deeply.") from error
    except MemoryError as error:
        raise QueryError("The query needs more memory than it may have.") from error
    except Exception as error:  # the parser's own errors are of many kinds
        raise QueryError(f"The query is malformed: {error}") from error
    del prologue
    has_dataset, pure = False, True
    for part in _walk(parsed):
        if part.name == "ServiceGraphPattern":
            raise QueryError("SERVICE is refused: no query reaches out to another host.")
        if part.name == "DatasetClause":
            has_dataset = True
            # CompValue.get answers a missing key with the key itself, so the plain mapping is asked.
            for graph in (dict(part).get("default"), dict(part).get("named")):
                if graph is not None and not str(graph).startswith(str(GRAPH)):
                    raise QueryError(
                        f"FROM <{graph}> is refused: only graphs of this dataset can be read. "
                        f"Their names begin with {GRAPH}"
                    )
        pure = pure and part.name not in _FLEETING
    return Examined(str(parsed.name).removesuffix("Query").upper(), has_dataset, pure)


def _is_update(query: str) -> bool:
    from rdflib.plugins.sparql.parser import parseUpdate

    try:
        return bool(parseUpdate(query).request)
    except Exception:  # whatever it is, it is not an update
        return False
