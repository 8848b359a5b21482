"""The command ``strata``: tables for people, ``--format`` for programs.

Exit codes: 0 ok, 1 findings or a failed build, 2 misuse.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from pyoxigraph import RdfFormat, parse, serialize
from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from kg import __version__
from kg.argument import Kind, argue, flat
from kg.cases import MapErrors, check_map
from kg.content import data_dir, ontology_dir
from kg.errors import BadParameter, BadParameters, StrataError
from kg.guard import check
from kg.ledger import audit, read_units
from kg.load import Source, find_sources
from kg.namespaces import GRAPH, prefixes
from kg.queries import Answer, all_queries, ask, axis, find_query
from kg.serving import Service, ensure
from kg.settings import load_settings
from kg.snapshot import build, current, home_dir, read_manifest, write
from kg.store import EmbeddedStore, Store
from kg.worker import Question

if TYPE_CHECKING:
    from kg.validate import Finding

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Strata: ask where frameworks for AI risk intervene, whom they bind, and what they leave open.",
)
out = Console()
err = Console(stderr=True)
_FREE = {"allow_extra_args": True, "ignore_unknown_options": True}
_DATA = Annotated[list[Path] | None, typer.Option(help="Data folder, laid out like data/; may be repeated.")]
_FORMAT = Annotated[str, typer.Option("--format", help="table, csv or json.")]
_MARKS = {
    "not-read": "?",
    "voluntary-only": "v",
    "model-only": "m",
    "developer-only": "d",
    "not-yet-applicable": "n",
    "covered": "",
}


def _say(name: str) -> None:
    err.print(f"[dim]{name} …[/dim]")


def _fail(error: Exception, code: int = 2) -> typer.Exit:
    err.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
    return typer.Exit(code)


def _store() -> EmbeddedStore:
    ensure(home_dir(), _say)
    return EmbeddedStore(current(home_dir()))


def _given(arguments: list[str]) -> dict[str, list[str]]:
    """``--risk x --risk=y`` as parameters."""
    given: dict[str, list[str]] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise BadParameter(word, "not a parameter; write --name value")
        name, equals, value = word[2:].partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise BadParameter(name, "has no value; write --name value")
            value = rest.pop(0)
        given.setdefault(name.replace("-", "_"), []).append(value)
    return given


def _text(value: Any) -> str:
    if value is None:
        return ""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def as_csv(answer: Answer) -> str:
    """The rows as CSV, lists separated by spaces."""
    return _csv_of(answer.table.columns, answer.table.rows)


def _csv_of(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[_text(r[c]) for c in columns] for r in rows])
    return buffer.getvalue()


def _show(store: Store, answer: Answer, form: str) -> None:
    if form == "csv":
        sys.stdout.write(as_csv(answer))
    elif form == "json":
        body = {
            "query": answer.query.name,
            "parameters": answer.parameters,
            "items": answer.table.rows,
            "total": len(answer.table.rows),
            "snapshot": store.snapshot,
        }
        sys.stdout.write(json.dumps(body, indent=2, ensure_ascii=False) + "\n")
    elif form == "table":
        _print_table(store, answer)
        err.print(
            f"[dim]{len(answer.table.rows)} rows · snapshot {store.snapshot[:12]} · query {answer.query.name}[/dim]"
        )
    else:
        raise BadParameter("format", f"unknown format '{form}'", ("table", "csv", "json"))


def _shown(answer: Answer, name: str, row: dict[str, Any]) -> str:
    """A cell for people: shares as percentages, with their interval where there is one."""
    column = next(c for c in answer.query.columns if c.name == name)
    if column.type != "share" or row[name] is None:
        return _text(row[name])
    low, high = (row.get(name.removesuffix("_share") + end) for end in ("_low", "_high"))
    interval = "" if low is None or high is None else f"\n({low:.1%} to {high:.1%})"
    return f"{row[name]:.1%}{interval}"


def _print_table(store: Store, answer: Answer) -> None:
    rows = answer.table.rows
    if answer.query.shape == "table" and "norms" in answer.table.columns:
        return _print_grid(store, answer)
    columns = answer.query.glance or answer.table.columns
    table = RichTable(header_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for c in columns:
        prose = any(len(_text(r[c])) > 40 for r in rows) and c not in ("bearer", "path")
        table.add_column(c.replace("_", " "), overflow="fold", max_width=None if prose else 18)
    for r in rows:
        table.add_row(*[_shown(answer, c, r) for c in columns])
    out.print(table)


def _print_grid(store: Store, answer: Answer) -> None:
    """Rows by columns; the columns are numbered, so that wide tables fit, and named below."""
    rows = answer.table.rows
    found = {str(r["column"]) for r in rows}
    names = [str(c["name"]) for c in axis(store, answer.parameters["columns"][0]) if c["name"] in found]
    lines = [str(r["name"]) for r in axis(store, answer.parameters["rows"][0])]
    cells = {(r["row"], r["column"]): r for r in rows}
    table = RichTable(header_style="bold", padding=(0, 0), box=None)
    table.add_column("", no_wrap=True)
    numbered = len(names) > 4
    for number, name in enumerate(names, 1):
        table.add_column(f" {number}" if numbered else f"  {name}", justify="right", no_wrap=True)
    for row in lines:
        if not any((row, n) in cells for n in names):
            continue
        shown = []
        for n in names:
            cell = cells.get((row, n)) or {"norms": 0}
            mark = _MARKS.get(str(cell.get("gap")), "")
            shown.append(f" {cell['norms']}{mark}" if cell["norms"] else " ·")
        table.add_row(row, *shown)
    out.print(table, width=max(out.width, 20 + 5 * len(names)), crop=False, no_wrap=True)
    if numbered:
        out.print("  ".join(f"[bold]{i}[/bold]\u00a0{n}" for i, n in enumerate(names, 1)), highlight=False)
    if "gap" in answer.table.columns:
        out.print(
            "[bold]·[/bold] uncovered  " + "  ".join(f"[bold]{m}[/bold] {g}" for g, m in _MARKS.items() if m),
            highlight=False,
        )


def _ask(name: str, arguments: list[str], form: str) -> None:
    try:
        query = find_query(name)
        store = _store()
        _show(store, ask(store, query.name, _given(arguments)), form)
    except (BadParameter, BadParameters) as error:
        raise _fail(error) from error
    except StrataError as error:
        raise _fail(error, 1) from error


def _report(findings: list[Finding], show_info: bool = False) -> None:
    for f in findings:
        if f.severity != "info" or show_info:
            style = "red" if f.severity == "violation" else "yellow"
            err.print(str(f), style=style, markup=False, highlight=False, soft_wrap=True)


@app.command("build")
def build_command(
    data: _DATA = None, home: Annotated[Path | None, typer.Option(help="Folder of snapshots.")] = None
) -> None:
    """Build a snapshot from ontology and data, and serve it from now on."""
    try:
        result = build(find_sources(data=data or ()), progress=_say)
        _report(result.findings)
        manifest = write(result, home or home_dir())
    except StrataError as error:
        raise _fail(error, 1) from error
    out.print(
        f"{manifest.triples} triples ({manifest.asserted} asserted, {manifest.derived} derived) in "
        f"{sum(manifest.seconds.values()):.1f} s; {manifest.warnings} warnings"
    )
    out.print(manifest.hash, highlight=False)


@app.command()
def validate(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Turtle files to check together with the ontology and data.")
    ] = None,
    info: Annotated[bool, typer.Option(help="Also show what is merely worth a thought.")] = False,
) -> None:
    """Check the data, or the given files in its company. Nothing is built or changed."""
    chosen = [Path(f).resolve() for f in files or []]
    try:
        for f in chosen:
            if not f.is_file():
                raise StrataError(f"{f}: no such file. Give Turtle files.")
        sources = [s for s in find_sources() if s.path.resolve() not in chosen]
        names = {str(f) for f in chosen}
        sources += [Source(f, str(f), _graph_for(f)) for f in chosen]
        result = build(sources, progress=_say)
    except StrataError as error:
        raise _fail(error, 1) from error
    findings = [f for f in result.findings if not names or f.file in names]
    _report(findings, info)
    bad = sum(f.severity == "violation" for f in findings)
    out.print(f"{bad} violations, {sum(f.severity == 'warning' for f in findings)} warnings")
    raise typer.Exit(1 if bad else 0)


def _graph_for(path: Path) -> Any:
    from pyoxigraph import NamedNode

    return NamedNode(GRAPH.shapes if path.name == "shapes.ttl" else GRAPH.submitted)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    processes: Annotated[int | None, typer.Option(help="HTTP processes that share port and snapshot.")] = None,
    as_is: Annotated[bool, typer.Option(help="Serve the snapshot there is; never build.")] = False,
) -> None:
    """Serve the graph over HTTP; builds a snapshot first if there is none of today's sources."""
    import os
    import tempfile

    import uvicorn

    try:
        settings = load_settings()
        host, port = host or settings.host, settings.port if port is None else port
        processes = processes or settings.processes
        if settings.endpoint:
            err.print(f"asking {settings.endpoint}: http://{host}:{port}/")
        else:
            manifest = read_manifest(current(settings.home)) if as_is else ensure(settings.home, _say)
            err.print(f"{manifest.triples} triples, snapshot {manifest.hash[:12]}: http://{host}:{port}/")
    except StrataError as error:
        raise _fail(error, 1) from error
    if processes > 1:  # counters of several processes meet in files
        os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", tempfile.mkdtemp(prefix="strata-metrics-"))
    uvicorn.run(
        "api.app:application",
        factory=True,
        host=host,
        port=port,
        workers=processes,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=True,
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_graceful_shutdown=settings.shutdown_seconds,
        # The faster parser, httptools, puts no bound on the length of an address or of headers.
        http="api.protocol:PunctualProtocol",
        timeout_keep_alive=settings.idle_seconds,
        h11_max_incomplete_event_size=65_536,
    )


