"""The ledger held against an official text: what is missing, surplus, changed, or binds an actor without a norm."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kg.errors import StrataError
from kg.ledger import Unit, audit, read_units, text_digest
from kg.queries import answer_of
from kg.snapshot import current
from kg.store import EmbeddedStore

NIST = ("nist-ai-rmf", "version/1.0")


@pytest.fixture(scope="module")
def units(store: EmbeddedStore) -> list[Unit]:
    # The Playbook stands beside version 1.0 and is no part of it.
    rows = [r for r in answer_of(store, "provisions", framework=NIST[0]) if r["type"] != "suggested-action"]
    return [Unit(str(r["path"]), str(r["type"]), "") for r in rows]


def test_a_text_with_the_same_units_is_complete(store: EmbeddedStore, units: list[Unit]) -> None:
    result = audit(store, *NIST, units)
    assert result.complete
    assert not result.differences
    assert result.counts["subcategory"] == (72, 72, 0)


def test_missing_and_surplus_units_are_named(store: EmbeddedStore, units: list[Unit]) -> None:
    text = [*units[1:], Unit("govern_9.9", "subcategory", "")]
    found = {(d.what, d.path) for d in audit(store, *NIST, text).differences}
    assert found == {("missing", "govern_9.9"), ("surplus", units[0].path)}


def test_changed_words_and_a_duty_without_norm_are_named(store: EmbeddedStore, units: list[Unit]) -> None:
    words = "The organisation shall keep records."
    text = [replace(u, text=words) if u.path == "govern_1" else u for u in units]
    result = audit(store, *NIST, text)
    assert {("no-norm", "govern_1"), ("changed", "govern_1")} == {(d.what, d.path) for d in result.differences}
    assert not result.complete


def test_what_was_left_out_knowingly_is_no_hole(store: EmbeddedStore) -> None:
    rows = answer_of(store, "ledger", framework="eu-ai-act")
    row = next(r for r in rows if r["left_out"])
    assert (row["version"], row["type"], row["left_out"]) == ("version/2026-07-27", "subparagraph", 11)
    assert row["encoded"] + row["left_out"] == row["source"]
    assert "Footnotes" in row["left_out_reason"]


def test_digest_does_not_mind_white_space() -> None:
    assert text_digest("a  b\n c") == text_digest("a b c") != text_digest("a b d")


@pytest.mark.parametrize(
    ("line", "says"),
    [("{", ":1:"), ('{"path": "a", "kind": "b"}', "no string 'text'"), ("[]", "not an object")],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, says: str) -> None:
    file = tmp_path / "text.jsonl"
    file.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(StrataError, match=says):
        read_units(file)


def test_a_unit_given_twice_is_refused(tmp_path: Path) -> None:
    row = json.dumps({"path": "govern", "kind": "function", "text": ""})
    file = tmp_path / "text.jsonl"
    file.write_text(f"{row}\n\n{row}\n", encoding="utf-8")
    with pytest.raises(StrataError, match=r":3: govern was given before"):
        read_units(file)


def test_an_unknown_version_is_refused_with_the_valid_ones(store: EmbeddedStore, units: list[Unit]) -> None:
    with pytest.raises(StrataError, match=r"version/1\.0"):
        audit(store, NIST[0], "version/9", units)


def test_the_command_exits_with_1_when_a_unit_is_missing(
    home: Path, units: list[Unit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kg import cli

    monkeypatch.setattr(cli, "_store", lambda: EmbeddedStore(current(home)))
    file = tmp_path / "text.jsonl"
    rows = [{"path": u.path, "kind": u.kind, "text": u.text} for u in units]
    file.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    run = CliRunner().invoke(cli.app, ["ledger-check", NIST[0], str(file), "--version", NIST[1]])
    assert run.exit_code == 0, run.output
    with file.open("a", encoding="utf-8") as more:
        more.write(json.dumps({"path": "govern_9", "kind": "category", "text": ""}) + "\n")
    run = CliRunner().invoke(cli.app, ["ledger-check", NIST[0], str(file), "--version", NIST[1]])
    assert run.exit_code == 1
    assert "missing\tgovern_9" in run.output
