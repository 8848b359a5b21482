"""Strata: a knowledge graph of AI risk governance that tests where frameworks intervene."""

__version__ = "0.1.0"