@app.command()
def load(
    graph_store: Annotated[str | None, typer.Option(help="Address of its Graph Store Protocol service.")] = None,
    user: Annotated[str | None, typer.Option(help="User there.")] = None,
) -> None:
    """Put the snapshot into another engine, by the SPARQL 1.1 Graph Store Protocol.

    The password is read from STRATA_ENDPOINT_PASSWORD or the settings file, never from the command line.
    """
    from kg.remote import load as load_remote

    try:
        settings = load_settings()
        address = graph_store or settings.graph_store
        if not address:
            raise StrataError("Nowhere to load to. Give --graph-store, or set STRATA_GRAPH_STORE.")
        name, password = user or settings.endpoint_user, settings.endpoint_password
        auth = (name, password.get_secret_value()) if name and password else None
        ensure(settings.home, _say)
        manifest = load_remote(current(settings.home), address, auth=auth, progress=_say)
    except StrataError as error:
        raise _fail(error, 1) from error
    graphs = len(manifest.graphs)
    out.print(f"{manifest.triples} triples, snapshot {manifest.hash[:12]}, in {graphs} graphs at {address}")


@app.command()
def query(
    file: Annotated[str, typer.Argument(help="File with a SPARQL query, or - for standard input.")],
    form: Annotated[str, typer.Option("--format", help="csv, json, tsv, xml, ttl or nt.")] = "csv",
) -> None:
    """Run a SPARQL query of your own."""
    media = {
        "csv": "text/csv",
        "json": "application/sparql-results+json",
        "tsv": "text/tab-separated-values",
        "xml": "application/sparql-results+xml",
        "ttl": "text/turtle",
        "nt": "application/n-triples",
    }
    try:
        if form not in media:
            raise BadParameter("format", f"unknown format '{form}'", tuple(media))
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        check(text)
        ensure(home_dir(), _say)
        service = Service(settings=load_settings(), workers=1)
        try:
            reply, _ = service.run(Question(text, media[form], media[form]))
        finally:
            service.close()
    except OSError as error:
        raise _fail(StrataError(f"{file}: {error.strerror}. Give a file with a SPARQL query, or -.")) from error
    except (BadParameter, StrataError) as error:
        raise _fail(error) from error
    sys.stdout.buffer.write(reply.body)
    if reply.truncated:
        err.print(f"Cut at {service.limits.rows} rows: there are more. Narrow the query.", style="yellow")


