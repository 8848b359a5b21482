"""What an ontologist who imports the ontology may rely on."""

from __future__ import annotations

import shutil
from collections import defaultdict
from pathlib import Path

import owlrl
import pytest
from pyoxigraph import NamedNode, Quad, RdfFormat, serialize
from rdflib import OWL, RDF, RDFS, SKOS, BNode, Graph, URIRef
from rdflib.namespace import DCTERMS

from kg.content import ontology_dir
from kg.infer import infer
from kg.load import find_sources, parse_source
from kg.namespaces import STRATA

TOY = Path(__file__).parent / "toy"
KINDS = (OWL.Class, OWL.ObjectProperty, OWL.DatatypeProperty)


def graph_of(quads: list[Quad]) -> Graph:
    data = serialize((q.triple for q in quads), format=RdfFormat.N_TRIPLES)
    assert data is not None
    return Graph(bind_namespaces="none").parse(data=data, format="nt")


@pytest.fixture(scope="module")
def modules() -> Graph:
    graph = Graph()
    for file in [ontology_dir() / "strata.ttl", *sorted((ontology_dir() / "modules").glob("*.ttl"))]:
        graph.parse(file)
    return graph


def test_every_term_has_label_definition_source_and_home(modules: Graph) -> None:
    terms = {t for kind in KINDS for t in modules.subjects(RDF.type, kind) if str(t).startswith(str(STRATA))}
    assert len(terms) > 100
    for term in terms:
        for needed in (RDFS.label, SKOS.definition, DCTERMS.source, RDFS.isDefinedBy):
            assert modules.value(term, needed) is not None, (term, needed)


def test_every_module_can_be_cited_and_imports_only_what_is_here(modules: Graph) -> None:
    ontologies = set(modules.subjects(RDF.type, OWL.Ontology))
    assert URIRef("https://w3id.org/strata/ontology") in ontologies
    for module in ontologies:
        assert modules.value(module, OWL.versionIRI) is not None
        assert modules.value(module, DCTERMS.license) is not None
        assert set(modules.objects(module, OWL.imports)) <= ontologies
    root = URIRef("https://w3id.org/strata/ontology")
    assert set(modules.transitive_objects(root, OWL.imports)) == ontologies


def test_the_ontology_keeps_to_owl_2_dl_in_what_can_be_counted(modules: Graph) -> None:
    # OWL 2 Structural Specification, section 5.8.1 and 11.2: one kind a property, no punning of
    # object and datatype properties, and no transitive or chained property that is functional.
    kinds = (OWL.ObjectProperty, OWL.DatatypeProperty, OWL.AnnotationProperty)
    for term in {t for k in kinds for t in modules.subjects(RDF.type, k)}:
        assert sum((term, RDF.type, k) in modules for k in kinds) == 1, term
    not_simple = set(modules.subjects(RDF.type, OWL.TransitiveProperty))
    not_simple |= set(modules.subjects(OWL.propertyChainAxiom))
    for wider in list(not_simple):
        not_simple |= set(modules.transitive_objects(wider, RDFS.subPropertyOf))
    simple_only = [
        OWL.FunctionalProperty,
        OWL.InverseFunctionalProperty,
        OWL.AsymmetricProperty,
        OWL.IrreflexiveProperty,
    ]
    bounds = [OWL.cardinality, OWL.maxCardinality, OWL.minQualifiedCardinality, OWL.maxQualifiedCardinality]
    assert not_simple
    for p in not_simple:
        assert not any((p, RDF.type, kind) in modules for kind in simple_only), p
        for node in modules.subjects(OWL.onProperty, p):
            assert not any((node, bound, None) in modules for bound in bounds), p


def test_alignments_point_outwards_and_never_say_sameas() -> None:
    for file in (ontology_dir() / "alignments").glob("*.ttl"):
        graph = Graph().parse(file)
        assert not list(graph.triples((None, OWL.sameAs, None)))
        assert not list(graph.triples((None, OWL.imports, None)))


# ------------------------------------------------------------------ reasoning


@pytest.fixture(scope="module")
def toy_quads() -> list[Quad]:
    return [q for s in find_sources(data=[TOY]) for q in parse_source(s)]


