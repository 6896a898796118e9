"""``bench``: how fast ONNX files are, compared so that it can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from compress.errors import ConfigError, ModelError, RuntimeUnavailable
from compress.report.figures import duration, times
from compress_cli import options as o
from compress_cli.door import err, guarded, out, print_json, warn

if TYPE_CHECKING:
    from compress.latency.protocol import LatencyResult

app = typer.Typer()


@app.command()
@guarded()
def bench(
    files: Annotated[list[Path], typer.Argument(metavar="BASE.onnx [OTHER.onnx ...]", help="The first one is the base.")],
    runtime: o.Runtimes = None,
    require_gpu: o.RequireGpu = False,
    batch: Annotated[int, typer.Option(help="Images a run.")] = 1,
    threads: Annotated[int, typer.Option(help="Threads on the CPU.")] = 1,
    seconds: Annotated[float, typer.Option(help="Measuring time a runtime.")] = 20.0,
    size: Annotated[str | None, typer.Option(metavar="H[,W]", help="Input size for files that leave it open.")] = None,
    seed: Annotated[int, typer.Option(help="Of the inputs and the order.")] = 0,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Compare the latency of ONNX files: in turn, with the base against itself as a control."""
    from compress.latency.protocol import Settings, measure
    from compress.runtime.ort import PROVIDERS, OrtRuntime
    from compress_cli.loading import numbers
    from compress_cli.progress import listening

    for file in files:
        if not file.is_file():
            raise ModelError(f"{file} is not a file", hint="give the path of an exported .onnx file")
    sides = numbers("size", size)
    image = None if sides is None else (3, int(sides[0]), int(sides[-1]))
    settings = Settings(batch=batch, budget_seconds=seconds, seed=seed, image=image)
    names = _names(files[1:])
    results: list[LatencyResult] = []
    with listening(err(), quiet=quiet or as_json) as listen:
        for wanted in runtime or ["cpu"]:
            name = next((known for known in PROVIDERS if known == wanted), None)
            if name is None:
                raise ConfigError(f"no runtime is called {wanted!r}", hint=f"one of {', '.join(PROVIDERS)}")
            chosen = OrtRuntime(name, threads=threads if name == "cpu" else None, require_gpu=require_gpu)
            if not chosen.available() and not require_gpu:
                warn(f"runtime {name} is not available here, it is not measured (compress doctor says more)")
                continue
            results.append(
                measure(files[0], dict(zip(names, files[1:], strict=True)), runtime=chosen, settings=settings, listen=listen)
            )
    if not results:
        raise RuntimeUnavailable("nothing could be measured", hint="leave --runtime out to measure on the CPU")
    if as_json:
        print_json([_without_samples(r.to_json()) for r in results])
        return
    for result in results:
        _show(result, str(files[0]))


def _names(files: list[Path]) -> list[str]:
    """Paths as they were typed, told apart where one was typed twice."""
    seen: dict[str, int] = {}
    names = []
    for file in files:
        seen[str(file)] = seen.get(str(file), 0) + 1
        names.append(str(file) if seen[str(file)] == 1 else f"{file} #{seen[str(file)]}")
    return names


def _show(result: LatencyResult, base: str) -> None:
    console = out()
    title = f"{result.runtime}, batch {result.settings.batch}, {result.rounds} rounds, stopped by {result.stopped_by}"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    for column in ("file", "p50", "p90", "images/s", "speed-up (95 %)", "clock", "verdict"):
        table.add_column(column, justify="left" if column in ("file", "verdict", "clock") else "right")
    for arm in result.arms:
        ratio = {"base": None, "base again": result.control}.get(arm.name, result.ratios.get(arm.name))
        cells = ("", "", "base")
        if ratio is not None:
            decisive = ratio.decisive
            cells = (times(decisive.low, decisive.ratio, decisive.high), ratio.decided_by, str(ratio.verdict))
        name = {"base": base, "base again": "  the same again"}.get(arm.name, arm.name)
        table.add_row(
            escape(name), duration(arm.latency.p50), duration(arm.latency.p90), f"{arm.images_per_second:,.1f}", *cells
        )
    console.print(table)
    for flag in result.flags:
        console.print(f"[red]! {escape(flag)}[/]", soft_wrap=True)


def _without_samples(facts: dict[str, Any]) -> dict[str, Any]:
    """Hundreds of raw samples serve no script that reads a table."""
    arms = [{k: v for k, v in arm.items() if k not in ("wall", "cpu")} for arm in facts["arms"]]
    return {**facts, "arms": arms}
