"""``prune`` and ``pick``: a run, and another point of its front."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compress.core import this_process
from compress.errors import ConfigError
from compress_cli import options as o
from compress_cli.console import UsageError, command_line, err, guarded, out, print_json, warn
from compress_cli.inputs import Inputs, seed_of, stem
from compress_cli.naming import method_names
from compress_cli.numbers import choosing_workers, number_or_auto, workers_named

if TYPE_CHECKING:
    from compress.pipeline import Result

app = typer.Typer()
_SEARCH, _TARGET, _RECOVERY, _MEASURING, _OUTPUT = "Search", "Target (one of them)", "Recovery", "Measuring", "Output"


@app.command()
@guarded(resumes=True, several=True)
def prune(
    *,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", show_default=False, help=f"{o.MODEL} With --config RUN/job.json the run's own.")
    ] = "",
    macs: Annotated[
        float | None, typer.Option(help="Share of the multiply-accumulates to keep. Default: 0.5.", rich_help_panel=_TARGET)
    ] = None,
    params: Annotated[float | None, typer.Option(help="Share of the parameters to keep.", rich_help_panel=_TARGET)] = None,
    latency: Annotated[
        float | None,
        typer.Option(
            help="Share of the latency to keep, on this machine's CPU: searched with a latency table, then measured.",
            rich_help_panel=_TARGET,
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="AMOUNT",
            help="What the task's figure may lose: points of a share (accuracy, mIoU, mAP), else in its unit (dB, px).",
            rich_help_panel=_TARGET,
        ),
    ] = None,
    inputs: Inputs,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="One of `compress methods`. Default: auto.",
            rich_help_panel=_SEARCH,
            autocompletion=method_names,
        ),
    ] = None,
    round_to: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto",
            help="Widths become multiples of this; auto asks the latency table. Default: 8.",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="T.json",
            help="Latency table of `compress table`. Default: made where it is needed, and kept.",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Take a latency table from another environment.", rich_help_panel=_SEARCH)
    ] = False,
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help='Layers to leave alone, as in "layer4.*"; repeatable.', rich_help_panel=_SEARCH),
    ] = None,
    no_streams: Annotated[
        bool,
        typer.Option(
            "--no-streams",
            help="Leave alone the channels that shortcuts carry through several blocks.",
            rich_help_panel=_SEARCH,
        ),
    ] = False,
    no_branches: Annotated[
        bool, typer.Option("--no-branches", help="Keep every block: remove channels only.", rich_help_panel=_SEARCH)
    ] = False,
    finalists: Annotated[
        int | None,
        typer.Option(
            metavar="N|0",
            help="Plans trained for some steps before one is taken, half an epoch in all; 0: none. Default: 8 where "
            "--epochs is 3 or more.",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(
            help="Images that the search may run through the network, over all candidates. Default: by its size.",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything that is random. Default: 0.", rich_help_panel=_SEARCH)] = None,
    workers: o.Workers = None,
    score_threads: o.ScoreThreads = None,
    recover: Annotated[
        str | None,
        typer.Option(
            metavar="none|bn|reconstruct",
            help="How accuracy is recovered after the cut, before any training. Default: reconstruct.",
            rich_help_panel=_RECOVERY,
        ),
    ] = None,
    realise: Annotated[
        str | None,
        typer.Option(
            metavar="cut|csgd",
            help="Cut and recover, or train filters until they are equal and trim without loss. Default: cut.",
            rich_help_panel=_RECOVERY,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="Of training after the cut; 0: none. Default: by the number of images.", rich_help_panel=_RECOVERY),
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate.", rich_help_panel=_RECOVERY)] = None,
    batch: Annotated[int | None, typer.Option(help="Images a training step.", rich_help_panel=_RECOVERY)] = None,
    train: o.Train = None,
    no_distill: Annotated[
        bool, typer.Option("--no-distill", help="Do not imitate the unpruned network.", rich_help_panel=_RECOVERY)
    ] = False,
    accept_chance: Annotated[
        bool,
        typer.Option("--accept-chance", help="Go on although the network is no better than chance.", rich_help_panel=o.IMAGES),
    ] = False,
    runtime: o.Runtimes = None,
    require_gpu: o.RequireGpu = False,
    latency_seconds: Annotated[
        float | None,
        typer.Option(help="Seconds of measuring on each runtime; 0: none. Default: 15.", rich_help_panel=_MEASURING),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads while measuring. Default: 1.", rich_help_panel=_MEASURING)
    ] = None,
    exporter: o.Exporter = None,
    dynamic_size: o.DynamicSize = False,
    config: o.Config = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Any setting, as in options.population=20; repeatable.", rich_help_panel=_SEARCH
        ),
    ] = None,
    track: o.Track = None,
    folder: o.OutFolder = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget an earlier run in the folder.", rich_help_panel=_OUTPUT)
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show the groups and what can be reached.", rich_help_panel=_OUTPUT)
    ] = False,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Prune a network: search, cut, prove, recover, export, measure. The same command goes on where it was stopped.

    For half of the time on this machine: compress prune resnet50.pt --data images/ --latency 0.5
    """
    targets = {"macs": macs, "params": params, "latency": latency, "max_drop": max_drop}
    given = {kind: value for kind, value in targets.items() if value is not None}
    if len(given) > 1:
        names = " and ".join(f"--{kind.replace('_', '-')}" for kind in given)
        raise UsageError(f"{names} are given, one target is wanted", hint="leave out all but one of them")
    flags: dict[str, Any] = {
        "method": method,
        "round_to": number_or_auto("--round-to", round_to, 16),
        "table": str(table) if table is not None else None,
        "force": True if force else None,
        "ignore": tuple(ignore) if ignore else None,
        "streams": False if no_streams else None,
        "branches": False if no_branches else None,
        "finalists": finalists,
        "seed": seed,
        "budget": budget,
        "workers": workers_named(workers),
        "score_threads": score_threads,
        "recover": recover,
        "realise": realise,
        "epochs": epochs,
        "lr": lr,
        "batch": batch,
        "distill": 0.0 if no_distill else None,
        "exporter": exporter,
        "dynamic_size": True if dynamic_size else None,
        "runtimes": tuple(runtime) if runtime else None,
        "require_gpu": True if require_gpu else None,
        "latency_seconds": latency_seconds,
        "threads": threads,
        "accept_chance": True if accept_chance else None,
    }
    for kind, value in given.items():
        flags |= {"target": kind, "value": value}
    run_prune(
        inputs,
        flags,
        config,
        settings or [],
        folder,
        train=train,
        track=track or [],
        fresh=fresh,
        dry_run=dry_run,
        as_json=as_json,
        quiet=quiet,
    )


