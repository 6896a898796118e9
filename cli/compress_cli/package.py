"""``package``: a run as a model that an inference server loads."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, cast, get_args

import typer
from rich.markup import escape

from compress.core import plural, read_text
from compress.errors import ConfigError
from compress_cli import options as o
from compress_cli.console import UsageError, err, guarded, out, print_json, warn
from compress_cli.inputs import Inputs

app = typer.Typer()
_BATCHING, _OUTPUT = "Batching", "Output"


@app.command()
@guarded()
def package(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, or an .onnx file.")],
    server: Annotated[str, typer.Option(metavar="NAME", help="Whose layout: triton, kserve or mlserver.")] = "triton",
    target: Annotated[Path, typer.Option("--out", help="The server's model repository.", rich_help_panel=_OUTPUT)] = Path(
        "repository"
    ),
    name: Annotated[str, typer.Option(help="Of the model. Default: the run's.", rich_help_panel=_OUTPUT)] = "",
    precision: Annotated[str, typer.Option(metavar="fp32|fp16|int8", help="Which of the run's files.")] = "fp32",
    embed: Annotated[
        bool,
        typer.Option("--embed-preprocessing", help="Into the graph: uint8 rows x columns x channels in, probabilities out."),
    ] = False,
    data: o.DataSource = None,
    download: o.Download = False,
    trust_pickle: o.TrustPickle = False,
    class_names: Annotated[
        Path | None, typer.Option(help="Names of the outputs, one a line. Default: what the file says.")
    ] = None,
    max_batch: Annotated[int, typer.Option(help="Most images at once; 0: no batching.", rich_help_panel=_BATCHING)] = 32,
    prefer: Annotated[
        str, typer.Option(metavar="N,N", help="Batch sizes that Triton goes for first.", rich_help_panel=_BATCHING)
    ] = "",
    delay: Annotated[
        int,
        typer.Option("--queue-delay-us", help="Microseconds that a request may wait for others.", rich_help_panel=_BATCHING),
    ] = 500,
    instances: Annotated[int, typer.Option(help="Copies of the network a device.")] = 1,
    threads: Annotated[int, typer.Option(help="Threads of a copy on the CPU; 0: the server's choice.")] = 0,
    device: Annotated[str, typer.Option(metavar="auto|cpu|gpu", help="Where it runs.")] = "auto",
    keep_versions: Annotated[int, typer.Option(help="Newest versions that Triton serves.")] = 1,
    tensorrt: Annotated[
        str, typer.Option(metavar="fp32|fp16|int8", help="Let Triton run it with TensorRT in this precision.")
    ] = "",
    as_json: o.AsJson = False,
    debug: o.Debug = False,
) -> None:
    """Write a run as a model that a server loads: settings, labels and pre-processing with it."""
    from compress.export import embeddable
    from compress.serving import Server, Serving, name_of
    from compress.serving import package as write
    from compress_cli.loading import numbers, onnx_of

    if server not in get_args(Server):
        raise ConfigError(f"no layout for a server called {server!r}", hint=f"--server {', '.join(get_args(Server))}")
    if data is not None and not embed:
        raise UsageError("--data belongs to --embed-preprocessing", hint="leave it out, or add --embed-preprocessing")
    preferred = tuple(int(size) for size in numbers("prefer", prefer or None) or ())
    serving = Serving(
        max_batch=max_batch,
        preferred=preferred,
        queue_delay_us=delay,
        instances=instances,
        threads=threads,
        device=device,  # type: ignore[arg-type]
        keep_versions=keep_versions,
        tensorrt=tensorrt,
    )
    file = onnx_of(run, precision)
    if embed:
        embeddable(file)
    names = () if class_names is None else _lines(class_names)
    asked = Inputs(model=str(run), data=data, download=download, trust_pickle=trust_pickle)
    with TemporaryDirectory() as aside:
        served = _embedded(run, file, Path(aside), asked) if embed else file
        made = write(served, target, cast(Server, server), name=name or name_of(file), serving=serving, classes=names)
    if as_json:
        facts = {"folder": str(made.folder), "name": made.name, "server": made.server, "files": list(made.files)}
        print_json({**facts, "source": str(file), "notes": list(made.notes)})
        return
    for note in made.notes:
        warn(note)
    console = out()
    console.print(
        f"[green]packaged[/] {escape(str(made.folder))} for {server}: {escape(', '.join(made.files))}", soft_wrap=True
    )
    err().print(f"[dim]start:[/] {escape(_start(server, target, made.folder))}", soft_wrap=True)


def _embedded(run: Path, file: Path, folder: Path, asked: Inputs) -> Path:
    """The file with its pre-processing inside, compared with torch where the run's network is there, on its images."""
    import torch

    from compress.export import embed, pixels_of, read_interface
    from compress_cli.export import of_file, of_run

    source = of_run(run, asked) if run.is_dir() else of_file(file, asked)
    prepared = read_interface(file).preprocessing
    if isinstance(source.inputs, tuple):
        raise ConfigError(
            f"{file} takes {plural(len(source.inputs), 'input')}, pre-processing is of images",
            hint="leave --embed-preprocessing out",
        )
    if source.data is not None and prepared is not None:
        pixels = pixels_of(source.inputs, prepared)
    else:
        warn("no images: the file with its pre-processing inside is compared on random pixels")
        shape = (len(source.inputs), *source.inputs.shape[2:], source.inputs.shape[1])
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    parity = embed(file, folder / file.name, pixels, network=source.network if file.name == "model.onnx" else None)
    err().print(f"[dim]pre-processing inside, compared with {'torch' if source.network is not None else 'the file'}:[/] "
                f"{parity.verdict}, {escape(parity.message)}", soft_wrap=True)  # fmt: skip
    return folder / file.name


def _lines(path: Path) -> tuple[str, ...]:
    try:
        return tuple(read_text(path).splitlines())
    except (OSError, ValueError) as error:
        raise ConfigError(f"--class-names {path} cannot be read: {error}", hint="give a text file, one name a line") from error


def _start(server: str, repository: Path, folder: Path) -> str:
    return {
        "triton": f"tritonserver --model-repository={repository} --model-control-mode=explicit --load-model={folder.name}",
        "mlserver": f"mlserver start {folder}",
        "kserve": f"python {folder / 'kserve_server.py'} --http_port 8080",
    }[server]
