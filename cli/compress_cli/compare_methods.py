"""``compare-methods``: several methods on one network under one protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from compress.core import plural
from compress.errors import CompressError, ConfigError
from compress_cli import options as o
from compress_cli.console import UsageError, command_line, err, guarded, out, print_json
from compress_cli.inputs import Inputs, stem
from compress_cli.numbers import choosing_workers, workers_named
from compress_cli.safe_console import sentence
from compress_cli.tables import print_table

if TYPE_CHECKING:
    from compress.pipeline import Prune
    from compress.report import Comparison

app = typer.Typer()


@app.command("compare-methods")
@guarded(resumes=True)
def compare_methods(
    *,
    model: o.Model,
    methods: Annotated[
        str,
        typer.Option(
            help="By commas: of `compress methods`, a criterion (l1, fpgm, ...: uniform widths by it), global-l1, ..."
        ),
    ] = "smoea,bicnn,cluster,obs",
    against: Annotated[str, typer.Option(help="The method that the others are set against; added if missing.")] = "uniform",
    arm: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=MODULE:FUNCTION", help="Somebody else's pruner as a method; repeatable. Runs its code."),
    ] = None,
    seeds: Annotated[str, typer.Option(help="By commas.")] = "0,1,2",
    macs: Annotated[float | None, typer.Option(help="Share of the multiply-accumulates to keep. Default: 0.5.")] = None,
    params: Annotated[float | None, typer.Option(help="Share of the parameters to keep.")] = None,
    inputs: Inputs,
    budget: Annotated[int | None, typer.Option(help="Image-forwards that each search may spend.")] = None,
    workers: o.Workers = None,
    score_threads: o.ScoreThreads = None,
    epochs: Annotated[int | None, typer.Option(help="Fine-tuning, the same for all; 0 turns it off.")] = None,
    recover: Annotated[str | None, typer.Option(metavar="none|bn|reconstruct", help="Without training, after the cut.")] = None,
    latency_seconds: Annotated[float | None, typer.Option(help="Measuring time a run; 0 measures nothing.")] = None,
    config: o.Config = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any setting of `prune`, or a method's own as in cluster.generations=10; repeatable.",
        ),
    ] = None,
    train: o.Train = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Default: runs/MODEL-methods.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget earlier runs in the folder.")] = False,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Compare methods: same images, training, budget and seeds; one table and one plot. The same command goes on."""
    if macs is not None and params is not None:
        raise UsageError("--macs and --params are given, one target is wanted", hint="leave one of them out")
    flags: dict[str, Any] = {
        "workers": workers_named(workers),
        "score_threads": score_threads,
        "budget": budget,
        "epochs": epochs,
        "recover": recover,
        "latency_seconds": latency_seconds,
    }
    if params is not None:
        flags |= {"target": "params", "value": params}
    elif macs is not None:
        flags |= {"target": "macs", "value": macs}
    wanted = [name.strip() for name in methods.split(",") if name.strip()]
    if not wanted:
        raise UsageError("--methods names none", hint="--methods smoea,obs; see `compress methods`")
    drawn = _seeds(seeds)
    folder = folder or Path("runs") / f"{stem(model)}-methods"
    found = _compared(
        inputs,
        wanted,
        against,
        _arms(arm or []),
        drawn,
        flags,
        config,
        settings or [],
        folder,
        fresh,
        quiet,
        train,
    )
    print_json(found.to_json()) if as_json else show(out(), found, folder)
    failed = [f"{s.method}, {why}" for s in found.summaries for why in s.failed]
    if failed:
        raise CompressError(f"{plural(len(failed), 'run')} failed: {failed[0]}", hint="the others stand in the table")


