"""``report``: a run's report again, in any form, several runs beside each other, and what other machines measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from compress_cli import options as o
from compress_cli.console import UsageError, guarded, out, tell
from compress_cli.safe_console import say, sentence
from compress_cli.tables import print_table

if TYPE_CHECKING:
    from compress.report import Report

app = typer.Typer()
_FORMS = {".md": "markdown", ".csv": "csv", ".html": "html", ".json": "json"}


@app.command()
@guarded()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of finished runs.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="As Markdown, for a pull request.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="As CSV with timm's column names.")] = False,
    html: Annotated[bool, typer.Option("--html", help="As one offline page; a single run's goes into its folder.")] = False,
    imported: Annotated[
        list[Path] | None,
        typer.Option("--import", metavar="RESULT.json", help="Take in what a bench kit measured elsewhere; repeatable."),
    ] = None,
    target: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write there; .html, .md, .csv or .json says the form.")
    ] = None,
    as_json: o.AsJson = False,
    debug: o.Debug = False,
) -> None:
    """Show a run's report again, or compare several runs."""
    from compress.report import HTML

    form = _form({"markdown": markdown, "csv": csv, "html": html, "json": as_json}, target)
    for file in imported or []:
        _take_in(runs, file)
    found = {name: _report(path) for name, path in zip(_names(runs), runs, strict=True)}
    if form == "html" and target is None:
        if len(runs) > 1:
            raise UsageError("where does the page of several runs go?", hint="add --out comparison.html")
        target = _folder(runs[0]) / HTML
    if form:
        _give(_text(form, found, runs), target)
    elif len(runs) == 1:
        from compress_cli.render import show

        show(out(), next(iter(found.values())), _folder(runs[0]))
    else:
        _compare(found)


def _report(run: Path) -> Report:
    """A run's report, its files compared with it; a report alone is only read."""
    from compress.report import read_report, verified

    return (verified(run) if run.is_dir() else None) or read_report(run)


def _form(wanted: dict[str, bool], target: Path | None) -> str:
    """What was asked for: by a flag, or by the file's ending."""
    chosen = [name for name, on in wanted.items() if on]
    if len(chosen) > 1:
        raise UsageError(f"--{' and --'.join(chosen)} are given, one form is wanted", hint="leave out all but one of them")
    if chosen or target is None:
        return chosen[0] if chosen else ""
    form = _FORMS.get(target.suffix)
    if form is None:
        raise UsageError(f"--out {target}: the form cannot be told", hint=f"an ending of {', '.join(_FORMS)}")
    return form


def _folder(run: Path) -> Path:
    return run if run.is_dir() else run.parent


def _names(runs: list[Path]) -> list[str]:
    """The shortest ends of the paths that tell the runs apart."""
    folders = [_folder(run).absolute().parts for run in runs]
    for length in range(1, max(map(len, folders)) + 1):
        names = ["/".join(parts[-length:]) for parts in folders]
        if len(set(names)) == len(names):
            return names
    raise UsageError("the same run is given twice", hint="give every run once")


def _text(form: str, found: dict[str, Report], runs: list[Path]) -> str:
    from compress import report  # each form is loaded when it is asked for

    only = next(iter(found.values())) if len(found) == 1 else None
    match form:
        case "csv":
            return report.to_timm_csv(found)
        case "html":
            return report.runs_page(found) if only is None else report.page_of(only, _folder(runs[0]))
        case "markdown":
            return report.runs_markdown(found) if only is None else report.report_markdown(only)
        case _:
            return report.report_text(only) if only is not None else _all(found)


def _all(found: dict[str, Report]) -> str:
    """One object: name of the run -> its report, each as its schema has it."""
    from compress.report import report_text

    return json.dumps({"reports": {name: json.loads(report_text(r)) for name, r in found.items()}}, indent=2) + "\n"


def _give(text: str, target: Path | None) -> None:
    from compress.core import write

    if target is None:
        say(text, newline=False)
        return
    write(target, text)
    tell(str(target), "written")


def _compare(found: dict[str, Report]) -> None:
    from compress.report import differences, runs_table

    made = runs_table(found)
    console = out()
    head = [f">{column.name}" if column.number else column.name for column in made.head]
    print_table(console, head, [[cell.text for cell in row] for row in made.rows])
    for name, one in found.items():
        for warning in one.warnings:
            sentence(console, f"[bold red]! {escape(f'{name}: {warning}')}[/]")
    for note in differences(found):
        sentence(console, f"[dim]note: {escape(note)}[/]")


def _take_in(runs: list[Path], file: Path) -> None:
    from compress.report import take_in

    if len(runs) != 1:
        raise UsageError("--import belongs to one run", hint="compress report RUN --import RESULT.json")
    for said in take_in(_folder(runs[0]), file):
        tell(said, "imported")
