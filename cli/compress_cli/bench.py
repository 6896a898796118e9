"""``bench``, ``bench-kit``, ``compare``: how fast ONNX files are, compared so that it can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from compress.errors import ConfigError
from compress.report import byte_size, duration, times
from compress_cli import options as o
from compress_cli.console import err, guarded, out, print_json, warn

if TYPE_CHECKING:
    from compress.latency import Compared, LatencyResult, Measurement, Side

app = typer.Typer()
_INCONCLUSIVE, _FAILED = 5, 7

Batches = Annotated[str, typer.Option("--batch", metavar="N[,N...]", help="Images a run; 1 is the single-stream scenario.")]
Providers = Annotated[
    list[str] | None,
    typer.Option(
        "--runtime",
        metavar="cpu|cuda|tensorrt",
        help="Where to measure; repeatable, or several with commas. Default: cpu.",
        rich_help_panel="Measuring",
    ),
]
Threads = Annotated[int, typer.Option(min=1, help="Threads on the CPU.")]
Seconds = Annotated[float, typer.Option(help="Measuring time of each runtime and batch, at most.")]
Size = Annotated[str | None, typer.Option(metavar="H[,W]", help="Input size for files that leave it open.")]
Seed = Annotated[int, typer.Option(help="Of the inputs and the order.")]
Target = Annotated[Path | None, typer.Option("--out", help="Write all of it, raw samples too, as JSON.")]


@app.command()
@guarded()
def bench(
    files: Annotated[list[Path], typer.Argument(metavar="BASE.onnx [OTHER.onnx ...]", help="The first one is the base.")],
    front: Annotated[
        bool, typer.Option("--front", help="Measure the networks of a run's front: RUN instead of files.")
    ] = False,
    points: Annotated[int | None, typer.Option(help="With --front: how many, spread over it. Default: all.")] = None,
    runtime: Providers = None,
    require_gpu: o.RequireGpu = False,
    batch: Batches = "1",
    threads: Threads = 1,
    seconds: Seconds = 20.0,
    size: Size = None,
    seed: Seed = 0,
    target: Target = None,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Compare the latency of ONNX files: in turn, with the base against itself as a control."""
    from compress.core import write_json
    from compress_cli.fronts import clock as clock_front
    from compress_cli.loading import writable

    if front:
        clock_front(
            files, runtime, points=points, batch=batch, threads=threads, seconds=seconds, seed=seed, require_gpu=require_gpu,
            as_json=as_json, quiet=quiet,
        )  # fmt: skip
        return
    if target is not None:
        writable(target, folder=False)
    found = measured(
        files, runtime, require_gpu=require_gpu, batch=batch, threads=threads, seconds=seconds, size=size, seed=seed,
        quiet=quiet or as_json,
    )  # fmt: skip
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_json(target, found.to_json())
    for reason in found.skipped:
        warn(f"not measured: {reason}")
    if as_json:
        print_json([_without_samples(r.to_json()) for r in found.results])
        return
    for result in found.results:
        _show(result, found, str(files[0]))
    if len(found.results) > 1 and len(files) > 1:
        _matrix(found)
    if target is not None:
        out().print(f"[dim]saved[/] {escape(str(target))}", soft_wrap=True)


@app.command("bench-kit")
@guarded()
def bench_kit(
    files: Annotated[list[Path], typer.Argument(metavar="RUN|BASE.onnx [OTHER.onnx ...]", help="A run's folder, or files.")],
    target: Annotated[Path, typer.Option("--out", help="The zip.")] = Path("kit.zip"),
    batch: Annotated[int, typer.Option(min=1, help="Images a run, unless the kit is told otherwise.")] = 1,
    seconds: Seconds = 20.0,
    size: Size = None,
    seed: Seed = 0,
    as_json: o.AsJson = False,
    debug: o.Debug = False,
) -> None:
    """Pack ONNX files with a script that measures them on another machine; it needs only NumPy and ONNX Runtime there."""
    from compress.core import write
    from compress.latency import Settings, cells, describe_all, file_arms, pack, try_out
    from compress_cli.loading import writable

    writable(target, folder=False)
    named = file_arms(_of_a_run(files[0]) if len(files) == 1 and files[0].is_dir() else files)
    facts = describe_all(named)
    settings = Settings(batch=batch, budget_seconds=seconds, seed=seed, image=_image(size))
    try_out(named, list(cells(["cpu"], [batch], settings)))
    packed = pack({arm: (path, facts[arm]) for arm, path in named.items()}, settings)
    target.parent.mkdir(parents=True, exist_ok=True)
    write(target, packed.data)
    if as_json:
        print_json({"file": str(target), "kit": packed.identity, "bytes": len(packed.data), "names": list(packed.names)})
        return
    console = out()
    console.print(f"[dim]saved[/] {escape(str(target))}, {byte_size(len(packed.data))}, kit {packed.identity}", soft_wrap=True)
    console.print("[dim]there:[/]  unzip kit.zip && pip install numpy onnxruntime && python bench.py", soft_wrap=True)


