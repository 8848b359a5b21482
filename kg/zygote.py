"""What query processes are forked from: everything they need is imported, and nothing is open.

The command is among it because multiprocessing imports the main module of the parent anew
in each child; imported here once, that costs nothing.
"""

from __future__ import annotations

from kg import cli, worker
from kg.namespaces import prefixes

prefixes()
__all__ = ["cli", "worker"]