@app.command("ask", context_settings=_FREE)
def ask_command(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of a named query; see: strata queries")],
    form: _FORMAT = "table",
) -> None:
    """Ask a named query, with its parameters as --name value."""
    _ask(name, context.args, form)


@app.command("queries")
def queries_command() -> None:
    """List the named queries, with the question each answers."""
    table = RichTable(header_style="bold")
    for c in ("name", "question", "parameters"):
        table.add_column(c, overflow="fold")
    for q in all_queries().values():
        table.add_row(q.name, q.question, ", ".join(q.names()))
    out.print(table)


def _shortcut(name: str, help_text: str) -> None:
    def run(context: typer.Context, form: _FORMAT = "table") -> None:
        _ask(name, context.args, form)

    run.__doc__ = help_text
    app.command(name, context_settings=_FREE)(run)


for _name in ("frameworks", "provisions", "norms", "coverage", "gaps", "orientation", "compare", "ledger"):
    _shortcut(_name, f"{find_query(_name).question}")


case_app = typer.Typer(
    no_args_is_help=True, help="System maps: what is on them, and what of them each framework reaches."
)
app.add_typer(case_app, name="case")


def _case_command(command: str, query: str) -> None:
    def run(
        context: typer.Context,
        case: Annotated[str, typer.Argument(help="System map, such as image-based-sexual-abuse.")],
        form: _FORMAT = "table",
    ) -> None:
        _ask(query, ["--case", case, *context.args], form)

    run.__doc__ = find_query(query).question
    case_app.command(command, context_settings=_FREE)(run)


