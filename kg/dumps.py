"""The whole snapshot as compressed files, written once and kept beside it."""

from __future__ import annotations

import gzip
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from pyoxigraph import RdfFormat, parse, serialize

from kg.namespaces import prefixes


@dataclass(frozen=True)
class Dump:
    """One form of the whole: its format, and what it keeps."""

    format: RdfFormat
    about: str


DUMPS = {
    "strata.nq.gz": Dump(RdfFormat.N_QUADS, "All graphs as the canonical N-Quads whose digest names the snapshot."),
    "strata.trig.gz": Dump(RdfFormat.TRIG, "All graphs, with prefixes."),
    "strata.nt.gz": Dump(RdfFormat.N_TRIPLES, "The union of all graphs."),
    "strata.ttl.gz": Dump(RdfFormat.TURTLE, "The union of all graphs, with prefixes."),
}
"""Dumps by file name."""


def dump(folder: Path, name: str) -> Path:
    """The dump of that name, written now if nobody asked for it before.

    It lies in the folder of the snapshot, or, where that cannot be written to, in the
    system's folder for temporary files.

    Args:
        folder: folder of the snapshot.
        name: a key of :data:`DUMPS`.
    """
    for room in _rooms(folder):
        if (room / name).is_file():
            return room / name
    for room in _rooms(folder):
        try:
            room.mkdir(parents=True, exist_ok=True)
            handle, draft = tempfile.mkstemp(dir=room, prefix=f".{name}-")
        except OSError:
            continue
        try:
            with os.fdopen(handle, "wb") as raw:
                _write(folder, DUMPS[name].format, raw)
            os.replace(draft, room / name)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise
        return room / name
    raise OSError(f"{folder}: no place to write {name} to")


def _rooms(folder: Path) -> tuple[Path, Path]:
    return folder / "dumps", Path(tempfile.gettempdir()) / f"strata-dumps-{os.getuid()}" / folder.name


def _write(folder: Path, kind: RdfFormat, raw: IO[bytes]) -> None:
    # No time of writing in it, so the same snapshot gives the same bytes.
    with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=6, mtime=0, filename="") as packed:
        if kind == RdfFormat.N_QUADS:
            with (folder / "dataset.nq").open("rb") as lines:
                while chunk := lines.read(1 << 20):
                    packed.write(chunk)
            return
        quads = parse(path=folder / "dataset.nq", format=RdfFormat.N_QUADS)
        data = quads if kind.supports_datasets else (q.triple for q in quads)
        names = prefixes() if kind != RdfFormat.N_TRIPLES else None
        serialize(data, output=cast(IO[bytes], packed), format=kind, prefixes=names)
