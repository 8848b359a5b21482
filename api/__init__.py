"""The HTTP face of Strata: named queries, look-ups, SPARQL and linked data, read-only."""