for _command in ("components", "links", "pathways", "mitigations", "gaps", "norms"):
    _case_command(_command, f"case-{_command}")


@case_app.command("list")
def case_list(form: _FORMAT = "table") -> None:
    """Of which harms is the system mapped?"""
    _ask("cases", [], form)


@case_app.command("check", context_settings=_FREE)
def case_check(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Your system map: .ttl, .json, .yaml or .csv")],
    form: _FORMAT = "table",
) -> None:
    """Which components of a map of your own does each framework reach? Nothing is built or changed."""
    kinds = {".ttl": "ttl", ".json": "json", ".yaml": "json", ".yml": "json", ".csv": "csv"}
    try:
        if file.suffix not in kinds:
            raise BadParameter("file", f"unknown ending '{file.suffix}'", tuple(kinds))
        found = check_map(_store(), file.read_bytes(), kinds[file.suffix], _given(context.args))
    except OSError as error:
        raise _fail(StrataError(f"{file}: {error.strerror}. Give a file with a system map.")) from error
    except MapErrors as error:
        for e in error.errors:
            err.print(
                f"{file}:{e.line or 1}: {e.node}: {e.remedy} [{e.rule}]", style="red", markup=False, soft_wrap=True
            )
        raise _fail(StrataError(f"{len(error.errors)} errors; nothing was asked."), 1) from error
    except (BadParameter, BadParameters) as error:
        raise _fail(error) from error
    except StrataError as error:
        raise _fail(error, 1) from error
    if form == "json":
        sys.stdout.write(json.dumps(vars(found), indent=2, ensure_ascii=False) + "\n")
        return
    columns = ("component", "framework", "gap", "direct", "general", "logics", "applies_from")
    if form == "csv":
        sys.stdout.write(_csv_of(tuple(found.gaps[0]), found.gaps))
        return
    table = RichTable(header_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for c in columns:
        table.add_column(c.replace("_", " "), overflow="fold")
    for r in found.gaps:
        table.add_row(*[_text(r[c]) for c in columns])
    out.print(table)
    for framework, counts in found.summary.items():
        err.print(f"[dim]{framework}: " + ", ".join(f"{n} {g}" for g, n in counts.items()) + "[/dim]")


def _argument_command(kind: Kind) -> None:
    def run(context: typer.Context, form: _FORMAT = "table") -> None:
        try:
            items = argue(_store(), kind, _given(context.args))
        except (BadParameter, BadParameters) as error:
            raise _fail(error) from error
        except StrataError as error:
            raise _fail(error, 1) from error
        rows = flat(items)
        if form == "json":
            sys.stdout.write(json.dumps(items, indent=2, ensure_ascii=False) + "\n")
        elif form == "csv":
            sys.stdout.write(_csv_of(tuple(rows[0]) if rows else (), rows))
        else:
            _print_argument(items)

    about = {
        "limitation": "Do the four limitations charged against governance frameworks hold?",
        "recommendation": "How far does each framework follow the four recommendations?",
    }
    run.__doc__ = about[kind]
    app.command(f"{kind}s", context_settings=_FREE)(run)


for _kind in get_args(Kind):
    _argument_command(_kind)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _print_argument(items: list[dict[str, Any]]) -> None:
    for item in items:
        out.print(f"[bold]{item['number']}  {item['label']}[/bold]")
        for m in item["measures"]:
            out.print(f"  {m['name']}: {m['measure']}", highlight=False)
            table = RichTable(header_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 2), show_edge=False)
            for c in ("framework", "norms", "share", "between", "by force", "by provision", "verdict", "flips"):
                table.add_column(c, overflow="fold")
            for r in m["results"]:
                between = "" if r["low"] is None else f"{r['low']:.1%} to {r['high']:.1%}"
                cells = (
                    r["framework"],
                    str(r["norms"]),
                    _share(r["share"]),
                    between,
                    _share(r["by_force"]),
                    _share(r["by_provision"]),
                    r["verdict"],
                )
                table.add_row(*cells, "; ".join(r["flips"]))
            out.print(table)


