"""The part of ``export`` that is not fp32: a run, a checkpoint or a file in another precision, judged and clocked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

from compress.errors import ConfigError
from compress.report import byte_size, duration, percent, times
from compress_cli.console import out, warn

if TYPE_CHECKING:
    from torch import Tensor, nn

    from compress.data import Data
    from compress.export import Options, Precision, Precisions
    from compress_cli.prune import Inputs

_IMAGES = 10
PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class Source:
    """A proven fp32 file and what it may be judged on.

    Attributes:
        file: the ONNX file.
        data: images, where there are any.
        inputs: a few pre-processed ones, or what stands for them.
        network: what the file was made from, where it is known.
    """

    file: Path
    data: Data | None
    inputs: Tensor
    network: nn.Module | None = None


def of_run(run: Path, given: Inputs) -> Source:
    """A finished run's file, on the images of the run unless others are named."""
    from compress_cli.loading import load_data, load_network, onnx_of
    from compress_cli.prune import Inputs, seed_of

    file, held = onnx_of(run), Inputs.of(run)
    images = given if given.data is not None else held
    saved = run / "model.safetensors"
    loaded, prepared = load_network(str(saved), arch=held.arch)
    found = load_data(images.data, prepared, None, labels=images.labels, seed=seed_of(run), download=images.download)
    return Source(file, found, inputs_for(found, loaded.model, prepared.shape), loaded.model)


def of_file(file: Path, given: Inputs) -> Source:
    """An ONNX file that somebody proved before."""
    import torch

    from compress.export import read_interface
    from compress_cli.loading import load_data

    interface = read_interface(file)
    prepared = interface.preprocessing
    if prepared is None and given.data is not None:
        raise ConfigError(
            f"{file} does not say how its images are prepared", hint="export it from its checkpoint: compress export MODEL"
        )
    if prepared is None or given.data is None:
        shape = [abs(size) for size in interface.inputs[0].row]
        return Source(file, None, torch.randn(_IMAGES, *shape, generator=torch.Generator().manual_seed(0)))
    data = load_data(given.data, prepared, None, labels=given.labels, seed=0, download=given.download)
    assert data is not None
    return Source(file, data, data.calibration.images(_IMAGES))


def inputs_for(data: Data | None, model: nn.Module, shape: tuple[int, int, int]) -> Tensor:
    """A few images, or inputs that the batch norms know."""
    from compress.evaluation import matched_inputs

    return matched_inputs(model, shape, _IMAGES).images if data is None else data.calibration.images(_IMAGES)


def fp32_beside(target: Path, precision: str) -> Path:
    """Where the fp32 file goes that another precision is made from: ``net.int8.onnx`` is made from ``net.onnx``."""
    name = target.name.removesuffix(".onnx").removesuffix(f".{precision}")
    found = target.with_name(f"{name}.onnx")
    return found if found != target else target.with_name(f"{name}.fp32.onnx")


def write(
    source: Source,
    target: Path,
    precision: str,
    options: Options,
    *,
    batches: tuple[int, ...],
    seconds: float,
    quiet: bool,
) -> tuple[Precisions, Precision]:
    """Converts, judges, clocks and records; the record lies beside the file."""
    from dataclasses import replace

    from compress.core import Clock, capture, write_json
    from compress.export import Precisions, convert, file_digest, read
    from compress.latency import Settings
    from compress.pipeline import measure_precision
    from compress_cli.console import err
    from compress_cli.progress import listening

    shape = tuple(int(size) for size in source.inputs.shape[1:])
    with listening(err(), quiet=quiet) as listen:
        found = convert(source.file, target, precision, source.data, inputs=source.inputs, options=options, listen=listen)
        if seconds > 0:
            with Clock(listen).phase("latency", f"{precision} and fp32 in turn, batches of {', '.join(map(str, batches))}"):
                settings = Settings(budget_seconds=seconds, image=(shape[0], shape[1], shape[2]))
                rows = measure_precision(source.file, target, precision, batches=batches, settings=settings, listen=listen)
            found = replace(found, latency=rows)
    place = record_of(source.file)
    digest = file_digest(source.file)
    held = read(place)
    if held is None or held.source_digest != digest:
        held = Precisions(source.file.name, digest, source.file.stat().st_size)
    held = replace(held.with_entry(found), environment=capture().to_json())
    write_json(place, held.to_json())
    return held, found


def record_of(file: Path) -> Path:
    """Where the record of a file's precisions lies: ``precision.json`` in a run's folder."""
    return file.with_name(
        "precision.json" if file.name == "model.onnx" else f"{file.name.removesuffix('.onnx')}.precision.json"
    )


def show(held: Precisions, found: Precision, target: Path) -> None:
    """What was found out about one precision, then the grid of all."""
    console = out()
    colour = {"pass": "green", "warn": "yellow"}.get(found.verdict, "red")
    console.print(f"[{colour}]{found.verdict}[/]: {escape(found.message)}", soft_wrap=True)
    if found.layers:
        stayed = f", in fp32 stay {len(found.in_fp32)}: {', '.join(found.in_fp32)}" if found.in_fp32 else ", none stays in fp32"
        quantised = f"{found.layers - len(found.in_fp32)} of {found.layers} layers in int8{stayed}"
        console.print(f"{escape(quantised)}; calibrated on {found.calibration_images} images", soft_wrap=True)
    if found.top1 is not None and found.fp32_top1 is not None and found.drop is not None:
        assert found.drop_low is not None and found.drop_high is not None
        console.print(
            f"top-1 {percent(found.fp32_top1)} -> {percent(found.top1)} on {found.images} test images: "
            f"{100 * found.drop:+.2f} points lost ({100 * found.drop_low:+.2f} to {100 * found.drop_high:+.2f})",
            soft_wrap=True,
        )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("precision", "batch", "p50", "fp32 p50", "speed-up (95 %)", "verdict"):
        table.add_column(column, justify="left" if column in ("precision", "verdict") else "right")
    for (precision, batch), row in sorted(held.grid().items()):
        mark = "red" if row.direction == "slower" else "green" if row.direction == "faster" else "yellow"
        speedup = times(row.low, row.speedup, row.high)
        table.add_row(precision, str(batch), duration(row.p50), duration(row.fp32_p50), speedup, f"[{mark}]{row.direction}[/]")
    if held.grid():
        console.print(table)
    for row in found.latency:
        if row.direction == "slower":
            warn(f"{found.precision} is slower here than fp32 at batch {row.batch} ({row.speedup:.2f}x)")
        for flag in row.flags:
            console.print(f"[red]! batch {row.batch}: {escape(flag)}[/]", soft_wrap=True)
    for note in found.notes:
        warn(note)
    console.print(f"[dim]saved[/] {escape(str(target))}, {byte_size(found.bytes)} (fp32: {byte_size(held.source_bytes)})")
