"""``export``: a network as a proven ONNX file, in fp32 or in another precision that is judged and clocked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.text import Text

from compress.core import plural
from compress.errors import ConfigError
from compress.report import byte_size, duration, times
from compress_cli import options as o
from compress_cli.console import UsageError, err, guarded, out, print_json, warn
from compress_cli.inputs import Inputs, seed_of
from compress_cli.safe_console import sentence
from compress_cli.tables import Cell, print_table

if TYPE_CHECKING:
    from torch import Tensor, nn

    from compress.data import Data
    from compress.export import Options, Precision, Precisions
    from compress.tasks import Task

app = typer.Typer()
_INT8 = "int8"
_INT8_DROP = 0.5
_INCONCLUSIVE = 5
_IMAGES = 10
PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class Source:
    """A proven fp32 file and what it may be judged on.

    Attributes:
        file: the ONNX file.
        data: images, where there are any.
        inputs: a few pre-processed ones, or what stands for them; one tensor an input where the file has several.
        network: what the file was made from, where it is known.
        task: what it is for; None is classification.
    """

    file: Path
    data: Data | None
    inputs: Tensor | tuple[Tensor, ...]
    network: nn.Module | None = None
    task: Task | None = None


@app.command()
@guarded()
def export(
    *,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A network's file, a run's folder, or (for fp16 and int8) an .onnx file.")
    ],
    target: Annotated[
        Path | None, typer.Option("--out", help="The ONNX file. Default: MODEL.onnx, MODEL.int8.onnx, RUN/model.int8.onnx.")
    ] = None,
    precision: Annotated[str, typer.Option(metavar="fp32|fp16|int8", help="int8 needs --data.")] = "fp32",
    data: o.DataSource = None,
    max_int8_drop: Annotated[
        float | None,
        typer.Option(
            metavar="AMOUNT",
            help="What int8 may lose, as in --max-drop; layers go back to fp32 until it is kept. Default: 0.5 points or dB.",
            rich_help_panel=_INT8,
        ),
    ] = None,
    calibration_images: Annotated[
        int, typer.Option(help="Images that the ranges are measured on.", rich_help_panel=_INT8)
    ] = 256,
    batches: Annotated[str, typer.Option(metavar="N,N", help="Batch sizes to clock fp16 and int8 at.")] = "1,8",
    latency_seconds: Annotated[float, typer.Option(help="Measuring time a batch size; 0 does not measure.")] = 10.0,
    inputs: Inputs,
    exporter: o.Exporter = None,
    dynamic_size: o.DynamicSize = False,
    opset: Annotated[int, typer.Option(help="Operator set.")] = 20,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Write a network as ONNX and prove that the file computes the same; exit code 5 where that cannot be told."""
    from compress_cli.loading import numbers, writable

    place = Path(model)
    if precision not in PRECISIONS:
        raise ConfigError(f"--precision {precision!r} is not known", hint=f"--precision {', '.join(PRECISIONS)}")
    if precision == "int8" and data is None and not place.is_dir():
        raise UsageError("int8 is calibrated on real images", hint="add --data FOLDER")
    suffix = "" if precision == "fp32" else f".{precision}"
    default = place / f"model{suffix}.onnx" if place.is_dir() else Path(f"{place.stem}{suffix}.onnx")
    target = target or default
    writable(target, folder=False)
    if precision == "fp32":
        if place.is_dir() or place.suffix == ".onnx":
            raise UsageError(f"{model} is in fp32 already", hint="give a checkpoint, or --precision int8")
        _fp32(inputs, target, Form(exporter, opset, dynamic_size), quiet=quiet, as_json=as_json)
        return
    if dynamic_size and (place.is_dir() or place.suffix == ".onnx"):
        raise UsageError(
            "--dynamic-size is for networks, a file has its sizes", hint="export the checkpoint again, with --dynamic-size"
        )
    sizes = tuple(int(count) for count in numbers("batches", batches) or ())
    if place.is_dir():
        source = of_run(place, inputs)
    elif place.suffix == ".onnx":
        source = of_file(place, inputs)
    else:
        form = Form(exporter, opset, dynamic_size)
        source = _fp32(inputs, _fp32_beside(target, precision), form, quiet=quiet, as_json=None)
    from compress.export import Options  # not before the options are checked: it loads torch
    from compress.tasks import task_named

    task = source.task or task_named("classification")
    allowed = int8_may_lose(max_int8_drop, task, source.data) if precision == "int8" else Options().max_drop
    options = Options(max_drop=allowed, calibration=calibration_images, task=task)
    held, found = _converted(source, target, precision, options, batches=sizes, seconds=latency_seconds, quiet=quiet)
    if as_json:
        print_json(held.to_json())
    else:
        _show(held, found, target)
    if found.verdict == "inconclusive":
        raise typer.Exit(_INCONCLUSIVE)