@app.command("ledger-check")
def ledger_check(
    framework: Annotated[str, typer.Argument(help="Framework id, such as eu-ai-act.")],
    text: Annotated[Path, typer.Argument(help="Official text as JSON Lines: path, kind, text for each unit.")],
    version: Annotated[str, typer.Option(help="Version it is, such as version/2024-07-12.")],
) -> None:
    """Hold the ledger against the official text: missing, surplus, changed, or binding an actor without a norm."""
    try:
        result = audit(_store(), framework, version, read_units(text))
    except StrataError as error:
        raise _fail(error) from error
    for d in result.differences:
        sys.stdout.write(f"{d.what}\t{d.path}\t{d.detail}\n")
    table = RichTable(header_style="bold", box=box.SIMPLE_HEAD, show_edge=False)
    for c in ("kind", "text", "encoded", "left out"):
        table.add_column(c, justify="left" if c == "kind" else "right")
    for kind, numbers in result.counts.items():
        table.add_row(kind, *map(str, numbers))
    err.print(table)
    err.print(f"{len(result.differences)} differences; " + ("complete" if result.complete else "not complete"))
    raise typer.Exit(0 if result.complete else 1)


@app.command()
def export(
    target: Annotated[
        Path, typer.Argument(help="File to write; its ending says the format: .nq .trig .nt .ttl .jsonld .rdf")
    ],
) -> None:
    """Write the whole snapshot to a file."""
    kinds = {
        ".nq": RdfFormat.N_QUADS,
        ".trig": RdfFormat.TRIG,
        ".nt": RdfFormat.N_TRIPLES,
        ".ttl": RdfFormat.TURTLE,
        ".jsonld": RdfFormat.JSON_LD,
        ".rdf": RdfFormat.RDF_XML,
    }
    try:
        if target.suffix not in kinds:
            raise BadParameter("target", f"unknown ending '{target.suffix}'", tuple(kinds))
        kind = kinds[target.suffix]
        ensure(home_dir(), _say)
        quads = parse(path=current(home_dir()) / "dataset.nq", format=RdfFormat.N_QUADS)
        data = quads if kind.supports_datasets else (q.triple for q in quads)
        serialize(
            data,
            output=target,
            format=kind,
            prefixes=prefixes() if kind != RdfFormat.N_QUADS and kind != RdfFormat.N_TRIPLES else None,
        )
    except (StrataError, OSError) as error:
        raise _fail(error) from error
    out.print(f"{target}: {target.stat().st_size} bytes")


@app.command()
def fmt(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Turtle files; all of ontology and data when none is given.")
    ] = None,
    check_only: Annotated[
        bool, typer.Option("--check", help="Change nothing; say what is not in canonical layout.")
    ] = False,
) -> None:
    """Put Turtle files in the one canonical layout."""
    from kg.turtle import reformat

    chosen = files or [s.path for s in find_sources()]
    changed = 0
    for path in chosen:
        try:
            before, after = reformat(path)
        except Exception as error:  # rdflib's parser has no common error class
            raise _fail(StrataError(f"{path}: {error}")) from error
        if before == after:
            continue
        changed += 1
        if check_only:
            diff = difflib.unified_diff(
                before.splitlines(), after.splitlines(), str(path), "canonical", lineterm="", n=0
            )
            err.print("\n".join(list(diff)[:8]), markup=False, highlight=False)
        else:
            path.write_text(after, encoding="utf-8")
    out.print(f"{changed} of {len(chosen)} files {'not in canonical layout' if check_only else 'rewritten'}")
    raise typer.Exit(1 if check_only and changed else 0)


@app.command()
def version() -> None:
    """Say which version this is and where it reads from."""
    out.print(
        f"strata {__version__}\nontology {ontology_dir()}\ndata     {data_dir()}\nhome     {home_dir()}",
        highlight=False,
    )


def main() -> None:
    """Entry point of the command."""
    app()
