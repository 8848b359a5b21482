"""A graph of the real one's shape in any size: its frameworks over and over, under other names.

    python -m benchmarks.generate SIZE HOME [SEED]

Lines of the canonical N-Quads are copied with the identifiers of one framework renamed, so
each copy has the same provisions, norms, codings and derived statements as its original.
Which framework is copied next is drawn with a seed. Small sizes leave frameworks out.
"""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path
from time import perf_counter

from kg.snapshot import Build, _write_files, content_hash, current, home_dir, read_manifest

_OF = re.compile(r"https://w3id\.org/strata/(?:id|graph)/([a-z0-9-]+)")
_FRAMEWORK = re.compile(
    r"<https://w3id\.org/strata/id/([a-z0-9-]+)> <[^>]*#type> <https://w3id\.org/strata/ontology#Framework> "
)


def split(lines: list[str]) -> tuple[list[tuple[frozenset[str], str]], dict[str, list[str]]]:
    """Lines that belong to no framework or to several, with these; and those of each framework."""
    frameworks = {found[1] for line in lines if (found := _FRAMEWORK.match(line))}
    base: list[tuple[frozenset[str], str]] = []
    parts: dict[str, list[str]] = {name: [] for name in frameworks}
    for line in lines:
        names = frozenset(_OF.findall(line)) & frameworks
        if len(names) == 1:
            parts[min(names)].append(line)
        else:
            base.append((names, line))
    return base, parts


def grow(lines: list[str], size: int, seed: int) -> list[str]:
    """About ``size`` lines of the same shape, sorted as canonical N-Quads are."""
    base, parts = split(lines)
    draw = random.Random(seed)
    names = sorted(parts)
    draw.shuffle(names)
    out = [line for of, line in base if not of]
    kept: set[str] = set()
    names.sort(key=lambda n: len(parts[n]))
    for name in names:  # the smallest first, so that a small graph has several frameworks
        if len(out) + len(parts[name]) <= max(size, 1):
            out += parts[name]
            kept.add(name)
    out += [line for of, line in base if of and of <= kept]
    number = 0
    while size - len(out) > min(map(len, parts.values())):
        fitting = [n for n in names if len(parts[n]) <= size - len(out)]
        name = draw.choice(fitting)
        number += 1
        old, new = name, f"{name}-x{number}"
        pattern = re.compile(rf"(/(?:id|graph)/|\")({re.escape(old)})(?=[/>\"])")
        out += [pattern.sub(rf"\g<1>{new}", line) for line in parts[name]]
    return sorted(set(out))


def write(size: int, home: Path, seed: int = 7) -> Path:
    """A home folder with such a graph as its snapshot; made from the snapshot in ``STRATA_HOME``."""
    source = current(home_dir())
    lines = grow((source / "dataset.nq").read_text("utf-8").splitlines(), size, seed)
    digest = content_hash(lines)
    final = home / "snapshots" / digest
    final.parent.mkdir(parents=True, exist_ok=True)
    if not final.is_dir():
        _write_files(Build([], [], "generated"), lines, digest, final, perf_counter())
    (home / "current").write_text(digest + "\n")
    return final


if __name__ == "__main__":
    folder = write(int(float(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 7)
    print(read_manifest(folder).triples, folder)
