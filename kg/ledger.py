"""The completeness ledger held against the official text.

The text itself is not in this repository. Whoever has it, cut into units, can hand it in
as JSON Lines, one object for each unit: ``path`` (as in our identifiers), ``kind`` (as in
the scheme ``provision-type``), ``text``, and ``heading`` where the unit has one.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kg.errors import StrataError
from kg.queries import answer_of
from kg.store import Store

_MODAL = re.compile(r"\b(shall|must|may|should)\b", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.;:])\s+")


@dataclass(frozen=True)
class Unit:
    """One unit of an official text, as handed in."""

    path: str
    kind: str
    text: str


@dataclass(frozen=True)
class Difference:
    """One unit where text and graph part; ``what`` is missing, surplus, changed or no-norm.

    ``no-norm`` is a unit whose words put an actor under "shall", "must", "may" or "should"
    and in which no norm is stated; ``detail`` then gives the reason the graph has for it.
    """

    what: str
    path: str
    detail: str


@dataclass(frozen=True)
class Audit:
    """What came of laying a text beside the graph; ``counts`` by kind: text, encoded, left out."""

    counts: Mapping[str, tuple[int, int, int]]
    differences: Sequence[Difference]

    @property
    def complete(self) -> bool:
        """Whether each unit of the text is encoded, or left out by a statement in the data, and unchanged."""
        holes = any(text != encoded + left for text, encoded, left in self.counts.values())
        return not holes and not any(d.what in ("surplus", "changed") for d in self.differences)


def text_digest(text: str) -> str:
    """SHA-256 of a text in NFKC with runs of white space made one blank, as ``sha256:`` and hex digits."""
    words = " ".join(unicodedata.normalize("NFKC", text).split())
    return "sha256:" + hashlib.sha256(words.encode()).hexdigest()


def read_units(file: Path) -> list[Unit]:
    """Units of an official text from a file of JSON Lines.

    Raises:
        StrataError: the file cannot be read, or a line is not such an object; names the line.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StrataError(f"{file}: {error}. Give the text as JSON Lines in UTF-8.") from error
    units: dict[str, Unit] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            unit = Unit(*(_field(row, name) for name in ("path", "kind", "text")))
        except (ValueError, KeyError, TypeError) as error:
            raise StrataError(
                f"{file}:{number}: {error}. Each line is an object with the strings path, kind and text."
            ) from error
        if unit.path in units:
            raise StrataError(f"{file}:{number}: {unit.path} was given before. Keep one line for each unit.")
        units[unit.path] = unit
    if not units:
        raise StrataError(f"{file}: holds no unit. Give one JSON object for each unit of the text.")
    return list(units.values())


def _field(row: object, name: str) -> str:
    if not isinstance(row, dict):
        raise TypeError("not an object")
    if not isinstance(row.get(name), str):
        raise KeyError(f"no string '{name}'")
    return str(row[name])


def audit(store: Store, framework: str, version: str, units: Sequence[Unit]) -> Audit:
    """Hold ``units`` against what the graph has of a version, a path such as ``version/2024-07-12``.

    Raises:
        StrataError: the framework has no such version.
    """
    versions = {str(v["path"]): v for v in answer_of(store, "versions", framework=framework)}
    if version not in versions:
        raise StrataError(f"{framework} has no '{version}'. Valid: {', '.join(versions) or 'none'}.")
    day = str(versions[version]["in_force_from"])
    encoded = {str(r["path"]): r for r in answer_of(store, "provisions", framework=framework, known_on=day)}
    left = {
        str(r["type"]): int(r["left_out"])
        for r in answer_of(store, "ledger", framework=framework)
        if r["version"] == version
    }
    source = {u.path: u for u in units}
    kinds = Counter(u.kind for u in units)
    have = Counter(str(encoded[p]["type"]) for p in source if p in encoded)
    counts = {k: (n, have[k], left.get(k, 0)) for k, n in kinds.items()}
    found: list[Difference] = []
    actors = _actors(store)
    for unit in units:
        row = encoded.get(unit.path)
        if row is None:
            found.append(Difference("missing", unit.path, f"{unit.kind}, not encoded"))
            continue
        if unit.text.strip() and row["text_digest"] and row["text_digest"] != text_digest(unit.text):
            found.append(Difference("changed", unit.path, "the words differ from those that were read"))
        # Recitals are written with "should" throughout and bind nobody.
        if not row["norms"] and unit.kind != "recital" and _binds(unit.text, actors):
            found.append(Difference("no-norm", unit.path, str(row["reason"])))
    found += [
        Difference("surplus", path, f"{row['type']}, not in the text given")
        for path, row in encoded.items()
        if path not in source and row["type"] in kinds
    ]
    return Audit(counts, found)


def _actors(store: Store) -> re.Pattern[str]:
    """A pattern for the names of those who can bear a norm, in singular and plural."""
    labels = {str(r["label"]).split("(")[0].strip().casefold() for r in answer_of(store, "concepts", scheme="role")}
    tails = {label.split(",")[0].rpartition(" of ")[0] or label for label in labels}
    stems = sorted({re.sub(r"(y|ies|s)$", "", t) for t in tails | labels if len(t) > 3}, key=len, reverse=True)
    return re.compile(r"\b(" + "|".join(map(re.escape, stems)) + r")(y|ies|s)?\b", re.IGNORECASE)


def _binds(text: str, actors: re.Pattern[str]) -> bool:
    for sentence in _SENTENCE.split(text):
        modal = _MODAL.search(sentence)
        if modal and actors.search(sentence[: modal.start()]):
            return True
    return False
