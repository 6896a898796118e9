"""``models``, ``methods``, ``doctor`` and ``cite``: what there is, what runs here, and what to cite."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.text import Text

from compress.report import number
from compress_cli import options as o
from compress_cli.console import guarded, out, print_json
from compress_cli.naming import method_names, unknown_method
from compress_cli.safe_console import sentence
from compress_cli.tables import Cell, print_table

app = typer.Typer()

OWN = (
    ("torchvision:NAME", "any of torchvision's classification networks, as torchvision:resnet50 (the prefix may be left out)"),
    ("timm:NAME", "any of timm's, where it is installed: pip install timm"),
    ("package.module:factory", "your own: a function that returns the untrained network; importing it runs its code"),
)


@app.command()
@guarded()
def models(as_json: o.AsJson = False, debug: o.Debug = False) -> None:
    """List the networks that are known by name, and how to name others."""
    from compress_models import CATALOGUE, summary

    found = [{"name": name, "params": entry.params, "about": summary(name)} for name, entry in CATALOGUE.items()]
    if as_json:
        print_json({"zoo": found, "others": dict(OWN)})
        return
    rows = [(str(row["name"]), number(float(str(row["params"]))), str(row["about"])) for row in found]
    print_table(out(), ("--arch", ">params", ""), [*rows, *((name, "", about) for name, about in OWN)])


@app.command()
@guarded()
def methods(
    method: Annotated[
        str | None,
        typer.Argument(metavar="METHOD", help="Explain one, with its options and what they cost.", autocompletion=method_names),
    ] = None,
    as_json: o.AsJson = False,
    debug: o.Debug = False,
) -> None:
    """List the pruning methods with their options, or explain one of them."""
    from compress.search import METHODS, options_of

    if method is not None and method not in METHODS:
        raise unknown_method(method, METHODS)
    if method is not None:
        _explain(method, as_json)
        return
    found = {
        name: {"summary": m.summary, "citation": m.citation, "options": {o.name: o.default for o in options_of(m.searcher)}}
        for name, m in METHODS.items()
    }
    if as_json:
        print_json(found)
        return
    console = out()
    rows = [(name, Text.assemble(one.summary, "\n", (one.citation, "dim"))) for name, one in METHODS.items()]
    print_table(console, ("method", "what it does, and whose it is"), rows)
    console.print("[dim]compress methods NAME explains one of them and each of its options[/]")


def _explain(name: str, as_json: bool) -> None:
    """One method: what it does, whose it is, and a sentence or two an option."""
    from compress.search import METHODS, options_of

    method, options = METHODS[name], options_of(METHODS[name].searcher)
    if as_json:
        told = {o.name: {"default": o.default, "meaning": o.meaning, "cost": o.cost} for o in options}
        print_json({"name": name, "summary": method.summary, "citation": method.citation, "options": told})
        return
    console = out()
    sentence(console, f"[bold]{name}[/]  {escape(method.summary)}")
    sentence(console, f"  [dim]{escape(method.citation)}[/]")
    rows = []
    for option in options:
        said = Text.assemble(option.meaning, "\n", (f"costs: {option.cost}", "dim"))
        rows.append((option.name, json.dumps(option.default), said))
    print_table(console, ("--set options.", "default", "what it decides, and what it costs"), rows)
    console.print(f"[dim]compress cite {name} prints what to cite; docs/methods.md describes the search[/]")


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
    runtimes: dict[str, bool] = {name: OrtRuntime(provider=name).available() for name in PROVIDERS}
    runtimes |= {"torch-cpu": True, "torch-cuda": torch.cuda.is_available()}
    facts: dict[str, Any] = {
        "runtimes": runtimes,
        "training": {"device": device.type, "bf16": computes_bf16(device)},
        "timm": importlib.util.find_spec("timm") is not None,
        "environment": here.to_json(),
    }
    if as_json:
        print_json(facts)
        return
    rows: list[tuple[str, Cell]] = []
    for name, there in runtimes.items():
        rows.append((f"runtime {name}", Text("yes", "green") if there else Text("no", "dim")))
    rows.append(("training", f"{device.type}, {'bf16' if facts['training']['bf16'] else 'fp32 (no bf16 in hardware)'}"))
    rows.append(("timm", "installed" if facts["timm"] else "not installed: pip install timm"))
    rows.append(("processor", here.cpu))
    granted = f", the control group grants {here.quota:g}" if here.quota is not None else ""
    rows.append(("threads", f"{here.affinity} of {here.cores} usable{granted}"))
    rows.append(("instructions", " ".join(here.flags)))
    load = "unknown" if here.load is None else f"{here.load:g}"
    busy = here.load is not None and here.load > here.affinity / 2
    rows.append(("load", Text.assemble(load, (" (busy: latencies will be noisy)" if busy else "", "yellow"))))
    rows += [("GPU", f"{gpu.name}, {gpu.memory_mib} MiB, driver {gpu.driver}") for gpu in here.gpus]
    rows.append(("versions", f"python {here.python}, " + ", ".join(f"{n} {v}" for n, v in here.versions)))
    print_table(out(), ("this machine", ""), rows)


@app.command()
@guarded()
def cite(
    method: Annotated[
        str | None,
        typer.Argument(metavar="METHOD", help="A method; everything without it.", autocompletion=method_names),
    ] = None,
    debug: o.Debug = False,
) -> None:
    """Print what to cite, as BibTeX."""
    from compress_cli.citations import CITATIONS, OF_EVERY_RUN, OF_METHOD

    if method is None:
        wanted = list(CITATIONS)
    elif method in OF_METHOD:
        wanted = [*OF_METHOD[method], *OF_EVERY_RUN]
    else:
        raise unknown_method(method, OF_METHOD)
    typer.echo("\n\n".join(CITATIONS[key] for key in wanted))