@app.command()
@guarded()
def compare(
    old: Annotated[Path, typer.Argument(metavar="OLD.onnx|OLD.json", help="A file, or what bench --out wrote.")],
    new: Annotated[Path, typer.Argument(metavar="NEW.onnx|NEW.json", help="What is compared with it.")],
    fail_if: Annotated[
        list[str] | None,
        typer.Option("--fail-if", metavar="BOUND", help="slower>2%, speedup<1.5, p99>5ms ...; repeatable. Ends with 7."),
    ] = None,
    allow_inconclusive: Annotated[
        bool, typer.Option("--allow-inconclusive", help="End with 0 instead of 5 where a bound cannot be told.")
    ] = False,
    arm: Annotated[str | None, typer.Option(help="Which file of a measurement that has several.")] = None,
    base: Annotated[
        Path | None, typer.Option(help="The base that OLD.json was measured against, where it lies elsewhere.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Compare sittings on machines that differ.")] = False,
    runtime: Providers = None,
    require_gpu: o.RequireGpu = False,
    batch: Batches = "1",
    threads: Threads = 1,
    seconds: Seconds = 20.0,
    size: Size = None,
    seed: Seed = 0,
    target: Target = None,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Compare a new file with an old one, for a pipeline: exit code 7 where a bound failed, 5 where it cannot be told."""
    from compress.core import write_json
    from compress.latency import Outcome, Side, compare, parse, read, side
    from compress_cli.loading import writable

    bounds = [parse(text) for text in fail_if or []]
    if target is not None:
        writable(target, folder=False)

    def clock(files: list[Path]) -> Measurement:
        needed = 1000 if any(bound.metric == "p99" for bound in bounds) else None
        return measured(
            files, runtime, require_gpu=require_gpu, batch=batch, threads=threads, seconds=seconds, size=size, seed=seed,
            quiet=quiet or as_json, min_rounds=needed,
        )  # fmt: skip

    earlier = side(read(old), arm, str(old)) if old.suffix == ".json" else None
    if new.suffix == ".json":
        if earlier is None:
            raise ConfigError(f"{old} is no measurement, {new} is one", hint="give two .onnx files, or two .json files")
        later = side(read(new), arm, str(new))
    else:
        start, earlier = _start(old, earlier, new, base)
        found = clock([start, new])
        later = Side(found, next(name for name in found.files if name != "base"))
        earlier = earlier or Side(found, "base")
        if target is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_json(target, found.to_json())
    compared = compare(earlier, later, bounds, force=force)
    outcomes = {judged.outcome for one in compared for judged in one.bounds}
    code = 0
    if Outcome.INCONCLUSIVE in outcomes and not allow_inconclusive:
        code = _INCONCLUSIVE
    if Outcome.FAILED in outcomes:
        code = _FAILED
    if as_json:
        print_json({"cells": [_plain(one) for one in compared], "exit_code": code})
    else:
        _show_compared(compared, str(old), str(new))
    if code:
        raise typer.Exit(code)


def _start(old: Path, earlier: Side | None, new: Path, base: Path | None) -> tuple[Path, Side | None]:
    """What the new file is measured against, and the old side where that is another sitting.

    The old file itself, if it can be found, for nothing is better than the same rounds; else the base it was measured against.
    """
    from compress.latency import find

    if earlier is None:
        return old, None
    folders, given = [old.parent, new.parent, Path()], [] if base is None else [base]
    wanted = earlier.measurement.files[earlier.arm]
    if (itself := find(wanted.sha256, wanted.name, folders, given)) is not None:
        return itself, None
    shared = earlier.measurement.files["base"]
    if (found := find(shared.sha256, shared.name, folders, given)) is not None:
        return found, earlier
    raise ConfigError(
        f"neither {wanted.name} nor {shared.name}, which {old} was measured against, lies beside it with the same bytes",
        hint=f"say where it is: --base {shared.name}; times of two sittings cannot be compared without it",
    )


def _show_compared(compared: tuple[Compared, ...], old: str, new: str) -> None:
    console = out()
    for one in compared:
        how = "in the same rounds" if one.paired else "each against the same base, in its own sitting"
        where = f"{one.result.runtime}, batch {one.result.settings.batch}"
        speed = times(one.ratio.low, one.ratio.ratio, one.ratio.high)
        console.print(f"{where}: {escape(new)} runs at {speed} the speed of {escape(old)}, {how}", soft_wrap=True)
        for judged in one.bounds:
            colour = {"held": "green", "failed": "red"}.get(judged.outcome, "yellow")
            said = f"{judged.outcome}: {judged.bound.text}"
            if judged.interval is not None:
                low, value, high = (_in_words(judged.bound.metric, figure) for figure in judged.interval)
                said += f"; it is {value} ({low} to {high})"
            console.print(f"  [{colour}]{escape(said + (f'; {judged.why}' if judged.why else ''))}[/]", soft_wrap=True)
        for flag in one.result.flags:
            console.print(f"[red]! {escape(flag)}[/]", soft_wrap=True)


def _in_words(metric: str, figure: float) -> str:
    if metric in ("slower", "faster"):
        return f"{100 * figure:.1f} %"
    return f"{figure:.2f} ×" if metric == "speedup" else f"{figure:,.1f}" if metric == "throughput" else duration(figure)


def _plain(one: Compared) -> dict[str, Any]:
    facts = one.result
    return {
        "runtime": facts.runtime,
        "batch": facts.settings.batch,
        "transfer": facts.settings.transfer,
        "speedup": {"low": one.ratio.low, "ratio": one.ratio.ratio, "high": one.ratio.high},
        "floor": one.floor,
        "paired": one.paired,
        "flags": list(facts.flags),
        "bounds": [
            {"bound": judged.bound.text, "outcome": str(judged.outcome), "interval": judged.interval, "why": judged.why}
            for judged in one.bounds
        ],
    }


def measured(
    files: list[Path], runtime: list[str] | None, *, require_gpu: bool, batch: str, threads: int, seconds: float,
    size: str | None, seed: int, quiet: bool, min_rounds: int | None = None,
) -> Measurement:  # fmt: skip
    """What ``bench`` and ``compare`` do before they differ."""
    from dataclasses import replace
    from tempfile import TemporaryDirectory

    from compress.latency import Settings, cells, describe_all, file_arms, measure_all
    from compress_cli.progress import listening

    settings = Settings(budget_seconds=seconds, seed=seed, image=_image(size))
    if min_rounds is not None:
        settings = replace(settings, min_rounds=min_rounds)
    providers = [part.strip() for wanted in runtime or ["cpu"] for part in wanted.split(",")]
    with TemporaryDirectory(prefix="compress-engines-") as engines, listening(err(), quiet=quiet) as listen:
        given = (providers, _batches(batch), settings)
        combinations = list(cells(*given, threads=threads, require_gpu=require_gpu, engines=Path(engines)))
        named = file_arms(files)
        facts = describe_all(named)
        base, *others = named.items()
        return measure_all(base[1], dict(others), combinations, files=facts, listen=listen)


def _batches(text: str) -> list[int]:
    try:
        batches = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"--batch {text} is no list of numbers", hint="e.g. --batch 1,8,32") from error
    if min(batches) < 1:
        raise ConfigError(f"--batch {text}: at least 1 image is wanted", hint="e.g. --batch 1,8,32")
    return batches


def _image(size: str | None) -> tuple[int, int, int] | None:
    from compress_cli.loading import numbers

    sides = numbers("size", size)
    return None if sides is None else (3, int(sides[0]), int(sides[-1]))


def _of_a_run(folder: Path) -> list[Path]:
    """The unpruned network and what the run made of it, in every precision."""
    files = [folder / "base.onnx", *(sorted(folder.glob("model*.onnx")) or [folder / "model.onnx"])]
    for file in files:
        if not file.is_file():
            raise ConfigError(f"{file} is missing", hint="give the folder of a finished run, or the .onnx files themselves")
    return files


def _show(result: LatencyResult, found: Measurement, base: str) -> None:
    console = out()
    title = f"{result.runtime}, batch {result.settings.batch}, {result.rounds} rounds, stopped by {result.stopped_by}"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    for column in ("file", "", "p50", "p90", "images/s", "speed-up (95 %)", "clock", "verdict"):
        table.add_column(column, justify="left" if column in ("file", "verdict", "clock", "") else "right")
    for arm in result.arms:
        ratio = {"base": None, "base again": result.control}.get(arm.name, result.ratios.get(arm.name))
        cells = ("", "", "base")
        if ratio is not None:
            decisive = ratio.decisive
            cells = (times(decisive.low, decisive.ratio, decisive.high), ratio.decided_by, str(ratio.verdict))
        name = {"base": base, "base again": "  the same again"}.get(arm.name, arm.name)
        file = found.files.get(arm.name)
        table.add_row(
            escape(name),
            file.precision if file else "",
            duration(arm.latency.p50),
            duration(arm.latency.p90),
            f"{arm.images_per_second:,.1f}",
            *cells,
        )
    console.print(table)
    for flag in result.flags:
        console.print(f"[red]! {escape(flag)}[/]", soft_wrap=True)


def _matrix(found: Measurement) -> None:
    """Every file on every runtime and batch, in one table."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="speed-up over the base", title_justify="left")
    table.add_column("file")
    table.add_column("")
    for result in found.results:
        device = ", device" if result.settings.transfer == "device" else ""
        table.add_column(f"{result.runtime}, batch {result.settings.batch}{device}", justify="right")
    for arm in found.results[0].ratios:
        ratios = [result.ratios[arm] for result in found.results]
        said = [f"{ratio.decisive.ratio:.2f} × {ratio.verdict}" for ratio in ratios]
        table.add_row(escape(arm), found.files[arm].precision, *said)
    out().print(table)


def _without_samples(facts: dict[str, Any]) -> dict[str, Any]:
    """Hundreds of raw samples serve no script that reads a table."""
    arms = [{k: v for k, v in arm.items() if k not in ("wall", "cpu")} for arm in facts["arms"]]
    return {**facts, "arms": arms}
