"""``deploy`` and ``serve-bench``: a network onto a running inference server, and what such a server sustains."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from compress.core import plural
from compress.errors import CheckpointError
from compress.report import duration, times
from compress_cli import options as o
from compress_cli.console import UsageError, err, guarded, out, print_json, warn
from compress_cli.safe_console import sentence
from compress_cli.tables import print_table

if TYPE_CHECKING:
    from compress.export import Interface
    from compress.runtime import Array
    from compress.serving import LoadResult

app = typer.Typer()
_IMAGES = 8
_NEW, _SERVER, _MEASURING = "A new model", "Server", "Measuring"
_UNITS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}


@app.command()
@guarded()
def deploy(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, or an .onnx file.")],
    repository: Annotated[
        Path, typer.Option(help="The folder that the server reads: Triton's --model-repository.", rich_help_panel=_SERVER)
    ],
    url: Annotated[str, typer.Option(help="The server's HTTP address.", rich_help_panel=_SERVER)] = "http://127.0.0.1:8000",
    name: Annotated[str, typer.Option(help="Of the model. Default: the run's.", rich_help_panel=_SERVER)] = "",
    timeout: Annotated[
        float, typer.Option(help="Seconds that an answer may take, loading included.", rich_help_panel=_SERVER)
    ] = 60.0,
    precision: Annotated[str, typer.Option(metavar="fp32|fp16|int8", help="Which of the run's files.")] = "fp32",
    tolerance: Annotated[float, typer.Option(help="How far an answer may be off, as a fraction of the outputs' scale.")] = 1e-4,
    data: o.DataSource = None,
    labels: o.Labels = "sorted",
    download: o.Download = False,
    max_batch: Annotated[int, typer.Option(help="Most images at once; 0: no batching.", rich_help_panel=_NEW)] = 32,
    delay: Annotated[
        int, typer.Option("--queue-delay-us", help="Microseconds that a request may wait for others.", rich_help_panel=_NEW)
    ] = 500,
    instances: Annotated[int, typer.Option(help="Copies of the network a device.", rich_help_panel=_NEW)] = 1,
    threads: Annotated[
        int, typer.Option(help="Threads of a copy on the CPU; 0: the server's choice.", rich_help_panel=_NEW)
    ] = 0,
    device: Annotated[str, typer.Option(metavar="auto|cpu|gpu", help="Where it runs.", rich_help_panel=_NEW)] = "auto",
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Put a network onto a running Triton as the newest version of a model; whatever fails, the old version goes on serving.

    The version is written aside, checked, renamed, loaded, and compared over the network with ONNX Runtime on this machine, on
    images of --data or on synthetic ones. A model that is there keeps its configuration.
    """
    from compress.serving import DeploymentLimits, Serving
    from compress.serving import deploy as put
    from compress_cli.loading import onnx_of
    from compress_cli.progress import listening

    file = onnx_of(run, precision)
    serving = Serving(max_batch=max_batch, queue_delay_us=delay, instances=instances, threads=threads, device=device)  # type: ignore[arg-type]
    images, source = _images(run, file, data, labels, download)
    with _orderly(), listening(err(), quiet=quiet) as listen:
        done = put(
            file,
            images,
            repository=repository,
            url=url,
            name=name,
            serving=serving,
            limits=DeploymentLimits(tolerance=tolerance, timeout=timeout),
            listen=listen,
        )
    if as_json:
        print_json({**done.to_json(), "file": str(file), "compared_on": source})
        return
    before = f", version {done.previous} before" if done.previous else ""
    how = "bit for bit as here" if done.exact else f"as here within {done.error:.1e} of the outputs' scale"
    console = out()
    console.print(
        f"[green]serves[/] version {done.version} of {escape(done.name)} at {escape(done.url)}{before}", soft_wrap=True
    )
    sentence(console, f"[dim]compared[/] {plural(done.images, 'image')} ({source}): {how}")
    console.print(
        f"[dim]next:[/] compress serve-bench {escape(done.url)} --model {escape(done.name)} --p99 50ms", soft_wrap=True
    )


