"""What is noted of one request on its way through: for the log, the metrics and the answer's headers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from starlette.types import Scope

KEY = "strata.record"


@dataclass
class Record:
    """Notes on one request.

    ``route`` is the template of the path, so that metrics have few labels; ``query_hash``
    tells the same SPARQL text apart without putting what people ask into the log.
    """

    request_id: str
    client: str
    route: str = "unmatched"
    snapshot: str = ""
    query_hash: str = ""
    cache: str = ""
    notes: dict[str, Any] = field(default_factory=dict)


def record_of(scope: Scope) -> Record:
    """The notes on the request of a scope."""
    found = scope.get(KEY)
    if isinstance(found, Record):
        return found
    client = scope.get("client")
    record = Record(request_id="-", client=client[0] if client else "-")
    scope[KEY] = record
    return record
