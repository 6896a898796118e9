"""``compare``: a new ONNX file against an old one, with an exit code for a pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from compress.errors import ConfigError
from compress.report import duration, times
from compress_cli import options as o
from compress_cli.bench import BenchOptions, Target, measured
from compress_cli.console import guarded, out, print_json
from compress_cli.safe_console import sentence

if TYPE_CHECKING:
    from compress.latency import Compared, Measurement, Side

app = typer.Typer()
_INCONCLUSIVE, _FAILED = 5, 7


@app.command()
@guarded()
def compare(
    *,
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
    how: BenchOptions,
    target: Target = None,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Compare a new file with an old one, for a pipeline: exit code 7 where a bound failed, 5 where it cannot be told."""
    from compress.core import write_json
    from compress.latency import Outcome, Side, compare, parse, read_measurement, side
    from compress_cli.loading import writable

    bounds = [parse(text) for text in fail_if or []]
    if target is not None:
        writable(target, folder=False)

    def clock(files: list[Path]) -> Measurement:
        needed = 1000 if any(bound.metric == "p99" for bound in bounds) else None
        return measured(files, how, quiet=quiet, min_rounds=needed)

    earlier = side(read_measurement(old), arm, str(old)) if old.suffix == ".json" else None
    if new.suffix == ".json":
        if earlier is None:
            raise ConfigError(f"{old} is no measurement, {new} is one", hint="give two .onnx files, or two .json files")
        later = side(read_measurement(new), arm, str(new))
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
        sentence(console, f"{where}: {escape(new)} runs at {speed} the speed of {escape(old)}, {how}")
        for judged in one.bounds:
            colour = {"held": "green", "failed": "red"}.get(judged.outcome, "yellow")
            said = f"{judged.outcome}: {judged.bound.text}"
            if judged.interval is not None:
                low, value, high = (_in_words(judged.bound.metric, figure) for figure in judged.interval)
                said += f"; it is {value} ({low} to {high})"
            sentence(console, f"  [{colour}]{escape(said + (f'; {judged.why}' if judged.why else ''))}[/]")
        for flag in one.result.flags:
            sentence(console, f"[red]! {escape(flag)}[/]")


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