def test_nothing_that_owl_rl_entails_is_missed(toy_quads: list[Quad]) -> None:
    """owlrl is the reference for OWL 2 RL; closing our result by it must add no statement of ours."""
    derived, contradictions = infer(toy_quads)
    assert contradictions == []
    told = [q for q in toy_quads if "/graph/shapes" not in str(q.graph_name)]
    ours = graph_of([*told, *derived])
    before = set(ours)
    owlrl.DeductiveClosure(owlrl.OWLRL_Semantics, axiomatic_triples=False, datatype_axioms=False).expand(ours)
    ns = str(STRATA)
    declared = {t for k in (OWL.Class, *KINDS) for t in ours.subjects(RDF.type, k)}
    added = {
        (s, p, o)
        for s, p, o in set(ours) - before
        if not isinstance(s, BNode)
        and s not in declared
        and (str(p).startswith(ns) or (p == RDF.type and str(o).startswith(ns)))
    }
    assert added == set()


@pytest.mark.parametrize(
    ("node", "class_"),
    [
        ("rule_2/norm-1", "DeveloperNorm"),
        ("rule_2/norm-1", "DeveloperOnlyNorm"),
        ("rule_1/norm-1", "SociotechnicalNorm"),
        ("rule_1/norm-1", "Duty"),
        ("rule_1/norm-1", "Norm"),
        ("rule_1", "Citable"),
    ],
)
def test_defined_classes_are_filled_by_inference(node: str, class_: str, toy_quads: list[Quad]) -> None:
    subject = NamedNode(f"https://w3id.org/strata/id/harbour-charter/{node}")
    assert class_ in types_of(toy_quads)[subject.value]


def types_of(quads: list[Quad]) -> dict[str, set[str]]:
    """Local names of the classes that inference adds, by node."""
    derived, _ = infer(quads)
    found: dict[str, set[str]] = defaultdict(set)
    for q in derived:
        if q.predicate.value == str(RDF.type) and isinstance(q.subject, NamedNode):
            found[q.subject.value].add(str(getattr(q.object, "value", "")).rpartition("#")[2])
    return found


def test_classes_are_not_filled_where_they_must_not_be(toy_quads: list[Quad]) -> None:
    types = types_of(toy_quads)
    charter = "https://w3id.org/strata/id/harbour-charter/"
    assert not types[f"{charter}rule_1/norm-1"] & {
        "DeveloperNorm",
        "DeveloperOnlyNorm",
        "UmbrellaNorm",
        "SanctionedNorm",
    }
    assert not types[f"{charter}rule_2/norm-1"] & {"SociotechnicalNorm", "InferredBearerNorm"}
    assert not types[f"{charter}rule_3"] & {"Norm"}


@pytest.mark.skipif(shutil.which("java") is None, reason="HermiT needs Java")
def test_hermit_finds_the_ontology_consistent_and_every_class_satisfiable(modules: Graph, tmp_path: Path) -> None:
    import owlready2

    closed = Graph()
    for triple in modules:
        if triple[1] != OWL.imports:
            closed.add(triple)
    file = tmp_path / "strata.nt"
    closed.serialize(file, format="nt", encoding="utf-8")
    world = owlready2.World(filename=str(tmp_path / "quadstore.sqlite3"))
    world.get_ontology(file.as_uri()).load()
    with world.get_ontology("https://w3id.org/strata/inferred"):
        owlready2.sync_reasoner_hermit(world, debug=0, ignore_unsupported_datatypes=True)
    assert list(world.inconsistent_classes()) == []
    sociotechnical = world["https://w3id.org/strata/ontology#DeveloperOnlyNorm"]
    assert sociotechnical is not None
    world.close()


@pytest.mark.skipif(shutil.which("java") is None, reason="HermiT needs Java")
def test_hermit_sees_a_contradiction_when_there_is_one(modules: Graph, tmp_path: Path) -> None:
    import owlready2

    closed = Graph()
    for triple in modules:
        if triple[1] != OWL.imports:
            closed.add(triple)
    both = URIRef("https://w3id.org/strata/id/x")
    closed.add((both, RDF.type, URIRef(STRATA.Obligation)))
    closed.add((both, RDF.type, URIRef(STRATA.Permission)))
    file = tmp_path / "bad.nt"
    closed.serialize(file, format="nt", encoding="utf-8")
    world = owlready2.World(filename=str(tmp_path / "quadstore.sqlite3"))
    world.get_ontology(file.as_uri()).load()
    with (
        pytest.raises(owlready2.OwlReadyInconsistentOntologyError),
        world.get_ontology("https://w3id.org/strata/inferred"),
    ):
        owlready2.sync_reasoner_hermit(world, debug=0, ignore_unsupported_datatypes=True)
    world.close()
