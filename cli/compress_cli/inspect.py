"""``inspect``: a network's layers, and what can be pruned of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from compress.report import number, percent
from compress_cli import options as o
from compress_cli.console import guarded, out, print_json
from compress_cli.safe_console import sentence
from compress_cli.tables import Cell, print_table

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


def _branches(console: Console, seen: Inspection) -> None:
    """What may be left out beside shortcuts."""
    timed = any(branch.latency is not None for branch in seen.branches)
    rows: list[list[Cell]] = []
    for branch in seen.branches:
        numbers = (branch.macs, *([branch.latency] if timed else []), branch.params)
        shares = ["" if n is None else percent(n, 1) for n in numbers]
        rows.append([branch.name, *shares, Text(branch.why_not, "yellow")])
    head = ("branch", ">share of MACs", *([">of latency"] if timed else []), ">of params", "why it stays")
    print_table(console, head, rows, title="branches beside identity shortcuts")


def show_inspection(console: Console, name: str, seen: Inspection) -> None:
    """An inspection as tables."""
    rows: list[list[Cell]] = []
    for layer in seen.layers:
        where = Text(layer.group) if layer.group else Text(layer.why_not or "stays", "yellow")
        share = percent(layer.macs / max(seen.cost.macs, 1), 1)
        rows.append([layer.name, layer.kind, str(layer.channels), number(layer.macs), share, number(layer.params), where])
    head = ("layer", "kind", ">channels", ">MACs", ">share", ">params", "coupled in group, or why it stays")
    print_table(console, head, rows, title=name)
    if seen.branches:
        _branches(console, seen)
    wholes = {"macs": number(seen.cost.macs), "params": number(seen.cost.params), "latency": "1, predicted"}
    reach: list[tuple[str, str, str, str]] = []
    for kind, least in seen.least.items():
        reach.append((f"--{kind}", wholes[kind], f"{least:.3f}", f"{seen.least_unaligned[kind]:.3f}"))
    print_table(console, ("", ">whole", ">least", ">least with --round-to 1"), reach, title="what can be reached (share kept)")
    if seen.narrow:
        sentence(console, f"[dim]narrower than 16, not aligned: {escape(', '.join(seen.narrow))}[/]")
    for warning in seen.warnings:
        sentence(console, f"[red]warning: {escape(warning)}[/]")
    for note in seen.notes:
        sentence(console, f"[dim]note: {escape(note)}[/]")
