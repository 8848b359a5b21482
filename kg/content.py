"""Where the ontology and the data lie: in a checkout, or inside the installed wheel."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent


def _root() -> Path:
    packed = _HERE / "_content"
    return packed if packed.is_dir() else _HERE.parent


def ontology_dir() -> Path:
    """The folder of OWL modules, vocabularies, shapes, rules and alignments."""
    return _root() / "ontology"


def data_dir() -> Path:
    """The folder of frameworks, cases and crosswalks."""
    return _root() / "data"


def queries_dir() -> Path:
    """The folder of named queries."""
    return _HERE / "queries"