@dataclass(frozen=True)
class Form:
    """How a file is written: by which of torch's exporters, in which operator set, for any size or one."""

    exporter: str | None
    opset: int
    dynamic_size: bool


def int8_may_lose(typed: float | None, task: Task, data: Data | None) -> float:
    """What int8 may lose, a fraction or in the unit of what its file is judged by.

    Raises:
        UsageError: it is more than a share has, or in a unit of which nobody else knows what little is.
    """
    from compress.export import FileJudge

    figure = task.figure if data is None else FileJudge(task, data.test).figure
    if figure is None or figure.share:
        points = _INT8_DROP if typed is None else typed
        if points > 100:
            raise UsageError(f"--max-int8-drop is {points:g} points, but must be at most 100", hint="--max-int8-drop 0.5")
        return points / 100
    if typed is None and figure.unit != "dB":
        said = f"{figure.name} is in {figure.unit}" if figure.unit else f"{figure.name} has no unit"
        raise UsageError(
            f"{said}: nobody but you can say how much of it int8 may lose",
            hint="--max-int8-drop AMOUNT, in the unit of the figure",
        )
    return _INT8_DROP if typed is None else typed


def _fp32(inputs: Inputs, target: Path, form: Form, *, quiet: bool, as_json: bool | None) -> Source:
    """A checkpoint as a proven fp32 file; ``as_json`` None says nothing about it unless it proves nothing."""
    from compress.core import Clock
    from compress.coupling import asks_for_values
    from compress.export import ParityVerdict, export_verified, serving_facts
    from compress.networks import TASK
    from compress.pipeline import make_job, with_task
    from compress_cli.progress import listening

    job = make_job(flags={"exporter": form.exporter})
    network, loaded = inputs.opened()
    images = inputs.images_of(network, 0)
    network = with_task(network, images, lambda said: warn(getattr(said, "text", "")))
    classes = images.classes if images is not None and network.purpose.logit_per_class else ()
    metadata = {
        "tool": "smaller-convnets",
        "network": loaded.architecture.name,
        "parent": loaded.digest,
        "plan": loaded.plan.digest,
        TASK: network.purpose.spec,
        **serving_facts(network.preprocessing, classes),
    }
    with listening(err(), quiet=quiet) as listen:
        clock = Clock(listen)
        if images is None:
            with clock.phase("images", "synthetic, matched to the batch norms"):
                shown = _inputs_for(None, network.model, network.shape)
        else:
            shown = _inputs_for(images, network.model, network.shape)
        with clock.phase("export", "and prove that the file computes the same"):
            written, parity = export_verified(
                network.model,
                shown,
                target,
                metadata=metadata,
                exporter=job.exporter,
                opset=form.opset,
                dynamic_size=form.dynamic_size,
            )
    if as_json:
        facts = {"file": str(target), "bytes": written.bytes, "exporter": written.exporter, "opset": written.opset}
        facts |= {"warnings": list(written.warnings), "value_branches": list(written.value_branches)}
        print_json({**facts, "parity": parity.to_json()})
    elif as_json is not None:
        for warning in written.warnings:
            sentence(err(), f"[dim]note: {escape(warning)}[/]")
        colour = {ParityVerdict.PASS: "green", ParityVerdict.WARN: "yellow"}.get(parity.verdict, "red")
        console = out()
        sentence(console, f"[{colour}]{parity.verdict}[/]: {escape(parity.message)}")
        kept = f"{target}, {byte_size(written.bytes)}, opset {written.opset}, {written.exporter} exporter"
        console.print(f"[dim]saved[/] {escape(kept)}\n[dim]next:[/]  compress bench {escape(str(target))}", soft_wrap=True)
    if written.value_branches:
        warn(asks_for_values(written.value_branches))
    if parity.verdict is ParityVerdict.INCONCLUSIVE:
        if as_json is None:
            warn(f"{target}: {parity.message}")
        raise typer.Exit(_INCONCLUSIVE)
    if not network.takes_images:
        return of_file(target, inputs)
    return Source(file=target, data=images, inputs=shown, task=network.purpose)


