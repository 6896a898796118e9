"""``bench RUN --front``: MACs against latency over the networks of a front."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table

from compress.errors import ConfigError
from compress_cli.console import UsageError, err, out, print_json


def clock(
    files: list[Path],
    runtimes: list[str] | None,
    *,
    points: int | None,
    batch: str,
    threads: int,
    seconds: float,
    seed: int,
    require_gpu: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Realises and measures a run's front, on one runtime at one batch."""
    from compress.core import read_json
    from compress.latency import Settings, cells
    from compress.pipeline import clock_front, make_job
    from compress.report import front_latency_table, told
    from compress_cli.progress import listening
    from compress_cli.prune import Inputs

    if len(files) != 1 or not files[0].is_dir():
        raise UsageError("--front wants one run's folder", hint="compress bench runs/resnet50-smoea --front")
    run = files[0]
    sizes = [int(part) for part in batch.split(",") if part.strip().isdigit()]
    names = [name for text in runtimes or ["cpu"] for name in text.split(",")]
    if len(sizes) != 1 or len(names) != 1:
        raise UsageError("--front measures one runtime at one batch", hint="give --runtime and --batch once")
    held = read_json(run / "job.json", hint="give the folder of a finished run").get("job")
    if not isinstance(held, dict):
        raise ConfigError(f"{run} holds no run", hint="give the folder of a finished run")
    job = make_job(flags={k: tuple(v) if isinstance(v, list) else v for k, v in held.items()})
    network, _ = Inputs.of(run).open(job.seed)
    settings = Settings(batch=sizes[0], budget_seconds=seconds, seed=seed)
    cell = next(iter(cells(names, sizes, settings, threads=threads, require_gpu=require_gpu)))
    with listening(err(), quiet=quiet or as_json) as listen:
        found = clock_front(network, run, job, cell.runtime, cell.settings, points=points, listen=listen)
    if as_json:
        print_json(asdict(found))
        return
    made = front_latency_table(found)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"{found.runtime}, batch {found.batch}", title_justify="left")
    for column in made.head:
        table.add_column(escape(column.name), justify="right" if column.number else "left")
    for row in made.rows:
        table.add_row(*(escape(c.text) + (f" [red]{escape(c.about)}[/]" if c.about else "") for c in row))
    console = out()
    console.print(table)
    console.print(escape(told(found)), soft_wrap=True)
    for flag in found.flags:
        console.print(f"[red]! {escape(flag)}[/]", soft_wrap=True)
    console.print(f"[dim]files in[/] {escape(str(run))}: front-latency.json, report.html", soft_wrap=True)
