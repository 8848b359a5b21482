"""What query processes are forked from: everything they need is imported, and nothing is open.

Nothing here may make the engine draw a random number, so nothing is parsed: those who are forked
afterwards would all go on from the same state, and give the same UUIDs.
"""

from __future__ import annotations

from rdflib.plugins.sparql import parser

from kg import worker

worker.stand_back()
__all__ = ["parser", "worker"]