def of_run(run: Path, given: Inputs) -> Source:
    """A finished run's file, on the images of the run unless others are named."""
    from compress_cli.loading import load_data, onnx_of

    file, held = onnx_of(run), Inputs.of(run, replace(given, model=""), network=False)
    if held.example is not None:  # the file says itself what it takes; nothing of a run's code is imported
        return of_file(file, given)
    saved = run / "model.safetensors"
    loaded, prepared = Inputs(model=str(saved), arch=held.arch).network()
    found = load_data(held.data, prepared, None, labels=held.labels, seed=seed_of(run), download=held.download)
    inputs = _inputs_for(found, loaded.model, prepared.shape)
    return Source(file=file, data=found, inputs=inputs, network=loaded.model, task=task_of_file(file, given))


def task_of_file(file: Path, given: Inputs) -> Task:
    """What a file's network is for: as typed, else as the file says where that is a task of ours; of old ones classification.

    Raises:
        ConfigError: the file names a task of the user's own, which nobody but the user names.
    """
    from compress.export import read_interface
    from compress.networks import TASK
    from compress.tasks import built_in, task_named

    if given.task is not None:
        return task_named(given.task)
    said = read_interface(file).metadata.get(TASK, "classification")
    if built_in(said):
        return task_named(said)
    raise ConfigError(
        f"{file} is of a task of your own, {said}: code that a file names is not imported",
        hint=f"name it again, if it is yours: --task {said}",
    )


def of_file(file: Path, given: Inputs) -> Source:
    """An ONNX file that somebody proved before."""
    import torch

    from compress.export import read_interface
    from compress_cli.loading import load_data, own_code

    interface = read_interface(file)
    prepared = interface.preprocessing
    if prepared is None and given.data is not None and not own_code(given.data):
        raise ConfigError(
            f"{file} does not say how its images are prepared", hint="export it from its checkpoint: compress export MODEL"
        )
    if given.data is None:
        from compress.latency import Settings, noise
        from compress.runtime import OrtRuntime, arrays_of

        with OrtRuntime(threads=None).load(file) as session:
            arrays = arrays_of(noise(session, file.name, Settings(batch=_IMAGES)))
        shown = tuple(torch.from_numpy(array) for array in arrays)
        return Source(file=file, data=None, inputs=shown if len(shown) > 1 else shown[0])
    data = load_data(given.data, prepared, None, labels=given.labels, seed=0, download=given.download)
    assert data is not None
    return Source(file=file, data=data, inputs=data.calibration.images(_IMAGES), task=task_of_file(file, given))


