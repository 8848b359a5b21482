"""The service and its dataset, described in RDF: SPARQL Service Description, VoID, DCAT."""

from __future__ import annotations

from functools import lru_cache

from rdflib import BNode, Graph, Literal, URIRef
from rdflib.namespace import DCAT, DCTERMS, FOAF, OWL, RDF, SDO, VOID, XSD, Namespace

from kg.dumps import DUMPS
from kg.namespaces import STRATA
from kg.results import DESCRIPTION_FORMATS
from kg.snapshot import Manifest
from kg.store import Store, Value

SD = Namespace("http://www.w3.org/ns/sparql-service-description#")
_FORMATS = Namespace("http://www.w3.org/ns/formats/")
_LICENCE = URIRef("https://creativecommons.org/licenses/by/4.0/")
_NAMES = dict(zip(DESCRIPTION_FORMATS, ("turtle", "nt", "json-ld", "xml"), strict=True))
_WRITTEN = (
    "SPARQL_Results_JSON",
    "SPARQL_Results_XML",
    "SPARQL_Results_CSV",
    "SPARQL_Results_TSV",
    "Turtle",
    "N-Triples",
    "N-Quads",
    "TriG",
    "JSON-LD",
    "RDF_XML",
)


def _new() -> Graph:
    graph = Graph(bind_namespaces="none")
    for prefix, space in (
        ("sd", SD),
        ("void", VOID),
        ("dcat", DCAT),
        ("dcterms", DCTERMS),
        ("foaf", FOAF),
        ("formats", _FORMATS),
        ("owl", OWL),
        ("schema", SDO),
    ):
        graph.bind(prefix, space)
    return graph


def _write(graph: Graph, media_type: str) -> bytes:
    return graph.serialize(format=_NAMES[media_type], encoding="utf-8")


def service_description(endpoint: str, manifest: Manifest | None, media_type: str) -> bytes:
    """SPARQL 1.1 Service Description of the endpoint.

    Args:
        endpoint: its address.
        manifest: of the snapshot it serves; None if another engine holds the graph.
        media_type: one of :data:`kg.results.DESCRIPTION_FORMATS`.
    """
    graph, service = _new(), URIRef(endpoint)
    graph.add((service, RDF.type, SD.Service))
    graph.add((service, SD.endpoint, service))
    graph.add((service, SD.supportedLanguage, SD.SPARQL11Query))
    graph.add((service, SD.feature, SD.UnionDefaultGraph))
    for name in _WRITTEN:
        graph.add((service, SD.resultFormat, _FORMATS[name]))
    dataset, default = BNode(), BNode()
    graph.add((service, SD.defaultDataset, dataset))
    graph.add((dataset, RDF.type, SD.Dataset))
    graph.add((dataset, SD.defaultGraph, default))
    graph.add((default, RDF.type, SD.Graph))
    if manifest is not None:
        for name, size in manifest.graphs.items():
            named, content = BNode(), BNode()
            graph.add((dataset, SD.namedGraph, named))
            graph.add((named, SD.name, URIRef(name)))
            graph.add((named, SD.graph, content))
            graph.add((content, RDF.type, SD.Graph))
            graph.add((content, VOID.triples, Literal(size)))
    return _write(graph, media_type)


_CLASSES = "SELECT ?x (COUNT(DISTINCT ?s) AS ?n) WHERE { ?s a ?x FILTER(isIRI(?x)) } GROUP BY ?x ORDER BY ?x"
_PROPERTIES = "SELECT ?x (COUNT(*) AS ?n) WHERE { ?s ?x ?o } GROUP BY ?x ORDER BY ?x"
_SUBJECTS = "SELECT (COUNT(DISTINCT ?s) AS ?n) WHERE { ?s ?p ?o }"


@lru_cache(maxsize=4)
def _partitions(store: Store, snapshot: str) -> tuple[list[dict[str, Value]], list[dict[str, Value]], int]:
    subjects = store.select(_SUBJECTS).rows[0]["n"]
    return store.select(_CLASSES).rows, store.select(_PROPERTIES).rows, int(str(subjects))


