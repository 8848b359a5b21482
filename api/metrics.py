"""Counters and timings for Prometheus, of this process or of all that share the port."""

from __future__ import annotations

import os

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

_TIMES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

REQUESTS = Counter("strata_requests", "Requests answered.", ["method", "route", "status"])
SECONDS = Histogram("strata_request_seconds", "Time from request to answer.", ["route"], buckets=_TIMES)
RUNNING = Gauge("strata_requests_running", "Requests in work.", multiprocess_mode="livesum")
QUERIES = Counter("strata_queries", "SPARQL queries from outside.", ["form", "outcome"])
QUERY_SECONDS = Histogram("strata_query_seconds", "Evaluation of SPARQL queries from outside.", buckets=_TIMES)
WAITING = Gauge("strata_queries_waiting", "SPARQL queries in line.", multiprocess_mode="livesum")
REPLACED = Counter("strata_workers_replaced", "Query processes ended and replaced.", ["reason"])
CACHE = Counter("strata_cache", "Answers looked for in the cache.", ["outcome"])
CACHE_BYTES = Gauge("strata_cache_bytes", "Size of the answers kept.", multiprocess_mode="livesum")
WORKER_BYTES = Gauge("strata_worker_memory_bytes", "Memory of the query processes.", multiprocess_mode="livesum")
TRIPLES = Gauge("strata_snapshot_triples", "Triples of the snapshot in service.", multiprocess_mode="max")

_METHODS = frozenset(("GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"))


def method_label(method: str) -> str:
    """The method as a label; what is no method of HTTP is one label together."""
    return method if method in _METHODS else "other"


def exposition() -> tuple[bytes, str]:
    """All metrics as text, and its media type."""
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry), CONTENT_TYPE_LATEST
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST
