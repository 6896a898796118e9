"""The commands, one family a file; only Typer and Rich are imported before a command runs."""

from __future__ import annotations

from typing import Annotated

import typer

from compress_cli import (
    bench,
    compare,
    compare_methods,
    demo,
    deploy,
    export,
    info,
    inspect,
    latency_table,
    package,
    profile,
    prune,
    push,
    report,
    training,
)
from compress_cli.safe_console import Commands

app = typer.Typer(
    name="compress",
    cls=Commands,
    help="Prune a trained convolutional network, prove that nothing broke, and deploy a faster ONNX file.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
families = (
    demo, prune, report, compare_methods, training, export, bench, compare, profile, latency_table, package, deploy, push,
    inspect, info,
)  # fmt: skip
for family in families:
    app.add_typer(family.app)


def _version(asked: bool) -> None:
    if asked:
        import compress

        typer.echo(f"compress {compress.__version__ or '(not installed)'}")
        raise typer.Exit


@app.callback(
    epilog="Exit codes: 0 done, 2 usage, 3 error, 4 parity failed, 5 inconclusive, 6 not faster, 7 bound failed, "
    "8 another process of the training ended, 130 interrupted."
)
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass
