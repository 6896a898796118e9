"""``finetune`` and ``train``: a network trained on the user's images, from a file or from scratch.

A network is fine-tuned before it is pruned, or after; one that is to be squeezed back is trained wider than usual.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compress.core import Measured, plural, remove, this_process
from compress.errors import ConfigError, DataError
from compress.report import score_text as in_words
from compress_cli import options as o
from compress_cli.console import UsageError, err, guarded, out, print_json, warn
from compress_cli.inputs import Inputs
from compress_cli.tables import print_table

if TYPE_CHECKING:
    from torch import nn

    from compress.core import Clock, Listen
    from compress.data import Data
    from compress.recovery import OwnLoop, Schedule, Signals
    from compress.tasks import Task

app = typer.Typer()

Rate = Annotated[float, typer.Option(help="Highest learning rate.")]
Epochs = Annotated[int, typer.Option(help="Passes over the training images.")]
Batch = Annotated[int, typer.Option(help="Images a step.")]
Loop = o.Train
Fresh = Annotated[bool, typer.Option("--fresh", help="Overwrite the file, forget an interrupted training.")]


@app.command()
@guarded(resumes=True, several=True)
def finetune(
    *,
    model: o.Model,
    data: o.DataSource = None,
    epochs: Epochs = 5,
    target: Annotated[
        Path | None, typer.Option("--out", help="The trained network's file. Default: MODEL-tuned.safetensors.")
    ] = None,
    lr: Rate = 0.01,
    loop: Loop = None,
    batch: Batch = 128,
    seed: Annotated[int, typer.Option(help="Of the division of the images and of their order.")] = 0,
    inputs: Inputs,
    fresh: Fresh = False,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Train a network on your images and save it in our own format. The same command goes on where it was stopped."""
    from compress.core import Clock
    from compress.networks import TASK, save, state_digest
    from compress.pipeline import with_task
    from compress.recovery import Schedule, meeting
    from compress_cli.loading import loop_from
    from compress_cli.progress import listening

    own = loop_from(loop)
    target = _free(target or Path(f"{Path(model).stem}-tuned.safetensors"), fresh=fresh)
    _named(data)
    network, loaded = inputs.opened()
    prepared = network.preprocessing
    if not network.takes_images:
        raise UsageError("training is on images, and the example is of something else", hint="leave --example out")
    given = inputs.images_of(network, seed)
    network = with_task(network, given, lambda said: warn(getattr(said, "text", "")))
    task = network.purpose
    images = _trainable(given, data, task, needs_loss=own is None)
    schedule = Schedule(epochs=epochs, lr=lr, batch=batch, seed=seed, task=task)
    figure = task.figure.short if task.figure is not None else "score"
    agreed = _agreed("finetune", images, schedule, state_digest(loaded.model.state_dict()), own)
    with meeting(agreed) as signals, listening(err(), quiet=quiet or not signals.first) as listen:
        clock = Clock(listen)
        if not signals.first:
            _trained_along(loaded.model, images, schedule, signals)
            return
        with clock.phase(f"{figure} before", f"{plural(len(images.validation), 'validation image')}"):
            seen = [_measured(loaded.model, "before", images.validation, task)]
        signals.start()
        about = f"{plural(epochs, 'epoch')} of {plural(len(images.train or ()), 'image')}"
        trained = _trained(loaded.model, images, schedule, target, about, fresh, clock, listen, own)
        with clock.phase(f"{figure} after", f"{plural(len(images.test), 'test image')}, read for the first time"):
            seen += [_measured(trained, "after", split, task) for split in (images.validation, images.test)]
    facts = _facts(schedule, images, [f"{m.when}, {m.split}: {in_words(m, task.figures[0])}" for m in seen])
    digest = save(
        target,
        trained,
        architecture=loaded.architecture,
        plan=loaded.plan,
        preprocessing=prepared,
        metadata={**loaded.metadata, TASK: task.spec, "finetuned": facts},
    )
    told = {"file": str(target), "digest": digest, **facts, "seconds": clock.seconds}
    _done(target, seen, told, as_json, f"--data {data}", task)