@contextmanager
def _orderly() -> Iterator[None]:
    """Being told to end (SIGTERM) goes the way of an interrupt: back to what served."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@app.command("serve-bench")
@guarded()
def serve_bench(
    url: Annotated[str, typer.Argument(metavar="URL", help="The server's HTTP address.")],
    model: Annotated[str, typer.Option(help="What is measured.", rich_help_panel=_MEASURING)],
    against: Annotated[
        str, typer.Option(metavar="MODEL", help="Compare with this one, the base.", rich_help_panel=_MEASURING)
    ] = "",
    p99: Annotated[
        str, typer.Option(metavar="TIME", help="99 of 100 requests must be answered within it.", rich_help_panel=_MEASURING)
    ] = "50ms",
    batch: Annotated[int, typer.Option(help="Images a request.", rich_help_panel=_MEASURING)] = 1,
    rounds: Annotated[int, typer.Option(help="Searches of each model, in turn.", rich_help_panel=_MEASURING)] = 5,
    requests: Annotated[int, typer.Option(help="Of one trial in a search.", rich_help_panel=_MEASURING)] = 300,
    confirm: Annotated[int, typer.Option(help="Of the trial that confirms the rate.", rich_help_panel=_MEASURING)] = 1000,
    connections: Annotated[int, typer.Option(help="Most requests under way at once.", rich_help_panel=_MEASURING)] = 32,
    control: Annotated[
        bool, typer.Option("--control", help="Measure the base twice: what the machine alone does.", rich_help_panel=_MEASURING)
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds after which a request has failed.", rich_help_panel=_SERVER)] = 30.0,
    seed: Annotated[int, typer.Option(help="Of arrivals, inputs and order.", rich_help_panel=_MEASURING)] = 0,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Find the highest rate of requests that a server sustains: random arrivals, latency from when each was to be sent."""
    from compress.serving import Scenario, asking, sustained
    from compress_cli.progress import listening

    if against == model:
        raise UsageError(f"--against {against} is the model itself", hint="name another one, or use --control")
    scenario = Scenario(
        bound=_seconds("p99", p99),
        requests=requests,
        rounds=rounds,
        confirm=confirm,
        connections=connections,
        batch=batch,
        control=control,
        seed=seed,
    )
    arms = {
        name: asking(url, name, batch=batch, timeout=timeout, seed=seed) for name in ([against] if against else []) + [model]
    }
    with listening(err(), quiet=quiet) as listen:
        result = sustained(arms, scenario, listen=listen)
    if as_json:
        print_json(result.to_json())
    else:
        _show(result)


def _seconds(option: str, text: str) -> float:
    """``50ms`` as seconds."""
    found = re.fullmatch(r"\s*([0-9.]+(?:e-?\d+)?)\s*(us|µs|ms|s)\s*", text)
    try:
        if found is None:
            raise ValueError
        return float(found[1]) * _UNITS[found[2]]
    except ValueError:
        raise UsageError(f"--{option} {text!r} is no time", hint=f"write --{option} 50ms or --{option} 0.2s") from None


def _show(result: LoadResult) -> None:
    scenario = result.scenario
    console = out()
    title = (
        f"Poisson arrivals, p99 within {duration(scenario.bound)}, batch {scenario.batch}, {plural(scenario.rounds, 'round')}"
    )
    rows: list[list[str]] = []
    for place, arm in enumerate(result.arms):
        sure = arm.confirmed
        ratio = result.ratios.get(arm.name) or (result.control if place == len(result.arms) - 1 else None)
        cell = "base" if place == 0 else "" if ratio is None else times(ratio.low, ratio.ratio, ratio.high)
        times_told = [duration(t) for t in (sure.p50, sure.p90, sure.p99, arm.unloaded)]
        rows.append([arm.name, f"{sure.rate:.4g}", *times_told, cell])
    head = ("model", ">requests/s", ">p50", ">p90", ">p99", ">alone", ">rate ratio (95 %)")
    print_table(console, head, rows, title=title)
    for flag in result.flags:
        sentence(console, f"[red]! {escape(flag)}[/]")


def _images(run: Path, file: Path, data: str | None, labels: str, download: bool) -> tuple[Array, str]:
    """What the file and the server are both asked, and in words where it is from: real images before synthetic ones."""
    import numpy as np

    from compress.export import read_interface
    from compress_cli.loading import load_data, own_code

    interface = read_interface(file)
    if len(interface.inputs) != 1:
        names = ", ".join(port.name for port in interface.inputs)
        raise UsageError(
            f"{file} takes {plural(len(interface.inputs), 'input')} ({names}), deploy compares servers on images",
            hint="write it into the repository with compress package, and load it there",
        )
    if data is not None:
        preprocessing = interface.preprocessing
        if preprocessing is None and not own_code(data):
            raise UsageError(f"{file} does not say how images are prepared", hint="leave --data out, or export it again")
        classes = interface.named if interface.names_classes and interface.named > 0 else None
        found = load_data(data, preprocessing, classes, labels=labels, seed=0, download=download)
        assert found is not None
        return _as_taken(found.calibration.images(_IMAGES).numpy(), interface), f"of {data}"
    checkpoint = run / "model.safetensors"
    if run.is_dir() and checkpoint.is_file():
        from compress.evaluation import matched_inputs
        from compress_cli.inputs import Inputs

        with suppress(CheckpointError):  # a network of the user's own code, which nothing here needs
            loaded, prepared = Inputs(model=str(checkpoint)).network()
            made = matched_inputs(loaded.model, prepared.shape, _IMAGES)
            told = "synthetic, matched to the batch norms" if made.matched else "noise"
            return _as_taken(made.images.numpy(), interface), told
    warn("compared on noise: --data gives real images")
    row = interface.inputs[0].row
    if interface.embedded and interface.preprocessing is not None:
        row = interface.preprocessing.shape
    if any(size < 1 for size in row):
        raise UsageError(f"{file} leaves its input open: {list(row)}", hint="give images with --data")
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((_IMAGES, *row)).astype(np.float32)
    return _as_taken(noise, interface), "noise"


def _as_taken(images: Array, interface: Interface) -> Array:
    """Prepared images in the form that the file takes: its element type, or pixels where the preparation is in the graph."""
    import numpy as np
    import torch

    from compress.export import pixels_of
    from compress.serving import DATATYPES

    if interface.embedded and interface.preprocessing is not None:
        return np.asarray(pixels_of(torch.from_numpy(images), interface.preprocessing).numpy())
    return np.ascontiguousarray(images.astype(DATATYPES[interface.inputs[0].kind]))
