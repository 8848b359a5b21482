"""Competency questions in words, answers read from the sources by hand.

A file of ``questions/`` for each framework, by whose name the API is asked, and ``across`` for those that lay several
beside each other, whose paths begin with the framework.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Get = Callable[..., Any]
ID = "https://w3id.org/strata/id/"
FILES = sorted((Path(__file__).parent / "questions").glob("*.yaml"))
QUESTIONS = [
    pytest.param(file.stem, number, question, id=f"{file.stem}-{number}")
    for file in FILES
    for number, question in enumerate(yaml.safe_load(file.read_text(encoding="utf-8")), 1)
]


def _asked(framework: str, filters: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a query: the framework of the file, unless it is ``across`` or the question names another."""
    own = {} if framework == "across" else {"framework": framework}
    return own | filters | {"limit": 1000}


def _path(framework: str, row: dict[str, Any]) -> str:
    path = str(row["path"]).rsplit("/norm-", 1)[0]
    return f"{row['framework']}/{path}" if framework == "across" else path


def _rows(get: Get, framework: str, question: dict[str, Any]) -> set[str]:
    if "norms" in question:
        rows = get("/v1/norms", **_asked(framework, question["norms"]))["items"]
        found = {_path(framework, r) for r in rows}
    elif "terms" in question:
        found = {r["term"] for r in get("/v1/terms", **_asked(framework, question["terms"]))["items"]}
    elif "provisions" in question:
        rows = get("/v1/provisions", **_asked(framework, question["provisions"]))["items"]
        found = {_path(framework, r) for r in rows}
    elif "frameworks" in question:  # those that have a norm which meets the filters
        rows = get("/v1/coverage", rows="kind", columns="framework", limit=1000, **question["frameworks"])["cells"]
        found = {r["column"] for r in rows if r["norms"]}
    elif "unread" in question:  # units under which something could not be read
        found = {r["under"] for r in get("/v1/unread", **_asked(framework, question["unread"]))["items"] if r["under"]}
    elif "grounds" in question:  # a unit and, after a blank, what it rests on
        rows = get("/v1/grounds", **_asked(framework, question["grounds"]))["items"]
        found = {f"{r['path']} {r['ground'].removeprefix(ID)}" for r in rows}
    elif "sparql" in question:  # values of the one variable
        rows = get("/sparql", query=question["sparql"], format="json")["results"]["bindings"]
        found = {cell["value"].removeprefix(ID) for row in rows for cell in row.values()}
    else:
        rows = get(f"/v1/provisions/{framework}/{question['explained']}")["explained_by"]
        found = {r["path"] for r in rows}
    return {p for p in found if p.startswith(question.get("within", ""))}


def _cells(get: Get, framework: str, question: dict[str, Any]) -> dict[str, Any]:
    """What stands in the cells ``row|column`` of a table: numbers of norms, or classes of gaps."""
    name, value = ("gaps", "gap") if "gaps" in question else ("coverage", "norms")
    cells = get(f"/v1/{name}", **_asked(framework, question[name]))["cells"]
    assert len(cells) < 1000, "a table that fills the page may go on"
    return {f"{c['row']}|{c['column']}": c[value] for c in cells}


@pytest.mark.parametrize(("framework", "number", "question"), QUESTIONS)
def test_question(get: Get, framework: str, number: int, question: dict[str, Any]) -> None:
    if "cells" in question:
        cells = _cells(get, framework, question)
        given = {name: cells.get(name, 0) for name in question["cells"]}
        # A cell that must not be empty is given as ">0".
        assert {k: ">0" if question["cells"][k] == ">0" and v else v for k, v in given.items()} == question["cells"]
        return
    if "norm" in question:
        found = get(f"/v1/norms/{framework}/{question['norm']}")
        facts: dict[str, list[str]] = {}
        for f in found["facts"]:
            facts.setdefault(f["property"], []).append(str(f["value"]).removeprefix(ID))
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
