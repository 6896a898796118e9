"""``inspect``, ``models``, ``methods``, ``doctor`` and ``cite``: commands that change nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import MISSING, asdict, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from compress.errors import ConfigError
from compress.report import number, percent
from compress_cli import options as o
from compress_cli.console import guarded, out, print_json

if TYPE_CHECKING:
    from compress.pipeline import Inspection

app = typer.Typer()

OWN = (
    ("torchvision:NAME", "any of torchvision's classification networks, as torchvision:resnet50 (the prefix may be left out)"),
    ("timm:NAME", "any of timm's, where it is installed: pip install timm"),
    ("package.module:factory", "your own: a function that returns the untrained network; importing it runs its code"),
)


@app.command()
@guarded()
def inspect(
    model: o.Model,
    arch: o.Arch = None,
    trust_pickle: o.TrustPickle = False,
    weights: o.Weights = None,
    size: o.Size = None,
    ignore: Annotated[list[str] | None, typer.Option(metavar="PATTERN", help="Layers to leave alone; repeatable.")] = None,
    round_to: Annotated[int | None, typer.Option(help="Widths become multiples of this. Default: 8.")] = None,
    no_streams: Annotated[bool, typer.Option("--no-streams", help="Leave coupled residual streams alone.")] = False,
    as_json: o.AsJson = False,
    debug: o.Debug = False,
) -> None:
    """Show a network's layers: widths, MACs, which are coupled, which will not be pruned and why."""
    from compress.networks import network_from
    from compress.pipeline import inspect, make_job
    from compress_cli.loading import classes_of, load_network

    flags = {"ignore": tuple(ignore) if ignore else None, "round_to": round_to, "streams": False if no_streams else None}
    job = make_job(flags=flags)
    loaded, prepared = load_network(model, arch=arch, trust_pickle=trust_pickle, size=size, weights=weights)
    classes_of(loaded.model, prepared.shape)  # says so where it does not take images of this size
    network = network_from(loaded, preprocessing=prepared)
    seen = inspect(network, job)
    if as_json:
        print_json(as_data(seen))
    else:
        show_inspection(out(), f"{network.name}, images of {'x'.join(map(str, prepared.shape))}", seen)


def as_data(seen: Inspection) -> dict[str, Any]:
    """An inspection as plain data."""
    return {
        "macs": seen.cost.macs,
        "params": seen.cost.params,
        "layers": [asdict(layer) for layer in seen.layers],
        "not_pruned": dict(seen.frozen),
        "least": dict(seen.least),
        "least_unaligned": dict(seen.least_unaligned),
        "narrow": list(seen.narrow),
        "notes": list(seen.notes),
    }


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
    reach = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="what can be reached (share kept)", title_justify="left")
    for column in ("", "whole", "least", "least with --round-to 1"):
        reach.add_column(column, justify="left" if not column else "right")
    wholes = {"macs": number(seen.cost.macs), "params": number(seen.cost.params), "latency": "1, predicted"}
    for kind, least in seen.least.items():
        reach.add_row(f"--{kind}", wholes[kind], f"{least:.3f}", f"{seen.least_unaligned[kind]:.3f}")
    console.print(reach)
    if seen.narrow:
        console.print(f"[dim]narrower than 16, not aligned: {escape(', '.join(seen.narrow))}[/]", soft_wrap=True)
    for note in seen.notes:
        console.print(f"[dim]note: {escape(note)}[/]", soft_wrap=True)


@app.command()
@guarded()
def models(as_json: o.AsJson = False, debug: o.Debug = False) -> None:
    """List the networks that are known by name, and how to name others."""
    from compress_models import MODELS

    from compress.networks import skeleton

    found = []
    for name, factory in MODELS.items():
        params = sum(p.numel() for p in skeleton(factory, {}).parameters())
        about = " ".join((factory.__doc__ or "").split()).partition(". ")[0].rstrip(".")
        found.append({"name": name, "params": params, "about": about})
    if as_json:
        print_json({"zoo": found, "others": dict(OWN)})
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("--arch")
    table.add_column("params", justify="right")
    table.add_column("")
    for entry in found:
        table.add_row(str(entry["name"]), number(float(str(entry["params"]))), escape(str(entry["about"])))
    table.add_section()
    for name, about in OWN:
        table.add_row(name, "", about)
    out().print(table)