def dataset_description(base: str, store: Store, manifest: Manifest | None, media_type: str) -> bytes:
    """VoID and DCAT description of the dataset: sizes, classes, properties, endpoint, dumps.

    Args:
        base: address of the service, without a slash at its end.
        store: what answers.
        manifest: of the snapshot; None if another engine holds the graph.
        media_type: one of :data:`kg.results.DESCRIPTION_FORMATS`.

    Raises:
        StoreUnavailable: the graph cannot be reached.
    """
    graph = _new()
    document, dataset = URIRef(f"{base}/.well-known/void"), URIRef(f"{base}/.well-known/void#strata")
    service = URIRef(f"{base}/sparql")
    title = Literal("Strata: a knowledge graph of AI risk governance", lang="en")
    graph.add((document, RDF.type, VOID.DatasetDescription))
    graph.add((document, FOAF.topic, dataset))
    for kind in (VOID.Dataset, DCAT.Dataset):
        graph.add((dataset, RDF.type, kind))
    graph.add((dataset, DCTERMS.title, title))
    graph.add((dataset, DCTERMS.license, _LICENCE))
    graph.add((dataset, FOAF.homepage, URIRef(f"{base}/")))
    graph.add((dataset, VOID.sparqlEndpoint, service))
    graph.add((dataset, VOID.uriSpace, Literal("https://w3id.org/strata/")))
    graph.add((dataset, VOID.vocabulary, URIRef(str(STRATA).rstrip("#"))))
    graph.add((dataset, VOID.exampleResource, URIRef("https://w3id.org/strata/id/eu-ai-act/art_26/par_2")))
    graph.add((service, RDF.type, DCAT.DataService))
    graph.add((service, DCAT.endpointURL, service))
    graph.add((service, DCAT.servesDataset, dataset))
    graph.add((service, DCTERMS.title, Literal("SPARQL endpoint of Strata", lang="en")))
    snapshot = store.snapshot
    graph.add((dataset, DCTERMS.identifier, Literal(snapshot)))
    if manifest is not None:
        graph.add((dataset, OWL.versionInfo, Literal(manifest.version)))
        graph.add((dataset, DCTERMS.modified, Literal(manifest.built, datatype=XSD.dateTime)))
        graph.add((dataset, VOID.triples, Literal(manifest.triples)))
        for name, size in manifest.graphs.items():
            part = URIRef(name)
            graph.add((dataset, VOID.subset, part))
            graph.add((part, RDF.type, VOID.Dataset))
            graph.add((part, VOID.triples, Literal(size)))
        for file, dump in DUMPS.items():
            address = URIRef(f"{base}/downloads/{file}")
            one = URIRef(f"{document}#{file}")
            graph.add((dataset, VOID.dataDump, address))
            graph.add((dataset, DCAT.distribution, one))
            graph.add((one, RDF.type, DCAT.Distribution))
            graph.add((one, DCAT.downloadURL, address))
            graph.add((one, DCTERMS.license, _LICENCE))
            graph.add((one, DCAT.mediaType, _media(dump.format.media_type)))
            graph.add((one, DCAT.compressFormat, _media("application/gzip")))
    classes, properties, subjects = _partitions(store, snapshot)
    graph.add((dataset, VOID.distinctSubjects, Literal(subjects)))
    graph.add((dataset, VOID.classes, Literal(len(classes))))
    graph.add((dataset, VOID.properties, Literal(len(properties))))
    for rows, partition, term, count in (
        (classes, VOID.classPartition, VOID["class"], VOID.entities),
        (properties, VOID.propertyPartition, VOID.property, VOID.triples),
    ):
        for row in rows:
            part_of = BNode()
            graph.add((dataset, partition, part_of))
            graph.add((part_of, term, URIRef(str(row["x"]))))
            graph.add((part_of, count, Literal(row["n"])))
    return _write(graph, media_type)


def _media(name: str) -> URIRef:
    return URIRef(f"https://www.iana.org/assignments/media-types/{name}")
