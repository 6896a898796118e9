"""``push``: a run's network to a hub."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.markup import escape

from compress.errors import ConfigError
from compress_cli import options as o
from compress_cli.console import err, guarded, out, print_json

app = typer.Typer()


@app.command()
@guarded()
def push(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    repository: Annotated[str, typer.Argument(metavar="ORG/NAME", help="The hub's repository; made where there is none.")],
    private: Annotated[bool, typer.Option("--private", help="A repository that is made is private.")] = False,
    message: Annotated[str, typer.Option(metavar="TEXT", help="Of the commit. Default: the run's name.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the files.")] = False,
    as_json: o.AsJson = False,
    debug: o.Debug = False,
) -> None:
    """Put a run's network on a hub, with its ONNX files and a card: `compress.from_pretrained` and MODEL hf-hub: read it."""
    from compress.networks import Repository
    from compress.pipeline import push, save_pretrained

    if not run.is_dir():
        raise ConfigError(f"{run} is not a folder", hint="give the folder of a finished run, as in runs/resnet50-smoea")
    name = Repository.of(repository).name
    if dry_run:
        with TemporaryDirectory() as made:
            files = save_pretrained(run, Path(made))
            sizes = {file: (Path(made) / file).stat().st_size for file in files}
        if as_json:
            print_json({"repository": name, "files": sizes})
            return
        for file, size in sizes.items():
            out().print(f"{escape(file)}  [dim]{size:,} bytes[/]", soft_wrap=True)
        return
    address = push(run, repository, private=private, message=message)
    if as_json:
        print_json({"repository": name, "commit": address})
    else:
        out().print(f"[green]pushed[/] {escape(address)}", soft_wrap=True)
        err().print(f"[dim]use it:[/] compress inspect hf-hub:{escape(name)}", soft_wrap=True)
