"""``export``: a network as a proven ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from compress.errors import ConfigError
from compress.report import byte_size
from compress_cli import options as o
from compress_cli.console import UsageError, err, guarded, out, print_json, warn

if TYPE_CHECKING:
    from compress_cli import precisions
    from compress_cli.prune import Inputs

app = typer.Typer()
_INT8 = "int8"
_INCONCLUSIVE = 5


@app.command()
@guarded()
def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A network's file, a run's folder, or (for fp16 and int8) an .onnx file.")
    ],
    target: Annotated[
        Path | None, typer.Option("--out", help="The ONNX file. Default: MODEL.onnx, MODEL.int8.onnx, RUN/model.int8.onnx.")
    ] = None,
    precision: Annotated[str, typer.Option(metavar="fp32|fp16|int8", help="int8 needs --data.")] = "fp32",
    data: o.DataSource = None,
    labels: o.Labels = "sorted",
    download: o.Download = False,
    max_int8_drop: Annotated[
        float,
        typer.Option(
            help="Points of accuracy that int8 may lose; layers go back to fp32 until it is kept.", rich_help_panel=_INT8
        ),
    ] = 0.5,
    calibration_images: Annotated[
        int, typer.Option(help="Images that the ranges are measured on.", rich_help_panel=_INT8)
    ] = 256,
    batches: Annotated[str, typer.Option(metavar="N,N", help="Batch sizes to clock fp16 and int8 at.")] = "1,8",
    latency_seconds: Annotated[float, typer.Option(help="Measuring time a batch size; 0 does not measure.")] = 10.0,
    arch: o.Arch = None,
    trust_pickle: o.TrustPickle = False,
    weights: o.Weights = None,
    size: o.Size = None,
    mean: o.Mean = None,
    std: o.Std = None,
    exporter: o.Exporter = None,
    opset: Annotated[int, typer.Option(help="Operator set.")] = 20,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Write a network as ONNX and prove that the file computes the same; exit code 5 where that cannot be told."""
    from compress_cli import precisions as p
    from compress_cli.loading import numbers, writable
    from compress_cli.prune import Inputs

    inputs, place = Inputs(model, arch, trust_pickle, size, mean, std, data, labels, download, weights), Path(model)
    if precision not in p.PRECISIONS:
        raise ConfigError(f"--precision {precision!r} is not known", hint=f"--precision {', '.join(p.PRECISIONS)}")
    if precision == "int8" and data is None and not place.is_dir():
        raise UsageError("int8 is calibrated on real images", hint="add --data FOLDER")
    suffix = "" if precision == "fp32" else f".{precision}"
    default = place / f"model{suffix}.onnx" if place.is_dir() else Path(f"{place.stem}{suffix}.onnx")
    target = target or default
    writable(target, folder=False)
    if precision == "fp32":
        if place.is_dir() or place.suffix == ".onnx":
            raise UsageError(f"{model} is in fp32 already", hint="give a checkpoint, or --precision int8")
        _fp32(inputs, target, exporter, opset, quiet=quiet, as_json=as_json)
        return
    sizes = tuple(int(count) for count in numbers("batches", batches) or ())
    if place.is_dir():
        source = p.of_run(place, inputs)
    elif place.suffix == ".onnx":
        source = p.of_file(place, inputs)
    else:
        source = _fp32(inputs, p.fp32_beside(target, precision), exporter, opset, quiet=quiet or as_json, as_json=None)
    from compress.export import Options

    options = Options(max_drop=max_int8_drop / 100, calibration=calibration_images)
    held, found = p.write(source, target, precision, options, batches=sizes, seconds=latency_seconds, quiet=quiet or as_json)
    if as_json:
        print_json(held.to_json())
    else:
        p.show(held, found, target)
    if found.verdict == "inconclusive":
        raise typer.Exit(_INCONCLUSIVE)


def _fp32(
    inputs: Inputs, target: Path, exporter: str | None, opset: int, *, quiet: bool, as_json: bool | None
) -> precisions.Source:
    """A checkpoint as a proven fp32 file; ``as_json`` None says nothing about it unless it proves nothing."""
    from compress.core import Clock
    from compress.export import ParityVerdict, export_verified, serving_facts
    from compress.pipeline import make_job
    from compress_cli import precisions as p
    from compress_cli.loading import classes_of, load_data, load_network
    from compress_cli.progress import listening

    job = make_job(flags={"exporter": exporter})
    loaded, prepared = load_network(
        inputs.model,
        arch=inputs.arch,
        trust_pickle=inputs.trust_pickle,
        size=inputs.size,
        mean=inputs.mean,
        std=inputs.std,
        weights=inputs.weights,
    )
    classes = classes_of(loaded.model, prepared.shape)
    images = load_data(inputs.data, prepared, classes, labels=inputs.labels, seed=0, download=inputs.download)
    metadata = {
        "tool": "smaller-convnets",
        "network": loaded.architecture.name,
        "parent": loaded.digest,
        "plan": loaded.plan.digest,
        **serving_facts(prepared, images.classes if images is not None else ()),
    }
    with listening(err(), quiet=quiet or bool(as_json)) as listen:
        clock = Clock(listen)
        if images is None:
            with clock.phase("images", "synthetic, matched to the batch norms"):
                shown = p.inputs_for(None, loaded.model, prepared.shape)
        else:
            shown = p.inputs_for(images, loaded.model, prepared.shape)
        with clock.phase("export", "and prove that the file computes the same"):
            written, parity = export_verified(
                loaded.model, shown, target, metadata=metadata, exporter=job.exporter, opset=opset
            )
    if as_json:
        facts = {"file": str(target), "bytes": written.bytes, "exporter": written.exporter, "opset": written.opset}
        print_json({**facts, "warnings": list(written.warnings), "parity": parity.to_json()})
    elif as_json is not None:
        for warning in written.warnings:
            err().print(f"[dim]note: {escape(warning)}[/]", soft_wrap=True)
        colour = {ParityVerdict.PASS: "green", ParityVerdict.WARN: "yellow"}.get(parity.verdict, "red")
        console = out()
        console.print(f"[{colour}]{parity.verdict}[/]: {escape(parity.message)}", soft_wrap=True)
        kept = f"{target}, {byte_size(written.bytes)}, opset {written.opset}, {written.exporter} exporter"
        console.print(f"[dim]saved[/] {escape(kept)}\n[dim]next:[/]  compress bench {escape(str(target))}", soft_wrap=True)
    if parity.verdict is ParityVerdict.INCONCLUSIVE:
        if as_json is None:
            warn(f"{target}: {parity.message}")
        raise typer.Exit(_INCONCLUSIVE)
    return p.Source(target, images, shown)