def _inputs_for(data: Data | None, model: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """A few images, or inputs that the batch norms know."""
    from compress.evaluation import matched_inputs

    return matched_inputs(model, shape, _IMAGES).images if data is None else data.calibration.images(_IMAGES)


def _fp32_beside(target: Path, precision: str) -> Path:
    """Where the fp32 file goes that another precision is made from: ``net.int8.onnx`` is made from ``net.onnx``."""
    name = target.name.removesuffix(".onnx").removesuffix(f".{precision}")
    found = target.with_name(f"{name}.onnx")
    return found if found != target else target.with_name(f"{name}.fp32.onnx")


def _converted(
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
    from compress.export import Precisions, convert, file_digest, read_precisions
    from compress.latency import Settings
    from compress.pipeline import measure_precision
    from compress.runtime import onnx_bytes
    from compress_cli.progress import listening

    alone = source.inputs if not isinstance(source.inputs, tuple) else None
    image = None if alone is None else tuple(int(size) for size in alone.shape[1:])
    with listening(err(), quiet=quiet) as listen:
        found = convert(source.file, target, precision, source.data, inputs=source.inputs, options=options, listen=listen)
        if seconds > 0:
            with Clock(listen).phase("latency", f"{precision} and fp32 in turn, batches of {', '.join(map(str, batches))}"):
                settings = Settings(budget_seconds=seconds, image=image)
                rows = measure_precision(source.file, target, precision, batches=batches, settings=settings, listen=listen)
            found = replace(found, latency=rows)
    place = _record_of(source.file)
    digest = file_digest(source.file)
    held = read_precisions(place)
    if held is None or held.source_digest != digest:
        held = Precisions(source=source.file.name, source_digest=digest, source_bytes=len(onnx_bytes(source.file)))
    held = replace(held.with_entry(found), environment=capture().to_json())
    write_json(place, held.to_json())
    return held, found


def _record_of(file: Path) -> Path:
    """Where the record of a file's precisions lies: ``precision.json`` in a run's folder."""
    return file.with_name(
        "precision.json" if file.name == "model.onnx" else f"{file.name.removesuffix('.onnx')}.precision.json"
    )


def _show(held: Precisions, found: Precision, target: Path) -> None:
    """What was found out about one precision, then the grid of all."""
    console = out()
    colour = {"pass": "green", "warn": "yellow"}.get(found.verdict, "red")
    sentence(console, f"[{colour}]{found.verdict}[/]: {escape(found.message)}")
    if found.layers:
        stayed = f", in fp32 stay {len(found.in_fp32)}: {', '.join(found.in_fp32)}" if found.in_fp32 else ", none stays in fp32"
        quantised = f"{found.layers - len(found.in_fp32)} of {plural(found.layers, 'layer')} in int8{stayed}"
        sentence(console, f"{escape(quantised)}; calibrated on {plural(found.calibration_images, 'image')}")
    if found.score is not None and found.fp32_score is not None and found.drop is not None:
        assert found.drop_low is not None and found.drop_high is not None
        figure = found.figure
        console.print(
            f"{figure.name} {figure.text(found.fp32_score)} -> {figure.text(found.score)} "
            f"on {plural(found.images, 'test image')}: "
            f"{figure.signed(found.drop)} lost ({figure.range(found.drop_low, found.drop_high, 2)})",
            soft_wrap=True,
        )
    rows: list[list[Cell]] = []
    for (precision, batch), row in sorted(held.grid().items()):
        mark = "red" if row.direction == "slower" else "green" if row.direction == "faster" else "yellow"
        speedup = times(row.low, row.speedup, row.high)
        cells = (precision, str(batch), duration(row.p50), duration(row.fp32_p50), speedup)
        rows.append([*cells, Text(row.direction, mark)])
    if rows:
        print_table(console, ("precision", ">batch", ">p50", ">fp32 p50", ">speed-up (95 %)", "verdict"), rows)
    for row in found.latency:
        if row.direction == "slower":
            warn(f"{found.precision} is slower here than fp32 at batch {row.batch} ({row.speedup:.2f}x)")
        for flag in row.flags:
            sentence(console, f"[red]! batch {row.batch}: {escape(flag)}[/]")
    for note in found.notes:
        warn(note)
    console.print(f"[dim]saved[/] {escape(str(target))}, {byte_size(found.bytes)} (fp32: {byte_size(held.source_bytes)})")
