"""A report in a folder: JSON with its schema, Markdown and a page beside it; each file appears whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

from compress.core import finite_json, read_json
from compress.core import write as place
from compress.errors import ConfigError
from compress.report.markdown import report_markdown
from compress.report.model import Report
from compress.report.model_card import card_text
from compress.report.schema import schema, validate

JSON, MARKDOWN, JSON_SCHEMA, HTML, CARD = "report.json", "report.md", "report.schema.json", "report.html", "model-card.md"


def write_report(report: Report, folder: Path) -> None:
    """Writes ``report.json``, its schema, ``report.md``, ``report.html`` and ``model-card.md`` into a folder that exists.

    The page shows what lies beside the report as well: raw samples, the front (``compress.report.run_files``).

    Raises:
        CompressError: a file cannot be written; what was there before is still whole.
    """
    place(folder / JSON_SCHEMA, json.dumps(schema(), indent=2) + "\n")
    place(folder / MARKDOWN, report_markdown(report))
    place(folder / CARD, card_text(report))
    place(folder / HTML, page_of(report, folder))
    # Last: who finds it finds the others too.
    place(folder / JSON, report_text(report))


def page_of(report: Report, folder: Path) -> str:
    """The report as one HTML file, with everything that its folder holds."""
    from compress.report import html, run_files, timm_csv

    files = [
        html.Download(JSON, "Report (JSON)", report_text(report).encode()),
        html.Download("timm.csv", "CSV, timm's columns", timm_csv.to_timm_csv({report.name: report}).encode(), "text/csv"),
        html.Download("summary.md", "Markdown", report_markdown(report).encode(), "text/markdown"),
    ]
    samples = folder / run_files.LATENCY
    if samples.exists():
        files.append(html.Download(run_files.LATENCY, "Raw samples (JSON)", samples.read_bytes()))
    return html.html_page(report, run_files.read(folder), files)


def report_text(report: Report) -> str:
    """The JSON text; numbers that JSON does not have become null."""
    return json.dumps(finite_json(report.to_json()), indent=2, allow_nan=False) + "\n"


def read_report(path: Path) -> Report:
    """The report of a run.

    Args:
        path: the run's folder, or its ``report.json``.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    file = path / JSON if path.is_dir() else path
    if not file.exists():
        raise ConfigError(
            f"{path} has no {JSON}" if path.is_dir() else f"{path} does not exist",
            hint="give the folder of a finished run; an unfinished one goes on with the command that started it",
        )
    data = read_json(file, hint="run the same command with --fresh")
    try:
        return validate(data)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error.message}", hint="give a folder that this version wrote") from error
