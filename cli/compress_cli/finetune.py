"""``finetune``: train a network on the user's own images before it is pruned, or after."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table

from compress.core import Measured
from compress.errors import ConfigError, DataError
from compress.report import accuracy as in_words
from compress_cli import options as o
from compress_cli.console import err, guarded, out, print_json

if TYPE_CHECKING:
    from torch import nn

app = typer.Typer()


@app.command()
@guarded(resumes=True)
def finetune(
    model: o.Model,
    data: o.DataSource = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 5,
    target: Annotated[
        Path | None, typer.Option("--out", help="The trained network's file. Default: MODEL-tuned.safetensors.")
    ] = None,
    lr: Annotated[float, typer.Option(help="Highest learning rate.")] = 0.01,
    batch: Annotated[int, typer.Option(help="Images a step.")] = 128,
    seed: Annotated[int, typer.Option(help="Of the division of the images and of their order.")] = 0,
    labels: o.Labels = "sorted",
    download: o.Download = False,
    arch: o.Arch = None,
    trust_pickle: o.TrustPickle = False,
    weights: o.Weights = None,
    size: o.Size = None,
    mean: o.Mean = None,
    std: o.Std = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Overwrite the file, forget an interrupted training.")] = False,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Train a network on your images and save it in our own format. The same command goes on where it was stopped."""
    from compress.core import Clock
    from compress.networks import save
    from compress.recovery import Schedule, fit
    from compress_cli.loading import classes_of, load_data, load_network, writable
    from compress_cli.progress import listening

    target = target or Path(f"{Path(model).stem}-tuned.safetensors")
    writable(target, folder=False)
    if target.exists() and not fresh:
        raise ConfigError(f"{target} exists already", hint="choose another --out, or overwrite it with --fresh")
    schedule = Schedule(epochs=epochs, lr=lr, batch=batch, seed=seed)
    if data is None:
        raise ConfigError("no images to train on", hint="add --data FOLDER, or --data digits to try it")
    given = {"arch": arch, "size": size, "mean": mean, "std": std, "weights": weights}
    loaded, prepared = load_network(model, trust_pickle=trust_pickle, **given)
    classes = classes_of(loaded.model, prepared.shape)
    images = load_data(data, prepared, classes, labels=labels, seed=seed, download=download)
    if images is None or images.train is None or not images.labelled:
        raise DataError(f"{data} has no labelled training images", hint="give a folder with train/<class>/<image>")
    state = target.with_name(f".{target.name}.training")
    if fresh:
        shutil.rmtree(state, ignore_errors=True)

    with listening(err(), quiet=quiet or as_json) as listen:
        clock = Clock(listen)
        with clock.phase("accuracy before", f"{len(images.validation)} validation images"):
            seen = [measured(loaded.model, "before", images.validation)]
        with clock.phase("train", f"{epochs} epochs of {len(images.train)} images"):
            state.parent.mkdir(parents=True, exist_ok=True)
            trained = fit(loaded.model, images.train, schedule, state_dir=state, listen=listen).eval()
        with clock.phase("accuracy after", f"{len(images.test)} test images, read for the first time"):
            seen.append(measured(trained, "after", images.validation))
            seen.append(measured(trained, "after", images.test))
    facts = {
        "finetuned": {
            "epochs": epochs,
            "lr": lr,
            "batch": batch,
            "seed": seed,
            "data": images.digests,
            "accuracy": [f"{m.when}, {m.split}: {in_words(m)}" for m in seen],
        },
    }
    digest = save(
        target,
        trained,
        architecture=loaded.architecture,
        plan=loaded.plan,
        preprocessing=prepared,
        metadata={**loaded.metadata, **facts},
    )
    shutil.rmtree(state, ignore_errors=True)
    if as_json:
        print_json({"file": str(target), "digest": digest, **facts["finetuned"], "seconds": clock.seconds})
        return
    show_saved(seen, target, f"compress prune {target} --data {data}")


def measured(network: nn.Module, when: str, split: Any) -> Measured:
    """Accuracy on a split, with its interval."""
    from compress.evaluation import accuracy

    found: Measured = accuracy(network, split).measured(when, split.name)
    return found


def show_saved(seen: Sequence[Measured], target: Path, following: str) -> None:
    """What was measured, where the file is, and the next command."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("top-1 accuracy", "split", ""):
        table.add_column(column)
    for m in seen:
        table.add_row(m.when, m.split, in_words(m))
    console = out()
    console.print(table)
    console.print(f"[dim]saved[/] {target}\n[dim]next:[/]  {following}", soft_wrap=True)
