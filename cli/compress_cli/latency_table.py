"""``table``: what a network's widths cost in time on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from compress.core import plural
from compress.errors import ConfigError
from compress_cli import options as o
from compress_cli.console import err, guarded, out, print_json

app = typer.Typer()


@app.command()
@guarded(resumes=True)
def table(
    model: o.Model,
    target: Annotated[Path | None, typer.Option("--out", metavar="T.json", help="Default: MODEL.table.json.")] = None,
    runtime: Annotated[
        str, typer.Option(metavar="NAME", help="Where to measure: cpu (ONNX Runtime), torch-cpu or torch-cuda.")
    ] = "cpu",
    threads: Annotated[int, typer.Option(help="Threads on the CPU.")] = 1,
    networks: Annotated[int, typer.Option(help="Networks of random widths to measure.")] = 20,
    seconds: Annotated[float | None, typer.Option(help="Measuring time a network. Default: by the network's size.")] = None,
    ignore: Annotated[list[str] | None, typer.Option(metavar="PATTERN", help="Layers to leave alone; repeatable.")] = None,
    arch: o.Arch = None,
    trust_pickle: o.TrustPickle = False,
    weights: o.Weights = None,
    size: o.Size = None,
    example: o.Example = None,
    seed: Annotated[int, typer.Option(help="Of the random widths.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Measure again, although the file holds a table.")] = False,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Measure a latency table: once for a network, a machine and a runtime. The same command goes on where it was stopped."""
    from compress.pipeline import alignment, check_torch_runtimes, load, make, make_job, of_torch, traced
    from compress.search import prunable
    from compress_cli.inputs import Inputs
    from compress_cli.loading import writable
    from compress_cli.progress import listening

    runtime = runtime.removeprefix("ort-")
    if runtime != "cpu" and not of_torch(runtime):
        raise ConfigError(
            f"latency tables are measured on ONNX Runtime's CPU or in torch, not on {runtime}",
            hint="leave --runtime out, or name torch-cpu or torch-cuda",
        )
    if networks < 6:
        raise ConfigError(f"{plural(networks, 'network')}: too few, 6 or more are wanted", hint="leave --networks out")
    if seconds is not None and not seconds > 0:
        raise ConfigError(f"--seconds is {seconds:g}, more than 0 is wanted", hint="leave --seconds out")
    path = writable(target or Path(f"{Path(model).stem}.table.json"), folder=False)
    job = make_job(
        flags={"runtimes": (runtime,), "threads": threads, "seed": seed, "ignore": tuple(ignore) if ignore else None}
    )
    given = Inputs(model=model, arch=arch, trust_pickle=trust_pickle, weights=weights, size=size, example=example)
    network, _ = given.opened()
    check_torch_runtimes(network, job.runtimes)
    topology = traced(network)
    if path.exists() and not force:
        measured_on = "ort-cpu" if runtime == "cpu" else runtime
        found = load(
            path, topology, force=False, threads=threads, runtime=measured_on
        )  # of this network and machine, or an error
    else:
        with listening(err(), quiet=quiet) as listen:
            found = make(network, topology, job, path, listen, networks=networks, seconds=seconds)
    best = alignment(topology, prunable(topology, job.ignore)[0], found)
    facts: dict[str, Any] = {
        "table": str(path),
        "machine": found.machine,
        "environment": found.environment,
        "topology": found.topology,
        "networks": found.error.networks,
        "median_error": found.error.median,
        "worst_error": found.error.worst,
        "block": found.block,
        "round_to": best,
    }
    if as_json:
        print_json(facts)
        return
    out().print(
        f"{path}: {found.machine}\n"
        f"error on {plural(found.error.networks, 'network')} that it was not fitted to: "
        f"median {100 * found.error.median:.1f} %, worst {100 * found.error.worst:.1f} %\n"
        f"kernels pad to {plural(found.block, 'output channel')}; --round-to auto takes multiples of {best}\n"
        f"compress prune {model} --latency 0.5 --table {path}",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
