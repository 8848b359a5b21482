"""Ratios in one run: Strata against the engine it stands on, and against other Python endpoints.

    STRATA_HOME=… python -m benchmarks.run FOLDER RESULT.json SIZE…

Every comparison is made of pairs: one request here, one there, in turn, so that what else
the machine does meets both. Uncached requests differ from each other by a day in the past
that changes nothing in the answer's size but misses every cache.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyoxigraph

from benchmarks.generate import write
from kg.namespaces import sparql_prologue
from kg.queries import bind, find_query
from kg.snapshot import current
from kg.store import EmbeddedStore
from tests.conftest import free_port, wait_for

PAIRS = {100_000: 50, 1_000_000: 20}
FEWEST = 7
FRAMEWORK = "us-m-25-22"
"""One that is in a graph of every size."""
CASES: dict[str, dict[str, list[str]]] = {
    "coverage": {"rows": ["layer"], "columns": ["bearer"]},
    "orientation": {},
    "norms": {"framework": [FRAMEWORK]},
    "versions": {"framework": [FRAMEWORK]},
}
JSON = {"accept": "application/sparql-results+json"}


def _family(pid: int) -> int:
    """Bytes of a process and its descendants; of a page that several share, each has its part (PSS)."""
    kids: dict[int, list[int]] = {}
    size: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, KeyError, ValueError, IndexError):
            parent = re.findall(r"^PPid:\s+(\d+)", (folder / "status").read_text(), re.M)[0]
            part = re.findall(r"^Pss:\s+(\d+)", (folder / "smaps_rollup").read_text(), re.M)[0]
            kids.setdefault(int(parent), []).append(int(folder.name))
            size[int(folder.name)] = 1024 * int(part)
    total, todo = 0, [pid]
    while todo:
        one = todo.pop()
        total += size.get(one, 0)
        todo += kids.get(one, [])
    return total


@contextlib.contextmanager
def started(command: list[str], url: str, **settings: object) -> Iterator[subprocess.Popen[bytes]]:
    """A server, from its first answer until the block ends."""
    environment = {**os.environ, **{k: str(v) for k, v in settings.items()}}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(url, process, 300)
        yield process
    finally:
        process.terminate()
        process.wait(30)


def strata(home: Path, port: int, **settings: object) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """Our server on a home folder."""
    command = [sys.executable, "-m", "kg", "serve", "--as-is", "--port", str(port)]
    return started(command, f"http://127.0.0.1:{port}/health", STRATA_HOME=home, STRATA_LOG_LEVEL="error", **settings)


def oxigraph(home: Path, port: int) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """The Oxigraph server on the same files, read-only."""
    program = Path(sys.executable).parent / "oxigraph"
    command = [str(program), "serve-read-only", "--location", str(current(home) / "store")]
    command += ["--bind", f"127.0.0.1:{port}", "--union-default-graph"]
    return started(command, f"http://127.0.0.1:{port}/query?query=ASK%7B%7D")


def _timed(work: Callable[[], httpx.Response]) -> float:
    start = time.perf_counter()
    answer = work()
    seconds = time.perf_counter() - start
    assert answer.status_code == 200, answer.text[:300]
    return seconds


def _percentile(times: list[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(share * len(times)))]


class Case:
    """One question, as a request to Strata and as SPARQL for any engine."""

    # Of all cases together, so that no day comes twice; and if one does, it is asked for in other words.
    _day = date(2026, 11, 1)
    _round = 0

    def __init__(self, name: str, store: EmbeddedStore) -> None:
        self.name, self.store = name, store
        self.query = find_query(name)

    def fresh(self) -> dict[str, list[str]]:
        """Parameters that nobody asked with before."""
        given = dict(CASES[self.name])
        if any(p.name == "known_on" for p in self.query.parameters):
            Case._day -= timedelta(days=1)
            if Case._day < date(2025, 4, 4):  # further back, other texts were in force
                Case._day, Case._round = date(2026, 10, 31), Case._round + 1
            given["known_on"] = [Case._day.isoformat()]
        return given

    def ours(self, url: str, given: dict[str, list[str]]) -> httpx.Request:
        """The request to Strata."""
        path = self.query.path or f"/v1/queries/{self.name}"
        words = {"accept": f"application/json, text/{Case._round};q=0.1"}
        return httpx.Request("GET", url + path, params=[(k, v) for k, vs in given.items() for v in vs], headers=words)

    def theirs(self, url: str, given: dict[str, list[str]]) -> httpx.Request:
        """The same question to a SPARQL endpoint."""
        body = {"query": bind(self.store, self.query, given).sparql}
        return httpx.Request("POST", url, data=body, headers=JSON)


def pairs(case: Case, ours: str, theirs: str, count: int, *, cached: bool) -> dict[str, float]:
    """p50 and p99 here and there, in milliseconds, and the median of the ratios of pairs."""
    mine, other = [], []
    with httpx.Client(timeout=300) as http:
        fixed = case.fresh()
        for _ in range(2):
            http.send(case.ours(ours, fixed)), http.send(case.theirs(theirs, fixed))
        for _ in range(count):
            given = fixed if cached else case.fresh()
            a, b = case.ours(ours, given), case.theirs(theirs, given)
            mine.append(_timed(lambda a=a: http.send(a)))  # type: ignore[misc]
            other.append(_timed(lambda b=b: http.send(b)))  # type: ignore[misc]
    return {
        "p50_ms": round(1000 * statistics.median(mine), 2),
        "p99_ms": round(1000 * _percentile(mine, 0.99), 2),
        "other_p50_ms": round(1000 * statistics.median(other), 2),
        "other_p99_ms": round(1000 * _percentile(other, 0.99), 2),
        "ratio": round(statistics.median(a / b for a, b in zip(mine, other, strict=True)), 3),
    }


def throughput(requests: Callable[[], httpx.Request], clients: int, count: int) -> tuple[float, float]:
    """Requests a second, and p99 in milliseconds, with so many clients at a time."""
    todo = [requests() for _ in range(count)]
    with (
        httpx.Client(timeout=300, limits=httpx.Limits(max_connections=clients)) as http,
        ThreadPoolExecutor(clients) as pool,
    ):
        start = time.perf_counter()
        times = list(pool.map(lambda r: _timed(lambda: http.send(r)), todo))
        return round(count / (time.perf_counter() - start), 2), round(1000 * _percentile(times, 0.99), 1)


def cold_start(home: Path, path: str) -> float:
    """Seconds from the command to the first answer."""
    port = free_port()
    command = [sys.executable, "-m", "kg", "serve", "--as-is", "--port", str(port)]
    environment = {**os.environ, "STRATA_HOME": str(home)}
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"http://127.0.0.1:{port}{path}", timeout=10).status_code == 200:
                    return time.perf_counter() - start
            assert time.perf_counter() - start < 120
            time.sleep(0.005)
    finally:
        process.terminate()
        process.wait(30)


RDFLIB_SERVER = """
import sys, uvicorn
from rdflib import Dataset
from rdflib_endpoint import SparqlEndpoint
data = Dataset(default_union=True)
data.parse(sys.argv[1], format="nquads")
uvicorn.run(SparqlEndpoint(graph=data), port=int(sys.argv[2]), log_level="error")
"""
RDFLIB_ALONE = """
import sys, time
from rdflib import Dataset
start = time.perf_counter()
data = Dataset(default_union=True)
data.parse(sys.argv[1], format="nquads")
print(time.perf_counter() - start, flush=True)
start = time.perf_counter()
list(data.query(sys.stdin.read()))
print(time.perf_counter() - start)
"""


def rdflib_alone(home: Path, case: Case, patience: float) -> dict[str, Any]:
    """One answer of rdflib in memory, without HTTP: seconds to load and to answer; null if it took longer."""
    command = [sys.executable, "-c", RDFLIB_ALONE, str(current(home) / "dataset.nq")]
    asked = bind(case.store, case.query, case.fresh()).sparql
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin
    assert process.stdout
    process.stdin.write(asked)
    process.stdin.close()
    loaded = float(process.stdout.readline())
    try:
        process.wait(patience)
        seconds: float | None = float(process.stdout.readline())
    except subprocess.TimeoutExpired:
        process.kill()
        seconds = None
    return {"load_s": round(loaded, 1), "answer_s": seconds and round(seconds, 2)}


def against_rdflib(home: Path, case: Case, ours: str, patience: float) -> dict[str, Any]:
    """A question to rdflib-endpoint: seconds for an answer (median of 7, or one that took too long), and ours."""
    port = free_port()
    command = [sys.executable, "-c", RDFLIB_SERVER, str(current(home) / "dataset.nq"), str(port)]
    theirs: list[float] = []
    with (
        started(command, f"http://127.0.0.1:{port}/?query=ASK%7B%7D") as process,
        httpx.Client(timeout=patience) as http,
    ):
        memory = _family(process.pid)
        with contextlib.suppress(httpx.TimeoutException):
            for _ in range(FEWEST):
                request = case.theirs(f"http://127.0.0.1:{port}/", case.fresh())
                theirs.append(_timed(lambda request=request: http.send(request)))  # type: ignore[misc]
        process.kill()
    mine = statistics.median(
        _timed(lambda: httpx.get(str(case.ours(ours, case.fresh()).url), timeout=300)) for _ in range(FEWEST)
    )
    seconds = statistics.median(theirs) if theirs else patience
    return {
        "memory_mb": memory >> 20,
        "answer_s": round(seconds, 3),
        "finished": bool(theirs),
        "ours_uncached_s": round(mine, 3),
        "times_slower": round(seconds / mine, 1),
    }


def hostile(home: Path, seconds: float) -> dict[str, Any]:
    """What another client waits for while somebody sends the queries of tests/test_hostile.py, and memory."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    norms = (
        f"SELECT ?p {{ ?n strata:framework id:{FRAMEWORK} ; strata:action ?a ; strata:path ?p }} ORDER BY ?p LIMIT 1"
    )
    path = EmbeddedStore(current(home)).select(sparql_prologue() + norms).rows[0]["p"]
    norm = f"/v1/norms/{FRAMEWORK}/{path}"
    days = iter(range(10_000))

    def polite(until: float) -> list[float]:
        times = []
        with httpx.Client(base_url=url, timeout=60) as http:
            while time.perf_counter() < until:
                day = (date(2026, 11, 1) - timedelta(days=next(days) % 500)).isoformat()
                times.append(_timed(lambda day=day: http.get(norm, params={"known_on": day})))  # type: ignore[misc]
                times.append(_timed(lambda: http.get("/v1/frameworks")))
                time.sleep(0.02)
        return times

    out: dict[str, Any] = {}
    with strata(home, port, STRATA_QUERY_SECONDS=1, STRATA_CACHE_MB=0) as process:
        httpx.get(f"{url}/ready", timeout=60)
        polite(time.perf_counter() + 3)
        before = _family(process.pid)
        quiet = polite(time.perf_counter() + seconds)
        attack = subprocess.Popen([sys.executable, "-m", "benchmarks.attack", url, str(seconds)])
        time.sleep(2)
        harassed = polite(time.perf_counter() + seconds - 4)
        attack.wait(120)
        after = _family(process.pid)
        time.sleep(5)
        later = _family(process.pid)
    for name, times in (("quiet", quiet), ("beside", harassed)):
        out[name] = {
            "requests": len(times),
            "p50_ms": round(1000 * statistics.median(times), 1),
            "p99_ms": round(1000 * _percentile(times, 0.99), 1),
        }
    out["p99_ratio"] = round(_percentile(harassed, 0.99) / _percentile(quiet, 0.99), 2)
    out["memory_mb"] = {"before": before >> 20, "at the end": after >> 20, "5 s later": later >> 20}
    return out