@app.command()
@guarded(resumes=True, several=True)
def train(
    arch: Annotated[str, typer.Argument(metavar="ARCH", help="A name of `compress models`, torchvision:NAME or timm:NAME.")],
    data: o.DataSource = None,
    width: Annotated[
        float, typer.Option(help="Factor on every layer's channels; 1.5 trains a network that csgd can squeeze back.")
    ] = 1.0,
    epochs: Epochs = 60,
    target: Annotated[
        Path | None, typer.Option("--out", help="The trained network's file. Default: ARCH-WIDTH.safetensors.")
    ] = None,
    lr: Rate = 0.1,
    loop: Loop = None,
    batch: Batch = 128,
    seed: Annotated[int, typer.Option(help="Of the weights, of the division of the images and of their order.")] = 0,
    labels: o.Labels = "sorted",
    download: o.Download = False,
    size: o.Size = None,
    mean: o.Mean = None,
    std: o.Std = None,
    fresh: Fresh = False,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Train a network from scratch and save it in our own format. The same command goes on where it was stopped."""
    from compress_models import MODELS

    from compress.core import Clock, Plan
    from compress.networks import Architecture, Loaded, accepts, canonical, factory_of, save, skeleton, state_digest, untrained
    from compress.recovery import Schedule, meeting
    from compress.tasks import task_named
    from compress_cli.loading import load_data, loop_from, numbers, resolve
    from compress_cli.progress import listening

    own = loop_from(loop)
    name = canonical(arch, MODELS)
    factory = factory_of(name, MODELS)
    kwargs: dict[str, int | float | str | bool] = {}
    if width != 1.0:
        if not accepts(factory, name, "width"):
            raise ConfigError(f"{name} takes no width", hint="the zoo's networks do: see `compress models`")
        if not 0 < width <= 16:
            raise UsageError(f"--width {width:g} is not above 0 and at most 16", hint="--width 1.5")
        kwargs["width"] = width
    default = Path(f"{arch.replace(':', '-')}{f'-{width:g}' if kwargs else ''}.safetensors")
    target = _free(target or default, fresh=fresh)
    _named(data)
    schedule = Schedule(epochs=epochs, lr=lr, batch=batch, seed=seed)
    sketch = Loaded(
        model=skeleton(factory, kwargs), architecture=Architecture(name, kwargs), plan=Plan(), preprocessing=None, digest=""
    )
    prepared = resolve(sketch, numbers("size", size), numbers("mean", mean), numbers("std", std))
    task = task_named("classification")
    images = _trainable(load_data(data, prepared, None, labels=labels, seed=seed, download=download), data, task)
    if accepts(factory, name, "num_classes"):
        kwargs["num_classes"] = len(images.classes)
    architecture = Architecture(name, kwargs)
    made = untrained(architecture, MODELS, seed)
    agreed = _agreed("train", images, schedule, state_digest(made.state_dict()), own)
    with meeting(agreed) as signals, listening(err(), quiet=quiet or not signals.first) as listen:
        clock = Clock(listen)
        if not signals.first:
            _trained_along(made, images, schedule, signals)
            return
        signals.start()
        about = f"{name} from scratch, {plural(epochs, 'epoch')} of {plural(len(images.train or ()), 'image')}"
        trained = _trained(made, images, schedule, target, about, fresh, clock, listen, own)
        with clock.phase(task.figures[0].short, f"{plural(len(images.test), 'test image')}, read for the first time"):
            seen = [_measured(trained, "trained", split, task) for split in (images.validation, images.test)]
    facts = _facts(schedule, images, [f"{m.split}: {in_words(m)}" for m in seen])
    digest = save(target, trained, architecture=architecture, preprocessing=prepared, metadata={"trained": facts})
    squeeze = f" --method csgd --set options.squeeze={width:g}" if width > 1 else ""
    told = {"file": str(target), "digest": digest, **facts, "seconds": clock.seconds}
    _done(target, seen, told, as_json, f"--data {data}{squeeze}", task)


def _free(target: Path, *, fresh: bool) -> Path:
    """Where the network is to be written, if it may be.

    Raises:
        ConfigError: the place cannot be written to, or holds a file that is not to be overwritten.
    """
    from compress_cli.loading import writable

    writable(target, folder=False)
    if _state(target).is_symlink() and not fresh:
        raise ConfigError(f"{_state(target)} is a link: no training is kept there", hint="remove it, or use --fresh")
    if target.exists() and not fresh:
        raise ConfigError(f"{target} exists already", hint="choose another --out, or overwrite it with --fresh")
    return target


def _named(data: str | None) -> None:
    if data is None:
        raise ConfigError("no images to train on", hint="add --data FOLDER, or --data digits to try it")


def _trainable(images: Data | None, source: str | None, task: Task, *, needs_loss: bool = True) -> Data:
    """Images with targets that the task has a loss and a figure for.

    Raises:
        DataError: there are none.
        ConfigError: the task has no loss or no figure.
    """
    if task.figure is None or (needs_loss and not task.has("loss")):
        raise ConfigError(
            f"the task {task.name} has no {'figure' if task.figure is None else 'loss'}, nothing can be trained by it",
            hint="say what the network is for with --task",
        )
    if images is None or images.train is None or images.train.target_kind not in task.targets:
        cure = "give a folder with train/<class>/<image>"
        if not task.logit_per_class:
            cure = f"the task {task.name} wants {' or '.join(task.targets)}"
        raise DataError(f"{source} has no labelled training images", hint=cure)
    return images


def _state(target: Path) -> Path:
    """Where an interrupted training is kept, beside what it makes."""
    return target.with_name(f".{target.name}.training")


def _trained(
    network: nn.Module,
    images: Data,
    schedule: Schedule,
    target: Path,
    about: str,
    fresh: bool,
    clock: Clock,
    listen: Listen,
    own: OwnLoop | None,
) -> nn.Module:
    from compress.core import make_folder
    from compress.recovery import Budget, fit, run_loop

    assert images.train is not None
    state = _state(target)
    if fresh:
        remove(state)
    with clock.phase("train", about):
        if own is not None:
            place = make_folder(state, hint="remove it, or use --fresh")
            budget = Budget(epochs=schedule.epochs, lr=schedule.lr, batch=schedule.batch, seed=schedule.seed, folder=place)
            return run_loop(own, network, network, images, budget)
        return fit(network, images.train, schedule, state_dir=state, listen=listen).eval()


def _agreed(command: str, images: Data, schedule: Schedule, weights: str, own: OwnLoop | None) -> dict[str, str]:
    """What processes that train together have to have in common.

    Raises:
        ConfigError: there are several, and a loop of the user's own.
    """
    if own is not None and not this_process().alone:
        raise ConfigError(
            "a training loop of your own is started in one process here, and a launcher started several",
            hint="start compress by itself: the loop may start processes of its own",
        )
    digests = {f"images for {name}": digest for name, digest in images.digests.items()}
    return {"command": command, "schedule": str(sorted(schedule.to_json().items())), "weights": weights, **digests}


def _trained_along(network: nn.Module, images: Data, schedule: Schedule, signals: Signals) -> None:
    """What processes other than the first do: they wait for the training, and take part in it."""
    from compress.recovery import fit

    assert images.train is not None
    signals.start()
    fit(network, images.train, schedule)


def _measured(network: nn.Module, when: str, split: Any, task: Task) -> Measured:
    """The task's figure on a split, with its interval."""
    from compress.evaluation import score_on

    found = score_on(network, split, task)
    return Measured(when=when, split=split.name, value=found.value, low=found.low, high=found.high, images=found.images)


def _facts(schedule: Schedule, images: Data, accuracy: list[str]) -> dict[str, Any]:
    """What the file says of its training."""
    return {
        "epochs": schedule.epochs,
        "lr": schedule.lr,
        "batch": schedule.batch,
        "seed": schedule.seed,
        "data": images.digests,
        "accuracy": accuracy,
    }


def _done(target: Path, seen: Sequence[Measured], facts: Mapping[str, Any], as_json: bool, following: str, task: Task) -> None:
    """What was measured, where the file is, and the next command."""
    remove(_state(target))
    if as_json:
        print_json(facts)
        return
    console = out()
    rows = [(m.when, m.split, in_words(m, task.figures[0])) for m in seen]
    print_table(console, (task.figures[0].name, "split", ""), rows)
    console.print(f"[dim]saved[/] {target}\n[dim]next:[/]  compress prune {target} {following}", soft_wrap=True)
