"""What query processes are forked from: everything they need is imported, and nothing is open."""

from __future__ import annotations

from rdflib.plugins.sparql import parser

from kg import worker
from kg.namespaces import prefixes

prefixes()
worker.stand_back()
__all__ = ["parser", "worker"]