def bulk(home: Path, folder: Path) -> dict[str, float]:
    """Seconds of a raw bulk load of the same quads."""
    import shutil

    times = []
    for _ in range(3):
        target = folder / "raw"
        shutil.rmtree(target, ignore_errors=True)
        start = time.perf_counter()
        store = pyoxigraph.Store(str(target))
        store.bulk_load(path=current(home) / "dataset.nq", format=pyoxigraph.RdfFormat.N_QUADS)
        store.flush()
        del store
        times.append(time.perf_counter() - start)
        shutil.rmtree(target)
    return {"raw_bulk_load_s": round(statistics.median(times), 2)}


def measure(size: int, folder: Path, *, rdflib_patience: float) -> dict[str, Any]:
    """Everything at one size."""
    home = folder / f"{size:.0e}"
    Case._day = date(2026, 11, 1)
    write(size, home)
    store = EmbeddedStore(current(home))
    norms = store.select(f"{sparql_prologue()}SELECT (COUNT(*) AS ?n) {{ ?n strata:action ?a }}").rows[0]["n"]
    manifest = json.loads((current(home) / "manifest.json").read_text())
    out: dict[str, Any] = {"triples": manifest["triples"], "norms": norms}
    count = PAIRS.get(size, FEWEST)
    print(size, "start", flush=True)
    out["cold_start_first_answer_s"] = _median(lambda: cold_start(home, "/v1/queries"))
    out["cold_start_ready_s"] = _median(lambda: cold_start(home, "/ready"))
    out |= bulk(home, folder)
    port, other = free_port(), free_port()
    ours, theirs = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{other}/query"
    with strata(home, port) as mine, oxigraph(home, other) as engine:
        httpx.get(f"{ours}/ready", timeout=60)
        out["memory_ready_mb"] = _family(mine.pid) >> 20
        for name in CASES:
            print(size, name, flush=True)
            case = Case(name, store)
            if any(p.name == "known_on" for p in case.query.parameters):
                out[f"{name} uncached"] = pairs(case, ours, theirs, count, cached=False)
            out[f"{name} cached"] = pairs(case, ours, theirs, count, cached=True)
        case = Case("norms", store)
        for clients in (1, 8, 32):
            print(size, clients, "clients", flush=True)
            out[f"norms {clients} clients"] = crowd(case, ours, theirs, clients, 64 if size <= 1_000_000 else 32)
        out["memory_after_mb"] = _family(mine.pid) >> 20
        out["other_memory_after_mb"] = _family(engine.pid) >> 20
        if rdflib_patience:
            for name in ("coverage", "versions"):
                print(size, "rdflib-endpoint", name, flush=True)
                out[f"rdflib-endpoint {name}"] = against_rdflib(home, Case(name, store), ours, rdflib_patience)
                out[f"rdflib {name}"] = rdflib_alone(home, Case(name, store), rdflib_patience)
    print(size, "hostile", flush=True)
    out["hostile"] = hostile(home, 30)
    return out


