"""``train``: a network of a known architecture from scratch, wider than usual where it is to be squeezed back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from compress.errors import ConfigError, DataError
from compress.report import accuracy as in_words
from compress_cli import options as o
from compress_cli.console import UsageError, err, guarded, print_json
from compress_cli.finetune import measured, show_saved

app = typer.Typer()


@app.command()
@guarded(resumes=True)
def train(
    arch: Annotated[str, typer.Argument(metavar="ARCH", help="A name of `compress models`, torchvision:NAME or timm:NAME.")],
    data: o.DataSource = None,
    width: Annotated[
        float, typer.Option(help="Factor on every layer's channels; 1.5 trains a network that csgd can squeeze back.")
    ] = 1.0,
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 60,
    target: Annotated[
        Path | None, typer.Option("--out", help="The trained network's file. Default: ARCH-WIDTH.safetensors.")
    ] = None,
    lr: Annotated[float, typer.Option(help="Highest learning rate.")] = 0.1,
    batch: Annotated[int, typer.Option(help="Images a step.")] = 128,
    seed: Annotated[int, typer.Option(help="Of the weights, of the division of the images and of their order.")] = 0,
    labels: o.Labels = "sorted",
    download: o.Download = False,
    size: o.Size = None,
    mean: o.Mean = None,
    std: o.Std = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Overwrite the file, forget an interrupted training.")] = False,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Train a network from scratch and save it in our own format. The same command goes on where it was stopped."""
    from compress_models import MODELS

    from compress.core import Clock, Plan
    from compress.networks import Architecture, Loaded, accepts, canonical, factory_of, save, skeleton, untrained
    from compress.recovery import Schedule, fit
    from compress_cli.loading import load_data, numbers, resolve, writable
    from compress_cli.progress import listening

    name = canonical(arch, MODELS)
    factory = factory_of(name, MODELS)
    kwargs: dict[str, int | float | str | bool] = {}
    if width != 1.0:
        if not accepts(factory, name, "width"):
            raise ConfigError(f"{name} takes no width", hint="the zoo's networks do: see `compress models`")
        if not 0 < width <= 16:
            raise UsageError(f"--width {width:g} is not above 0 and at most 16", hint="--width 1.5")
        kwargs["width"] = width
    target = target or Path(f"{arch.replace(':', '-')}{f'-{width:g}' if kwargs else ''}.safetensors")
    writable(target, folder=False)
    if target.exists() and not fresh:
        raise ConfigError(f"{target} exists already", hint="choose another --out, or overwrite it with --fresh")
    if data is None:
        raise ConfigError("no images to train on", hint="add --data FOLDER, or --data digits to try it")
    schedule = Schedule(epochs=epochs, lr=lr, batch=batch, seed=seed)
    sketch = Loaded(skeleton(factory, kwargs), Architecture(name, kwargs), Plan(), None, "")
    prepared = resolve(sketch, numbers("size", size), numbers("mean", mean), numbers("std", std))
    images = load_data(data, prepared, None, labels=labels, seed=seed, download=download)
    if images is None or images.train is None or not images.labelled:
        raise DataError(f"{data} has no labelled training images", hint="give a folder with train/<class>/<image>")
    if accepts(factory, name, "num_classes"):
        kwargs["num_classes"] = len(images.classes)
    architecture = Architecture(name, kwargs)
    state = target.with_name(f".{target.name}.training")
    if fresh:
        shutil.rmtree(state, ignore_errors=True)
    with listening(err(), quiet=quiet or as_json) as listen:
        clock = Clock(listen)
        with clock.phase("train", f"{name} from scratch, {epochs} epochs of {len(images.train)} images"):
            state.parent.mkdir(parents=True, exist_ok=True)
            made = untrained(architecture, MODELS, seed)
            trained = fit(made, images.train, schedule, state_dir=state, listen=listen).eval()
        with clock.phase("accuracy", f"{len(images.test)} test images, read for the first time"):
            seen = [measured(trained, "trained", split) for split in (images.validation, images.test)]
    facts = {
        "epochs": epochs,
        "lr": lr,
        "batch": batch,
        "seed": seed,
        "data": images.digests,
        "accuracy": [f"{m.split}: {in_words(m)}" for m in seen],
    }
    digest = save(target, trained, architecture=architecture, preprocessing=prepared, metadata={"trained": facts})
    shutil.rmtree(state, ignore_errors=True)
    if as_json:
        print_json({"file": str(target), "digest": digest, **facts, "seconds": clock.seconds})
        return
    squeeze = f" --method csgd --set options.squeeze={width:g}" if width > 1 else ""
    show_saved(seen, target, f"compress prune {target} --data {data}{squeeze}")
