"""Immutable, content-addressed snapshots of the graph, and the one that is served.

A home folder holds ``snapshots/<hash>/`` with an on-disk store, the whole dataset as
canonical N-Quads, and a manifest; and ``current``, a file with the hash that is served.
The hash is the SHA-256 of the sorted N-Quads after RDFC-1.0 canonicalisation, so equal
content has an equal hash wherever it is built. A snapshot is written beside its place and
moved there whole; ``current`` changes last, by one atomic rename.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

from pyoxigraph import (
    BlankNode,
    CanonicalizationAlgorithm,
    Dataset,
    Quad,
    RdfFormat,
    Store,
    parse,
)

from kg import __version__
from kg.content import ontology_dir, queries_dir
from kg.errors import BuildError, NoSnapshot
from kg.infer import infer
from kg.load import Source, find_sources, fingerprint, parse_source
from kg.queries import description_quads

if TYPE_CHECKING:
    from kg.validate import Finding

FORMAT = 1
_T = TypeVar("_T")


@dataclass(frozen=True)
class Manifest:
    """What a snapshot is: its hash, its size by graph, its sources and how long it took.

    ``seconds`` and ``built`` are of the build, not of the content, and do not enter the hash.
    """

    hash: str
    triples: int
    asserted: int
    derived: int
    graphs: dict[str, int]
    sources: str
    version: str
    built: str
    seconds: dict[str, float]
    warnings: int
    format: int = FORMAT


@dataclass
class Build:
    """A build that has run: its findings, and its quads if it may be served."""

    findings: list[Finding]
    quads: list[Quad]
    sources: str
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether no violation was found."""
        return not any(f.severity == "violation" for f in self.findings)


def home_dir() -> Path:
    """The folder for snapshots: ``STRATA_HOME``, or ``.strata`` in the working folder."""
    return Path(os.environ.get("STRATA_HOME", ".strata"))


def _rule_files() -> list[Path]:
    return [
        *sorted((ontology_dir() / "rules").rglob("*.rq")),
        *sorted((ontology_dir() / "hygiene").glob("*.rq")),
        *sorted(queries_dir().glob("*.rq")),
    ]


def sources_digest(sources: Sequence[Source]) -> str:
    """Digest of everything a build depends on."""
    return fingerprint(sources, _rule_files())


def build(sources: Sequence[Source] | None = None, *, progress: Callable[[str], None] = lambda _: None) -> Build:
    """Load, infer and validate. Nothing is written.

    Raises:
        ParseError: a file is not well-formed.
        BuildError: a rule or shape cannot be evaluated.
    """
    from kg.validate import validate  # brings pySHACL, for which one who only serves need not wait

    chosen = find_sources() if sources is None else list(sources)
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], _T]) -> _T:
        progress(name)
        start = perf_counter()
        result = work()
        seconds[name] = round(perf_counter() - start, 3)
        return result

    parsed = timed("load", lambda: [(s, list(parse_source(s))) for s in chosen])
    asserted = [q for _, quads in parsed for q in quads]
    derived, contradictions = timed("infer", lambda: infer(asserted))
    findings = timed("validate", lambda: validate(parsed, derived, contradictions))
    quads = [*asserted, *derived, *description_quads()]
    return Build(findings, quads, sources_digest(chosen), seconds)


def canonical(quads: Iterable[Quad]) -> list[str]:
    """Sorted N-Quads lines of the canonicalised dataset (RDFC-1.0)."""
    plain: list[Quad] = []
    blank: list[Quad] = []
    for q in set(quads):
        has_blank = isinstance(q.subject, BlankNode) or isinstance(q.object, BlankNode)
        (blank if has_blank else plain).append(q)
    # Only statements with blank nodes need the algorithm; the rest is canonical as it is.
    dataset = Dataset(blank)
    dataset.canonicalize(CanonicalizationAlgorithm.RDFC_1_0)
    return sorted({f"{q} ." for q in [*plain, *dataset]})