@app.command()
@guarded()
def methods(as_json: o.AsJson = False, debug: o.Debug = False) -> None:
    """List the pruning methods with their options."""
    from compress.search import METHODS

    found = {
        name: {"summary": m.summary, "citation": m.citation, "options": dict(_defaults(m.searcher, m.preset))}
        for name, m in METHODS.items()
    }
    if as_json:
        print_json(found)
        return
    console = out()
    for name, method in METHODS.items():
        console.print(f"[bold]{name}[/]  {escape(method.summary)}", soft_wrap=True)
        console.print(f"  [dim]{escape(method.citation)}[/]", soft_wrap=True)
        for option, value in _defaults(method.searcher, method.preset):
            console.print(f"  --set options.{option}={escape(json.dumps(value))}", soft_wrap=True)


def _defaults(searcher: type[Any], preset: Any) -> Iterator[tuple[str, Any]]:
    for field in fields(searcher):
        made = field.default_factory() if field.default_factory is not MISSING else field.default
        value = preset.get(field.name, made)
        yield field.name, list(value) if isinstance(value, tuple) else value


@app.command()
@guarded()
def doctor(as_json: o.AsJson = False, debug: o.Debug = False) -> None:
    """Say what this machine can run."""
    import importlib.util

    import torch

    from compress.core import capture
    from compress.networks import computes_bf16
    from compress.runtime import PROVIDERS, OrtRuntime

    here = capture()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    runtimes = {name: OrtRuntime(name).available() for name in PROVIDERS}
    facts: dict[str, Any] = {
        "runtimes": runtimes,
        "training": {"device": device.type, "bf16": computes_bf16(device)},
        "timm": importlib.util.find_spec("timm") is not None,
        "environment": here.to_json(),
    }
    if as_json:
        print_json(facts)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, there in runtimes.items():
        table.add_row(f"runtime {name}", "[green]yes[/]" if there else "[dim]no[/]")
    table.add_row("training", f"{device.type}, {'bf16' if facts['training']['bf16'] else 'fp32 (no bf16 in hardware)'}")
    table.add_row("timm", "installed" if facts["timm"] else "not installed: pip install timm")
    table.add_row("processor", escape(here.cpu))
    granted = f", the control group grants {here.quota:g}" if here.quota is not None else ""
    table.add_row("threads", f"{here.affinity} of {here.cores} usable{granted}")
    table.add_row("instructions", " ".join(here.flags))
    load = "unknown" if here.load is None else f"{here.load:g}"
    busy = here.load is not None and here.load > here.affinity / 2
    table.add_row("load", f"{load}{' [yellow](busy: latencies will be noisy)[/]' if busy else ''}")
    for gpu in here.gpus:
        table.add_row("GPU", escape(f"{gpu.name}, {gpu.memory_mib} MiB, driver {gpu.driver}"))
    table.add_row("versions", f"python {here.python}, " + ", ".join(f"{n} {v}" for n, v in here.versions))
    out().print(table)


@app.command()
@guarded()
def cite(
    method: Annotated[str | None, typer.Argument(metavar="[METHOD]", help="A method; everything without it.")] = None,
    debug: o.Debug = False,
) -> None:
    """Print what to cite, as BibTeX."""
    from compress_cli.citations import CITATIONS, OF_EVERY_RUN, OF_METHOD

    if method is None:
        wanted = list(CITATIONS)
    elif method in OF_METHOD:
        wanted = [*OF_METHOD[method], *OF_EVERY_RUN]
    else:
        raise ConfigError(f"no method is called {method!r}", hint=f"one of {', '.join(OF_METHOD)}")
    typer.echo("\n\n".join(CITATIONS[key] for key in wanted))