def _median(work: Callable[[], float]) -> float:
    return round(statistics.median(work() for _ in range(FEWEST)), 2)


def crowd(case: Case, ours: str, theirs: str, clients: int, count: int) -> dict[str, float]:
    """Requests a second and p99 here and there with so many clients at a time, in three rounds by turns."""
    mine, other = [], []
    for _ in range(3):
        mine.append(throughput(lambda: case.ours(ours, case.fresh()), clients, count // 2))
        other.append(throughput(lambda: case.theirs(theirs, case.fresh()), clients, count // 2))
    same = case.fresh()
    cached = throughput(lambda: case.ours(ours, same), clients, 500)
    middle = [statistics.median(values) for values in (*zip(*mine, strict=True), *zip(*other, strict=True))]
    names = ("rps", "p99_ms", "other_rps", "other_p99_ms")
    return {**dict(zip(names, middle, strict=True)), "cached_rps": cached[0], "cached_p99_ms": cached[1]}


def main() -> None:
    """Measure each size and write what was found."""
    folder, target = Path(sys.argv[1]), Path(sys.argv[2])
    sizes = [int(float(s)) for s in sys.argv[3:]]
    found: dict[str, Any] = {}
    for size in sizes:
        found[f"{size:.0e}"] = measure(size, folder, rdflib_patience=60 if size <= 100_000 else 0)
        target.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
