"""``profile``: where the time of an ONNX file goes, layer by layer, and why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from compress.core import markdown, plural
from compress.errors import ConfigError
from compress.report import NONE, duration, number, percent
from compress_cli import options as o
from compress_cli.console import err, guarded, out, print_json, warn
from compress_cli.safe_console import say
from compress_cli.tables import print_table

if TYPE_CHECKING:
    from compress.latency import Change, Explained, LayerTiming

app = typer.Typer()
COLUMNS = ("layer", "channels", "time", "share", "MACs", "made", "GMAC/s", "GB/s", "binds", "why")


@app.command()
@guarded()
def profile(
    before: Annotated[Path, typer.Argument(metavar="MODEL.onnx")],
    after: Annotated[Path | None, typer.Argument(metavar="[AFTER.onnx]", help="Set beside the first, layer by layer.")] = None,
    runtime: Annotated[str, typer.Option(metavar="cpu|cuda|tensorrt", help="Where.")] = "cpu",
    batch: Annotated[int, typer.Option(min=1, help="Images a run.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads on the CPU.")] = 1,
    seconds: Annotated[float, typer.Option(help="Running time of each file.")] = 5.0,
    size: Annotated[str | None, typer.Option(metavar="H[,W]", help="Input size for files that leave it open.")] = None,
    top: Annotated[int, typer.Option(min=0, help="Rows to show, the heaviest; 0 shows all, in order.")] = 20,
    target: Annotated[Path | None, typer.Option("--out", help="Write all rows as JSON.")] = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Time, MACs and rates of every layer, and what binds it; with a second file, what became of each layer there."""
    from compress.core import Clock, did_you_mean, write_json
    from compress.latency import changes, explain, read_graph, summarise
    from compress.latency import profile as profiled
    from compress.runtime import PROVIDERS, OrtRuntime
    from compress_cli.loading import image_of, writable
    from compress_cli.progress import listening

    if target is not None:
        writable(target, folder=False)
    name = next((known for known in PROVIDERS if known == runtime), None)
    if name is None:
        raise ConfigError(
            f"no runtime is called {runtime!r}", hint=did_you_mean(runtime, PROVIDERS, f"one of {', '.join(PROVIDERS)}")
        )
    where = OrtRuntime(provider=name, threads=threads if name == "cpu" else None)
    files = [before] if after is None else [before, after]
    image = image_of(size, before)
    graphs = [read_graph(file) for file in files]
    found = []
    with listening(err(), quiet=quiet) as listen:
        clock = Clock(listen)
        for file, graph in zip(files, graphs, strict=True):
            with clock.phase("profile", str(file)):
                found.append((profiled(file, runtime=where, batch=batch, image=image, seconds=seconds), graph))
    explained = explain(found)
    said = summarise(*explained) if len(explained) == 2 else ()
    facts = {"files": [one.to_json() for one in explained], "summary": list(said)}
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_json(target, facts)
    if as_json:
        print_json(facts)
        return
    for reason in dict.fromkeys(one.profile.fallback for one in explained if one.profile.fallback):
        warn(f"fallback: {reason}")
    if any(one.profile.host_only for one in explained):
        warn("on this provider the times are host times of enqueueing work, not the kernels'")
    if after is None:
        layers = explained[0].layers
        heaviest = sorted(layers, key=lambda layer: -layer.seconds)[:top] if top else layers
        title = _title(explained[0], len(heaviest), len(layers))
        rows = [_row(layer.name, layer) for layer in heaviest]
    else:
        changed = changes(*explained)
        most = sorted(changed, key=lambda change: -abs(change.excess))[:top] if top else changed
        title = f"{before.name} → {_title(explained[1], len(most), len(changed))}"
        arrow = " → " if as_markdown else "\n"
        rows = [_beside(change, arrow) for change in most]
    if as_markdown:
        say(_markdown(rows))
    else:
        _print(title, rows)
    for line in said:
        say(markdown(line)) if as_markdown else out().print(escape(line), soft_wrap=True)


def _row(name: str, layer: LayerTiming | None) -> list[str]:
    """The cells of one layer in one file."""
    if layer is None:
        return [name, *([NONE] * (len(COLUMNS) - 2)), ""]
    return [
        name,
        _channels(layer),
        duration(layer.seconds),
        percent(layer.share, 1),
        number(layer.macs) if layer.macs else "",
        number(layer.activations),
        f"{layer.compute / 1e9:.1f}" if layer.macs else "",
        f"{layer.traffic / 1e9:.1f}",
        layer.binds,
        layer.why if layer.binds in ("compute", "memory") else ": ".join(part for part in (layer.cause, layer.why) if part),
    ]


def _beside(change: Change, arrow: str) -> list[str]:
    """Before and after in the same cells; the reason is the last one's."""
    one, other = _row(change.name, change.before), _row(change.name, change.after)
    cells = [before if before == after else f"{before}{arrow}{after}" for before, after in zip(one, other, strict=True)]
    return [*cells[:-1], other[-1] or one[-1]]


def _title(file: Explained, shown: int, all_rows: int) -> str:
    facts = file.profile
    part = f", the {shown} heaviest of {plural(all_rows, 'row')}" if shown < all_rows else ""
    return f"{file.file}, {facts.runtime}, batch {facts.batch}, {plural(facts.runs, 'run')}{part}"


def _channels(layer: LayerTiming) -> str:
    held = layer.widths
    if held is None:
        return ""
    if held.depthwise:
        return f"{held.outputs} dw"
    return f"{held.inputs}·{held.outputs}" + (f" /{held.cardinality}" if held.cardinality > 1 else "")


def _print(title: str, rows: Sequence[Sequence[str]]) -> None:
    print_table(out(), [c if c in ("layer", "binds", "why") else f">{c}" for c in COLUMNS], rows, title=title)


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(map(markdown, line)) + " |" for line in (COLUMNS, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(COLUMNS), *lines[1:]]) + "\n"
