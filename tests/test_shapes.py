"""Bad data: each shape, hygiene rule and contradiction is shown to catch what it is for.

``tests/bad/<rule>.ttl`` is named after the one check that must catch it; its first lines say
at which node, and which further checks catch the same mistake. All of them are validated in
one run beside a small sound framework (``tests/toy``) and the closed lists of the real ones.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyoxigraph import NamedNode
from rdflib import Graph, URIRef
from rdflib.namespace import RDF, SH
from typer.testing import CliRunner

from kg import cli
from kg.content import data_dir, ontology_dir
from kg.errors import BuildError, ParseError
from kg.load import Source, find_sources
from kg.namespaces import GRAPH
from kg.snapshot import build, current, write
from kg.validate import Finding, hygiene_rules

HERE = Path(__file__).parent
TOY = HERE / "toy"
BAD = sorted((HERE / "bad").glob("*.ttl"))


@dataclass(frozen=True)
class Expectation:
    """What a bad file says of itself."""

    rule: str
    node: str
    found_in: str
    also: tuple[str, ...]


def expectation(path: Path) -> Expectation:
    head = path.read_text(encoding="utf-8")
    found = re.match(r"# Expect: (\S+) at <([^>]+)>(?: in (\S+))?\n(?:# Also: (.*)\n)?# Mistake: .+\n", head)
    assert found, f"{path}: say on the first lines what is expected"
    return Expectation(found[1], found[2], found[3] or path.name, tuple((found[4] or "").split()))


def beside_the_toy(*files: Path) -> list[Source]:
    real = data_dir() / "frameworks"
    shared = [
        *sorted(real.glob("*/framework.ttl")),
        *sorted(real.glob("*/roles.ttl")),
        *sorted(real.glob("*/shapes.ttl")),
    ]
    sources = find_sources(data=[TOY])
    for path in shared:
        graph = GRAPH.shapes if path.name == "shapes.ttl" else GRAPH[path.parent.name]
        sources.append(Source(path, str(path.relative_to(real)), NamedNode(graph)))
    return [*sources, *(Source(f, f.name, NamedNode(GRAPH.submitted)) for f in files)]


@pytest.fixture(scope="module")
def findings() -> dict[str, list[Finding]]:
    """All findings of all bad files at once, by file."""
    by_file: dict[str, list[Finding]] = defaultdict(list)
    for f in build(beside_the_toy(*BAD)).findings:
        by_file[f.file].append(f)
    return by_file


def test_the_toy_framework_is_sound() -> None:
    result = build(beside_the_toy())
    assert [str(f) for f in result.findings if f.severity == "violation"] == []


@pytest.mark.parametrize("path", BAD, ids=lambda p: p.stem)
def test_each_bad_file_is_caught_by_its_rule(path: Path, findings: dict[str, list[Finding]]) -> None:
    expected = expectation(path)
    assert expected.rule == path.stem
    mine = [f for f in findings[expected.found_in] if f.node == expected.node]
    caught = [f for f in mine if f.rule == expected.rule]
    assert caught, f"not caught; found instead: {[f.rule for f in mine]}"
    assert all(len(f.remedy) > 20 for f in caught)
    if expected.found_in == path.name:
        assert all(f.line and path.read_text("utf-8").splitlines()[f.line - 1].strip() for f in caught)
        graver = {f.rule for f in findings[path.name] if f.severity == "violation"}
        assert graver <= {expected.rule, *expected.also}, "the file is broken in more ways than it says"


def test_every_check_has_a_failing_example() -> None:
    shapes = Graph()
    for file in [*(ontology_dir() / "shapes").glob("*.ttl"), *data_dir().glob("frameworks/*/shapes.ttl")]:
        shapes.parse(file)
    with_message = set(shapes.subjects(SH.message)) | set(shapes.subjects(SH.sparql))
    named = {str(s).rpartition("#")[2] for s in with_message if isinstance(s, URIRef)}
    rules = named | {p.stem for p in hygiene_rules()}
    examples = {p.stem for p in BAD}
    assert rules - examples == set()
    assert {e for e in examples - rules if not e.startswith("false-")} == set()


def test_every_shape_says_what_to_do_and_how_grave_it_is() -> None:
    for file in (ontology_dir() / "shapes").glob("*.ttl"):
        shapes = Graph().parse(file)
        for shape in set(shapes.subjects(RDF.type, SH.PropertyShape)) | set(shapes.subjects(SH.sparql)):
            assert shapes.value(shape, SH.severity) in {SH.Violation, SH.Warning, SH.Info}, shape
            holder = shapes.value(shape, SH.sparql) or shape
            assert len(str(shapes.value(holder, SH.message))) > 15, shape


# ------------------------------------------------------------------ a failed build changes nothing


@pytest.mark.parametrize("name", ["norm-bearer", "coding-rationale", "provision-parent", "application-overlap"])
def test_a_failed_build_leaves_the_served_snapshot(name: str, home: Path) -> None:
    before, files = (home / "current").read_text(), sorted(p.name for p in (home / "snapshots").iterdir())
    result = build(beside_the_toy(HERE / "bad" / f"{name}.ttl"))
    with pytest.raises(BuildError, match="violations"):
        write(result, home)
    assert (home / "current").read_text() == before
    assert sorted(p.name for p in (home / "snapshots").iterdir()) == files
    assert current(home).is_dir()


def test_a_syntax_error_names_file_and_line(tmp_path: Path) -> None:
    bad = tmp_path / "broken.ttl"
    bad.write_text("@prefix a: <https://example.org/> .\na:b a:c a:d .\na:b a:c ;;; [ .\n")
    with pytest.raises(ParseError) as caught:
        build(beside_the_toy(bad))
    assert "broken.ttl:3" in str(caught.value)


def test_bytes_that_are_not_utf8_are_named(tmp_path: Path) -> None:
    bad = tmp_path / "latin.ttl"
    bad.write_bytes(b'<a:b> <a:c> "caf\xe9" .\n')
    with pytest.raises(ParseError, match="not UTF-8"):
        build(beside_the_toy(bad))


def test_validate_on_the_command_line_names_file_line_node_and_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "find_sources", lambda **_: beside_the_toy())
    bad = HERE / "bad" / "norm-bearer.ttl"
    answer = CliRunner().invoke(cli.app, ["validate", str(bad)])
    assert answer.exit_code == 1
    line = next(x for x in answer.stderr.splitlines() if "norm-bearer]" in x)
    assert f"{bad}:8: " in line
    assert "rule_1/norm-101" in line
    assert "name who must or may act" in line
