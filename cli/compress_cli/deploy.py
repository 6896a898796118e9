"""``export``: a network as a proven ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from compress.report.figures import byte_size
from compress_cli import options as o
from compress_cli.door import err, guarded, out, print_json

app = typer.Typer()
_IMAGES = 10
_INCONCLUSIVE = 5


@app.command()
@guarded()
def export(
    model: o.Model,
    target: Annotated[Path | None, typer.Option("--out", help="The ONNX file. Default: MODEL.onnx.")] = None,
    data: o.DataSource = None,
    labels: o.Labels = "sorted",
    download: o.Download = False,
    arch: o.Arch = None,
    trust_pickle: o.TrustPickle = False,
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
    from compress.config import make_job
    from compress.events import Clock
    from compress.export.interface import serving_facts
    from compress.export.parity import Verdict, export_verified
    from compress.synthetic import matched_inputs
    from compress_cli.loading import classes_of, load_data, load_network, writable
    from compress_cli.progress import listening

    job = make_job(flags={"exporter": exporter})
    target = target or Path(f"{Path(model).stem}.onnx")
    writable(target, folder=False)
    loaded, prepared = load_network(model, arch=arch, trust_pickle=trust_pickle, size=size, mean=mean, std=std)
    classes = classes_of(loaded.model, prepared.shape)
    images = load_data(data, prepared, classes, labels=labels, seed=0, download=download)
    metadata = {
        "tool": "smaller-convnets",
        "network": loaded.architecture.name,
        "parent": loaded.digest,
        "plan": loaded.plan.digest,
        **serving_facts(prepared, images.classes if images is not None else ()),
    }
    with listening(err(), quiet=quiet or as_json) as listen:
        clock = Clock(listen)
        if images is None:
            with clock.phase("images", "synthetic, matched to the batch norms"):
                inputs = matched_inputs(loaded.model, prepared.shape, _IMAGES).images
        else:
            inputs = images.calibration.images(_IMAGES)
        with clock.phase("export", "and prove that the file computes the same"):
            written, parity = export_verified(
                loaded.model, inputs, target, metadata=metadata, exporter=job.exporter, opset=opset
            )
    if as_json:
        facts = {"file": str(target), "bytes": written.bytes, "exporter": written.exporter, "opset": written.opset}
        print_json({**facts, "warnings": list(written.warnings), "parity": parity.to_json()})
    else:
        for warning in written.warnings:
            err().print(f"[dim]note: {escape(warning)}[/]", soft_wrap=True)
        colour = {Verdict.PASS: "green", Verdict.WARN: "yellow"}.get(parity.verdict, "red")
        console = out()
        console.print(f"[{colour}]{parity.verdict}[/]: {escape(parity.message)}", soft_wrap=True)
        kept = f"{target}, {byte_size(written.bytes)}, opset {written.opset}, {written.exporter} exporter"
        console.print(f"[dim]saved[/] {escape(kept)}\n[dim]next:[/]  compress bench {escape(str(target))}", soft_wrap=True)
    if parity.verdict is Verdict.INCONCLUSIVE:
        raise typer.Exit(_INCONCLUSIVE)