def content_hash(lines: Sequence[str]) -> str:
    """SHA-256 of canonical N-Quads, as 64 hexadecimal digits."""
    return sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def write(result: Build, home: Path) -> Manifest:
    """Store a build as a snapshot and make it the one that is served.

    Raises:
        BuildError: the build has violations, or the folder cannot be written. What was
            served before is served still.
    """
    if not result.ok:
        n = sum(f.severity == "violation" for f in result.findings)
        raise BuildError(f"Not stored: {n} violations. Mend them and build again.")
    start = perf_counter()
    lines = canonical(result.quads)
    digest = content_hash(lines)
    final = home / "snapshots" / digest
    try:
        (home / "snapshots").mkdir(parents=True, exist_ok=True)
        with _alone(home):
            if not _whole(final):
                _write_files(result, lines, digest, final, start)
            manifest = read_manifest(final)
            if manifest.sources != result.sources:  # same content from touched sources
                manifest = Manifest(**{**asdict(manifest), "sources": result.sources})
                _write_text(final / "manifest.json", json.dumps(asdict(manifest), indent=2))
            _write_text(home / "current", digest + "\n")
    except OSError as error:
        raise BuildError(f"{error.filename or home}: {error.strerror}. Free or change the folder.") from error
    return manifest


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """One writer at a time. The system frees the lock of a writer that was killed, so whatever
    half-written folder there is when we hold it is nobody's, and is removed."""
    with (home / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for rest in (home / "snapshots").glob(".building-*"):
            shutil.rmtree(rest, ignore_errors=True)
        yield


def _write_files(result: Build, lines: list[str], digest: str, final: Path, start: float) -> None:
    staging = Path(tempfile.mkdtemp(prefix=".building-", dir=final.parent))
    try:
        text = "".join(f"{line}\n" for line in lines)
        (staging / "dataset.nq").write_text(text, encoding="utf-8")
        store = Store(str(staging / "store"))
        store.bulk_load(text.encode(), RdfFormat.N_QUADS)
        store.flush()
        store.optimize()
        graphs: dict[str, int] = {}
        for q in parse(text, RdfFormat.N_QUADS):
            name = str(getattr(q.graph_name, "value", "default"))
            graphs[name] = graphs.get(name, 0) + 1
        del store
        derived = sum(n for g, n in graphs.items() if g.endswith("/derived"))
        seconds = {**result.seconds, "store": round(perf_counter() - start, 3)}
        manifest = Manifest(
            hash=digest,
            triples=len(lines),
            asserted=len(lines) - derived,
            derived=derived,
            graphs=dict(sorted(graphs.items())),
            sources=result.sources,
            version=__version__,
            built=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=seconds,
            warnings=sum(f.severity == "warning" for f in result.findings),
        )
        _write_text(staging / "manifest.json", json.dumps(asdict(manifest), indent=2))
        if final.exists():
            shutil.rmtree(final)
        staging.rename(final)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _write_text(path: Path, text: str) -> None:
    """Replace a file in one step, so that no reader sees half of it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    os.replace(name, path)


def _whole(folder: Path) -> bool:
    return (folder / "manifest.json").is_file() and (folder / "store").is_dir()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a snapshot folder."""
    known = Manifest.__dataclass_fields__
    raw = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return Manifest(**{k: v for k, v in raw.items() if k in known})


def current(home: Path) -> Path:
    """Folder of the snapshot that is served.

    Raises:
        NoSnapshot: nothing was built yet, or what ``current`` names is gone.
    """
    pointer = home / "current"
    if not pointer.is_file():
        raise NoSnapshot(f"{home}: no snapshot yet. Run: strata build")
    folder = home / "snapshots" / pointer.read_text(encoding="utf-8").strip()
    if not _whole(folder):
        raise NoSnapshot(f"{folder}: the snapshot is missing or incomplete. Run: strata build")
    return folder
