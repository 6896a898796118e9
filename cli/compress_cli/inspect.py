"""``inspect``: a network's layers, and what can be pruned of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from compress.report import number, percent
from compress_cli import options as o
from compress_cli.console import guarded, out, print_json

if TYPE_CHECKING:
    from compress.networks import Network
    from compress.pipeline import Inspection

app = typer.Typer()


@app.command()
@guarded()
def inspect(
    model: o.Model,
    arch: o.Arch = None,
    trust_pickle: o.TrustPickle = False,
    weights: o.Weights = None,
    size: o.Size = None,
    example: o.Example = None,
    ignore: Annotated[list[str] | None, typer.Option(metavar="PATTERN", help="Layers to leave alone; repeatable.")] = None,
    round_to: Annotated[int | None, typer.Option(help="Widths become multiples of this. Default: 8.")] = None,
    no_streams: Annotated[bool, typer.Option("--no-streams", help="Leave coupled residual streams alone.")] = False,
    no_branches: Annotated[bool, typer.Option("--no-branches", help="Leave out no branch beside a shortcut.")] = False,
    as_json: o.AsJson = False,
    debug: o.Debug = False,
) -> None:
    """Show a network's layers: widths, MACs, which are coupled, which will not be pruned and why."""
    from compress.pipeline import inspect, make_job
    from compress_cli.inputs import Inputs

    flags = {"ignore": tuple(ignore) if ignore else None, "round_to": round_to, "streams": False if no_streams else None}
    flags |= {"branches": False if no_branches else None}
    job = make_job(flags=flags)
    given = Inputs(model=model, arch=arch, trust_pickle=trust_pickle, weights=weights, size=size, example=example)
    network, _ = given.opened()
    seen = inspect(network, job)
    if as_json:
        print_json(as_data(seen))
    else:
        show_inspection(out(), f"{network.name}, {taken(network)}", seen)


def taken(network: Network) -> str:
    """What the network takes, in words."""
    if network.takes_images:
        return f"{'images' if len(network.shape) == 3 else 'samples'} of {'x'.join(map(str, network.shape))}"
    assert network.signature is not None
    return network.signature.describe()


def as_data(seen: Inspection) -> dict[str, Any]:
    """An inspection as plain data."""
    return {
        "macs": seen.cost.macs,
        "params": seen.cost.params,
        "layers": [asdict(layer) for layer in seen.layers],
        "branches": [asdict(branch) for branch in seen.branches],
        "not_pruned": dict(seen.frozen),
        "least": dict(seen.least),
        "least_unaligned": dict(seen.least_unaligned),
        "narrow": list(seen.narrow),
        "notes": list(seen.notes),
        "warnings": list(seen.warnings),
    }


def _branches(seen: Inspection) -> Table:
    """What may be left out beside shortcuts."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="branches beside identity shortcuts", title_justify="left")
    timed = any(branch.latency is not None for branch in seen.branches)
    for column in ("branch", "share of MACs", *(["of latency"] if timed else []), "of params", "why it stays"):
        table.add_column(column, justify="right" if "of" in column.split() else "left")
    for branch in seen.branches:
        numbers = (branch.macs, *([branch.latency] if timed else []), branch.params)
        why = f"[yellow]{escape(branch.why_not)}[/]" if branch.why_not else ""
        table.add_row(escape(branch.name), *("" if n is None else percent(n, 1) for n in numbers), why)
    return table


def show_inspection(console: Console, name: str, seen: Inspection) -> None:
    """An inspection as tables."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=escape(name), title_justify="left")
    for column in ("layer", "kind", "channels", "MACs", "share", "params", "coupled in group, or why it stays"):
        table.add_column(column, justify="right" if column in ("channels", "MACs", "share", "params") else "left")
    for layer in seen.layers:
        where = escape(layer.group) if layer.group else f"[yellow]{escape(layer.why_not or 'stays')}[/]"
        share = percent(layer.macs / max(seen.cost.macs, 1), 1)
        cells = (str(layer.channels), number(layer.macs), share, number(layer.params))
        table.add_row(escape(layer.name), layer.kind, *cells, where)
    console.print(table)
    if seen.branches:
        console.print(_branches(seen))
    reach = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="what can be reached (share kept)", title_justify="left")
    for column in ("", "whole", "least", "least with --round-to 1"):
        reach.add_column(column, justify="left" if not column else "right")
    wholes = {"macs": number(seen.cost.macs), "params": number(seen.cost.params), "latency": "1, predicted"}
    for kind, least in seen.least.items():
        reach.add_row(f"--{kind}", wholes[kind], f"{least:.3f}", f"{seen.least_unaligned[kind]:.3f}")
    console.print(reach)
    if seen.narrow:
        console.print(f"[dim]narrower than 16, not aligned: {escape(', '.join(seen.narrow))}[/]", soft_wrap=True)
    for warning in seen.warnings:
        console.print(f"[red]warning: {escape(warning)}[/]", soft_wrap=True)
    for note in seen.notes:
        console.print(f"[dim]note: {escape(note)}[/]", soft_wrap=True)
