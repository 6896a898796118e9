"""``demo``: a run on a network and images that come with the library."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compress.errors import ModelError
from compress_cli import options as o
from compress_cli.console import guarded
from compress_cli.inputs import Inputs
from compress_cli.naming import method_names
from compress_cli.prune import run_prune

app = typer.Typer()
NETWORK = Path("checkpoints") / "digits-net.safetensors"


def network_file() -> Path:
    """The network that comes with the library: beside the zoo in a wheel, a folder higher in a checkout.

    Raises:
        ModelError: it is in neither place.
    """
    import compress_models

    zoo = Path(compress_models.__file__).parent
    for folder in (zoo, zoo.parent):
        if (folder / NETWORK).is_file():
            return folder / NETWORK
    raise ModelError(
        f"{zoo / NETWORK} is not there: this installation is not whole", hint="pip install --force-reinstall --no-deps"
    )


@app.command()
@guarded(resumes=True)
def demo(
    method: Annotated[
        str,
        typer.Option(metavar="NAME", help="One of `compress methods`; smoea is the evolution.", autocompletion=method_names),
    ] = "auto",
    folder: Annotated[Path, typer.Option("--out", help="Run folder.")] = Path("runs/demo"),
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Prune a small network for handwritten digits to half of its MACs; both come with the library. Half a minute."""
    inputs = Inputs(model=str(network_file()), data="digits")
    flags = {"method": method, "target": "macs", "value": 0.5}
    run_prune(inputs, flags, None, [], folder, train=None, track=[], fresh=False, dry_run=False, as_json=as_json, quiet=quiet)