def _compared(
    inputs: Inputs,
    names: list[str],
    against: str,
    arms: Mapping[str, tuple[str, Prune]],
    seeds: list[int],
    flags: Mapping[str, Any],
    config: Path | None,
    settings: list[str],
    folder: Path,
    fresh: bool,
    quiet: bool,
    train: str | None,
) -> Comparison:
    from compress.pipeline import MethodComparison, compare_methods, entry, make_job, read_settings
    from compress_cli.loading import loop_from, writable
    from compress_cli.progress import listening

    mine: dict[str, list[str]] = {}
    shared = []
    for text in settings:
        owner, dot, rest = text.partition("=")[0].partition(".")
        if owner == "options":
            raise ConfigError(
                f"--set {text}: options belong to one method", hint=f"name it, as in --set {names[0]}.{text.partition('.')[2]}"
            )
        if dot:
            mine.setdefault(owner, []).append(f"options.{rest}{text[len(owner) + 1 + len(rest) :]}")
        else:
            shared.append(text)
    for owner in mine:
        if owner not in names:
            raise ConfigError(f"--set {owner}....: {owner} is not among --methods", hint=f"--methods {','.join(names)},{owner}")
    entries = []
    for name in names:
        one = entry(name, arms=arms)
        if name in mine:
            own = make_job(None, mine[name], {"method": one.method or "uniform"}).options
            one = replace(one, options={**one.options, **own})
        entries.append(one)
    if config is not None and read_settings(config).get("options"):
        hint = f"leave [options] out, and add --set {names[0]}.NAME=VALUE"
        raise ConfigError(f"{config}: options belong to one method", hint=hint)
    job = choosing_workers(make_job(config, shared, {"method": "uniform", **flags}))
    writable(folder, folder=True)
    network, images = inputs.open(seeds[0])
    if images is None:
        raise ConfigError("methods are compared on images, and there are none", hint="add --data FOLDER, or --data digits")
    with listening(err(), quiet=quiet) as listen:
        wanted = MethodComparison(
            job=job,
            entries=entries,
            seeds=seeds,
            reference=against,
            train=loop_from(train),
            reopen=partial(inputs.open, seeds[0]),
        )
        return compare_methods(network, images, wanted, folder, fresh=fresh, command=command_line(), listen=listen)


def _seeds(text: str) -> list[int]:
    try:
        drawn = [int(part) for part in text.split(",")]
        if not all(0 <= seed < 2**63 for seed in drawn):
            raise ValueError
        return drawn
    except ValueError as error:
        raise UsageError(f"--seeds {text!r} is not a list of whole numbers", hint="--seeds 0,1,2") from error


def _arms(given: list[str]) -> dict[str, tuple[str, Prune]]:
    """``NAME=package.module:function``, imported.

    Raises:
        UsageError: it has another form.
        ConfigError: it cannot be imported.
    """
    from compress.core import import_entrypoint, is_entrypoint

    arms = {}
    for text in given:
        name, _, spec = text.partition("=")
        if not name or not is_entrypoint(spec):
            raise UsageError(f"--arm {text!r} is not of the form NAME=package.module:function")
        try:
            arms[name] = (spec, import_entrypoint(spec))
        except ImportError as error:
            raise ConfigError(f"--arm {text}: {error}", hint="check that it can be imported from here") from error
    return arms


def show(console: Console, found: Comparison, folder: Path) -> None:
    """A comparison on the terminal."""
    from compress.report import comparison_table

    sentence(console, f"[bold]{escape(found.network)} on {escape(found.data)}, {escape(found.target)}[/]")
    head, rows = comparison_table(found, brief=True)
    wraps = [index == 0 or column == "speed-up" or column.startswith("−") for index, column in enumerate(head)]
    named = [column if may else f">{column}" for column, may in zip(head, wraps, strict=True)]
    print_table(console, named, rows)
    for note in found.notes:
        sentence(console, f"[dim]note: {escape(note)}[/]")
    console.print(f"\n[dim]files in[/] {escape(str(folder))}: comparison.md, comparison.svg, comparison.json", soft_wrap=True)
