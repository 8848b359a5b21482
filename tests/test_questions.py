"""Competency questions in words, a file of ``questions/`` for each framework, answers read from its source by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Get = Callable[..., Any]
FILES = sorted((Path(__file__).parent / "questions").glob("*.yaml"))
QUESTIONS = [
    pytest.param(file.stem, number, question, id=f"{file.stem}-{number}")
    for file in FILES
    for number, question in enumerate(yaml.safe_load(file.read_text(encoding="utf-8")), 1)
]


def _rows(get: Get, framework: str, question: dict[str, Any]) -> set[str]:
    if "norms" in question:
        rows = get("/v1/norms", **({"framework": framework} | question["norms"]), limit=1000)["items"]
        found = {r["path"].rsplit("/norm-", 1)[0] for r in rows}
    elif "terms" in question:
        found = {r["term"] for r in get("/v1/terms", framework=framework, limit=1000, **question["terms"])["items"]}
    elif "provisions" in question:
        rows = get("/v1/provisions", framework=framework, limit=1000, **question["provisions"])["items"]
        found = {r["path"] for r in rows}
    else:
        rows = get(f"/v1/provisions/{framework}/{question['explained']}")["explained_by"]
        found = {r["path"] for r in rows}
    return {p for p in found if p.startswith(question.get("within", ""))}


@pytest.mark.parametrize(("framework", "number", "question"), QUESTIONS)
def test_question(get: Get, framework: str, number: int, question: dict[str, Any]) -> None:
    if "norm" in question:
        found = get(f"/v1/norms/{framework}/{question['norm']}")
        facts: dict[str, list[str]] = {}
        for f in found["facts"]:
            facts.setdefault(f["property"], []).append(str(f["value"]).removeprefix("https://w3id.org/strata/id/"))
        for name, value in question.get("is", {}).items():
            assert found[name] == value, name
        for name, values in question.get("facts", {}).items():
            for value in values:
                assert any(value in v for v in facts.get(name, [])), (name, facts.get(name))
        assert not set(question.get("lacks_facts", ())) & set(facts)
        return
    if "provision" in question:
        found = get(f"/v1/provisions/{framework}/{question['provision']}")
        assert question.get("summary", "").casefold() in found["summary"].casefold()
        assert found["reason"] == question.get("reason", found["reason"])
        return
    rows = _rows(get, framework, question)
    assert set(question.get("has", ())) <= rows
    assert not set(question.get("lacks", ())) & rows
    assert "exactly" not in question or rows == set(question["exactly"])
    assert len(rows) == question.get("count", len(rows))
    assert {"has", "lacks", "exactly", "count"} & question.keys(), "a question must be able to fail"