def run_prune(
    inputs: Inputs,
    flags: Mapping[str, Any],
    config: Path | None,
    settings: list[str],
    folder: Path | None,
    *,
    train: str | None,
    track: list[str],
    fresh: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """A run as the command line asks for it, from the resolved job to what is printed."""
    from compress.pipeline import inspect, make_job, need_trackers, prune, tracked
    from compress_cli.inspect import as_data, show_inspection
    from compress_cli.loading import loop_from, writable
    from compress_cli.progress import listening

    loop = loop_from(train)
    need_trackers(track)
    if not inputs.model:
        inputs = Inputs.again(config, inputs)
    job = choosing_workers(make_job(config, settings, flags))
    if job.table:
        writable(Path(job.table), folder=False)
    folder = writable(folder or Path("runs") / f"{stem(inputs.model)}-{job.method}", folder=True)
    network, images = inputs.open(job.seed)
    if dry_run:
        seen = inspect(network, job)
        print_json(as_data(seen)) if as_json else show_inspection(out(), network.name, seen)
        return
    if images is None and not quiet and this_process().first:
        warn("no data: nothing will be scored; --data FOLDER lets it be")
    first = this_process().first
    with (
        listening(err(), quiet=quiet or not first) as listen,
        tracked(track if first else [], folder, job, listen, network.purpose.figure) as tracking,
    ):
        result = prune(network, images, job, folder, train=loop, fresh=fresh, command=command_line(), listen=tracking.hear)
        tracking.conclude(result.report)
    if not this_process().first:
        return
    inputs.remember(folder)
    _end(result, as_json)


def _end(result: Result, as_json: bool) -> None:
    from compress.report import report_text
    from compress_cli.render import show

    if as_json:
        typer.echo(report_text(result.report), nl=False)
    else:
        show(out(), result.report, result.folder)
    if result.exit_code:
        raise typer.Exit(result.exit_code)


@app.command()
@guarded(resumes=True, several=True)
def pick(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    index: Annotated[int | None, typer.Option(help="Number of the point in front.json.")] = None,
    by: Annotated[str | None, typer.Option(metavar="knee", help="Where quality begins to cost more than it saves.")] = None,
    macs: Annotated[
        float | None, typer.Option(help="The most accurate point that keeps at most this share of the MACs. Any: obs, uniform.")
    ] = None,
    params: Annotated[float | None, typer.Option(help="The same for parameters.")] = None,
    latency: Annotated[float | None, typer.Option(help="The same for latency, after a search with --latency.")] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Fine-tuning; 0 takes the network as recovered without training. Default: the run's.")
    ] = None,
    train: o.Train = None,
    model: Annotated[str | None, typer.Option(help="The unpruned network, where the run does not know it.")] = None,
    data: o.DataSource = None,
    download: o.Download = False,
    trust_pickle: o.TrustPickle = False,
    weights: o.Weights = None,
    task: o.TaskName = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Default: RUN/picks/INDEX.")] = None,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Make another point of a run's front real, without a new search."""
    from compress.pipeline import pick
    from compress_cli.loading import loop_from, writable
    from compress_cli.progress import listening

    if sum(value is not None for value in (index, by, macs, params, latency)) != 1:
        raise UsageError(
            "which point? give exactly one of --index, --by, --macs, --params, --latency", hint=f"compress pick {run} --by knee"
        )
    if not run.is_dir():
        raise ConfigError(f"{run} is not a folder", hint="give the folder of a finished run, as in runs/resnet50-smoea")
    if folder is not None:
        writable(folder, folder=True)
    given = Inputs(model=model or "", data=data, download=download, trust_pickle=trust_pickle, weights=weights, task=task)
    inputs = Inputs.of(run, given)
    network, images = inputs.open(seed_of(run))
    loop = loop_from(train)
    with listening(err(), quiet=quiet or not this_process().first) as listen:
        point: dict[str, Any] = {"index": index, "by": by, "macs": macs, "params": params, "latency": latency}
        result = pick(network, images, run, **point, epochs=epochs, train=loop, out=folder, listen=listen)
    if not this_process().first:
        return
    inputs.remember(result.folder)
    _end(result, as_json)
