"""``bench`` and ``bench-kit``: how fast ONNX files or the networks of a front are, compared so that it can be trusted."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.text import Text

from compress.core import plural
from compress.errors import ConfigError
from compress.report import byte_size, clock_name, duration, times
from compress_cli import options as o
from compress_cli.console import UsageError, err, guarded, out, print_json, warn
from compress_cli.inputs import Inputs
from compress_cli.safe_console import sentence
from compress_cli.tables import print_table

if TYPE_CHECKING:
    from compress.latency import Condition, LatencyResult, Measurement, Settings

app = typer.Typer()

Batches = Annotated[str, typer.Option("--batch", metavar="N[,N...]", help="Images a run; 1 is the single-stream scenario.")]
Providers = Annotated[
    list[str] | None,
    typer.Option(
        "--runtime",
        metavar="NAME",
        help="Where to measure: cpu, cuda or tensorrt; torch-cpu or torch-cuda (networks instead of ONNX files). Repeatable, "
        "or several with commas. Default: cpu.",
        rich_help_panel="Measuring",
    ),
]
Threads = Annotated[int, typer.Option(min=1, help="Threads on the CPU.")]
Seconds = Annotated[float, typer.Option(help="Measuring time of each runtime and batch, at most.")]
Size = Annotated[str | None, typer.Option(metavar="H[,W]", help="Input size for files that leave it open.")]
Seed = Annotated[int, typer.Option(help="Of the inputs and the order.")]
Target = Annotated[Path | None, typer.Option("--out", help="Write all of it, raw samples too, as JSON.")]


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """Where, on what and how long is measured, as typed."""

    runtime: Providers = None
    require_gpu: o.RequireGpu = False
    batch: Batches = "1"
    threads: Threads = 1
    seconds: Seconds = 20.0
    size: Size = None
    seed: Seed = 0

    @property
    def providers(self) -> list[str]:
        """By name, in order."""
        return [part.strip() for wanted in self.runtime or ["cpu"] for part in wanted.split(",")]


@app.command()
@guarded()
def bench(
    *,
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="BASE.onnx [OTHER.onnx ...]",
            help="The first one is the base. With --runtime torch-...: a run's folder, or BASE.safetensors OTHER.safetensors.",
        ),
    ],
    front: Annotated[
        bool, typer.Option("--front", help="Measure the networks of a run's front: RUN instead of files.")
    ] = False,
    points: Annotated[int | None, typer.Option(help="With --front: how many, spread over it. Default: all.")] = None,
    model: Annotated[str | None, typer.Option(help="Of a run: the unpruned network, where the run does not find it.")] = None,
    trust_pickle: o.TrustPickle = False,
    how: BenchOptions,
    target: Target = None,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Compare the latency of ONNX files: in turn, with the base against itself as a control."""
    from compress.core import write_json
    from compress_cli.loading import writable

    if front:
        given = Inputs(model=model or "", trust_pickle=trust_pickle)
        _bench_front(files, how, given, points=points, as_json=as_json, quiet=quiet)
        return
    if points is not None:
        raise UsageError("--points belongs to --front", hint="leave it out, or measure a run: compress bench RUN --front")
    if target is not None:
        writable(target, folder=False)
    given = Inputs(model=model or "", trust_pickle=trust_pickle)
    found = measured(files, how, given=given, quiet=quiet)
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_json(target, found.to_json())
    for reason in found.skipped:
        warn(f"not measured: {reason}")
    if as_json:
        print_json({"results": [_without_samples(r.to_json()) for r in found.results], "skipped": list(found.skipped)})
        return
    for result in found.results:
        _show(result, found, str(files[0]))
    if len(found.results) > 1 and len(files) > 1:
        _matrix(found)
    if target is not None:
        out().print(f"[dim]saved[/] {escape(str(target))}", soft_wrap=True)


def _bench_front(
    files: list[Path], how: BenchOptions, given: Inputs, *, points: int | None, as_json: bool, quiet: bool
) -> None:
    """Realises and measures a run's front, on one runtime at one batch."""
    from compress.core import read_json
    from compress.latency import Settings, cells
    from compress.pipeline import clock_front, make_job, stored_values
    from compress.report import front_latency_table, told
    from compress_cli.progress import listening

    if len(files) != 1 or not files[0].is_dir():
        raise UsageError("--front wants one run's folder", hint="compress bench runs/resnet50-smoea --front")
    run = files[0]
    sizes = [int(part) for part in how.batch.split(",") if part.strip().isdigit()]
    names = how.providers
    if len(sizes) != 1 or len(names) != 1:
        raise UsageError("--front measures one runtime at one batch", hint="give --runtime and --batch once")
    held = read_json(run / "job.json", hint="give the folder of a finished run").get("job")
    if not isinstance(held, dict):
        raise ConfigError(f"{run} holds no run", hint="give the folder of a finished run")
    job = make_job(flags=stored_values(held))
    network, _ = Inputs.of(run, given).open(job.seed)
    settings = Settings(batch=sizes[0], budget_seconds=how.seconds, seed=how.seed)
    if names[0].startswith("torch-"):
        raise UsageError(
            f"--front measures ONNX files, {names[0]} loads networks", hint="--runtime cpu; or one network: compress pick"
        )
    cell = next(iter(cells(names, sizes, settings, threads=how.threads, require_gpu=how.require_gpu)))
    with listening(err(), quiet=quiet) as listen:
        found = clock_front(network, run, job, cell.runtime, cell.settings, points=points, listen=listen)
    if as_json:
        print_json(asdict(found))
        return
    made = front_latency_table(found)
    head = [f">{column.name}" if column.number else column.name for column in made.head]
    rows = [[Text.assemble(c.text, (f" {c.about}" if c.about else "", "red")) for c in row] for row in made.rows]
    console = out()
    print_table(console, head, rows, title=f"{found.runtime}, batch {found.batch}")
    sentence(console, escape(told(found)))
    for flag in found.flags:
        sentence(console, f"[red]! {escape(flag)}[/]")
    console.print(f"[dim]files in[/] {escape(str(run))}: front-latency.json, report.html", soft_wrap=True)


@app.command("bench-kit")
@guarded()
def bench_kit(
    files: Annotated[list[Path], typer.Argument(metavar="RUN|BASE.onnx [OTHER.onnx ...]", help="A run's folder, or files.")],
    target: Annotated[Path, typer.Option("--out", help="The zip.")] = Path("kit.zip"),
    batch: Annotated[int, typer.Option(min=1, help="Images a run, unless the kit is told otherwise.")] = 1,
    seconds: Seconds = 20.0,
    size: Size = None,
    seed: Seed = 0,
    as_json: o.AsJson = False,
    debug: o.Debug = False,
) -> None:
    """Pack ONNX files with a script that measures them on another machine; it needs only NumPy and ONNX Runtime there."""
    from compress.core import write
    from compress.latency import Settings, cells, describe_all, file_arms, pack, try_out
    from compress_cli.loading import image_of, writable

    writable(target, folder=False)
    named = file_arms(_of_a_run(files[0]) if len(files) == 1 and files[0].is_dir() else files)
    facts = describe_all(named)
    settings = Settings(batch=batch, budget_seconds=seconds, seed=seed, image=image_of(size, next(iter(named.values()))))
    try_out(named, list(cells(["cpu"], [batch], settings)))
    packed = pack({arm: (path, facts[arm]) for arm, path in named.items()}, settings)
    target.parent.mkdir(parents=True, exist_ok=True)
    write(target, packed.data)
    if as_json:
        print_json({"file": str(target), "kit": packed.identity, "bytes": len(packed.data), "names": list(packed.names)})
        return
    console = out()
    console.print(f"[dim]saved[/] {escape(str(target))}, {byte_size(len(packed.data))}, kit {packed.identity}", soft_wrap=True)
    sentence(console, "[dim]there:[/]  unzip kit.zip && pip install numpy onnxruntime && python bench.py")


def measured(
    files: list[Path], how: BenchOptions, *, quiet: bool, given: Inputs | None = None, min_rounds: int | None = None
) -> Measurement:
    """What ``bench`` and ``compare`` do before they differ."""
    from dataclasses import replace
    from tempfile import TemporaryDirectory

    from compress.latency import Settings, cells, describe_all, file_arms, measure_all
    from compress.runtime import TORCH_RUNTIMES
    from compress_cli.loading import image_of
    from compress_cli.progress import listening

    settings = Settings(budget_seconds=how.seconds, seed=how.seed)
    if min_rounds is not None:
        settings = replace(settings, min_rounds=min_rounds)
    if set(how.providers) & set(TORCH_RUNTIMES):
        return _measured_by_torch(files, how, settings, given or Inputs(model=""), quiet=quiet)
    if how.size:
        settings = replace(settings, image=image_of(how.size, _first(files)))
    with TemporaryDirectory(prefix="compress-engines-") as engines, listening(err(), quiet=quiet) as listen:
        where = (how.providers, _batches(how.batch), settings)
        combinations = list(cells(*where, threads=how.threads, require_gpu=how.require_gpu, engines=Path(engines)))
        named = file_arms(files)
        facts = describe_all(named)
        base, *others = named.items()
        return measure_all(base[1], dict(others), combinations, files=facts, listen=listen)


def _measured_by_torch(files: list[Path], how: BenchOptions, settings: Settings, given: Inputs, *, quiet: bool) -> Measurement:
    """Networks, on torch's own runtimes: a run's two, or those of files that say themselves what they hold."""
    from tempfile import TemporaryDirectory

    from compress_models import MODELS

    from compress.latency import cells, file_arms, identify_network, measure_all, network_opener, torch_runtimes
    from compress.pipeline import module_opener, pair_of
    from compress_cli.loading import numbers
    from compress_cli.progress import listening

    sides = numbers("size", how.size)
    size = None if sides is None else tuple(int(side) for side in (sides * 2)[:2])
    opens = network_opener(MODELS, size=size, trust_pickle=given.trust_pickle)

    def conditions() -> list[Condition]:
        return list(cells(how.providers, _batches(how.batch), settings, of_torch=torch_runtimes(opens, how.threads)))

    conditions()  # a device that is not there, or a name that is none, is told before anything is read
    with TemporaryDirectory(prefix="compress-networks-") as folder, listening(err(), quiet=quiet) as listen:
        if len(files) == 1 and files[0].is_dir():
            network = Inputs.of(files[0], given).opened()[0]
            opens, files = module_opener(network), pair_of(network, files[0], Path(folder))
        named = file_arms(files)
        facts = {arm: identify_network(path) for arm, path in named.items()}
        others = {arm: path for arm, path in named.items() if arm != "base"}
        return measure_all(named["base"], others, conditions(), files=facts, listen=listen)


def _batches(text: str) -> list[int]:
    try:
        batches = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"--batch {text} is no list of numbers", hint="e.g. --batch 1,8,32") from error
    if min(batches) < 1:
        raise ConfigError(f"--batch {text}: at least 1 image is wanted", hint="e.g. --batch 1,8,32")
    return batches


def _first(files: list[Path]) -> Path:
    return files[0] / "base.onnx" if files[0].is_dir() else files[0]


def _of_a_run(folder: Path) -> list[Path]:
    """The unpruned network and what the run made of it, in every precision."""
    from compress.report import verified

    verified(folder)
    files = [folder / "base.onnx", *(sorted(folder.glob("model*.onnx")) or [folder / "model.onnx"])]
    for file in files:
        if not file.is_file():
            raise ConfigError(f"{file} is missing", hint="give the folder of a finished run, or the .onnx files themselves")
    return files


def _show(result: LatencyResult, found: Measurement, base: str) -> None:
    console = out()
    clock = next(iter(result.ratios.values()), result.control).decided_by
    title = f"{result.runtime}, batch {result.settings.batch}, {plural(result.rounds, 'round')} by {clock_name(clock)}, "
    title += f"stopped by {result.stopped_by}"
    rows: list[list[str]] = []
    for arm in result.arms:
        ratio = {"base": None, "base again": result.control}.get(arm.name, result.ratios.get(arm.name))
        cells = ("", "", "base")
        if ratio is not None:
            decisive = ratio.decisive
            cells = (times(decisive.low, decisive.ratio, decisive.high), ratio.decided_by, str(ratio.verdict))
        name = {"base": base, "base again": "  the same again"}.get(arm.name, arm.name)
        file = found.files.get(arm.name)
        rows.append(
            [
                name,
                file.precision if file else "",
                duration(median(arm.cpu if clock == "cpu" else arm.wall)),
                duration(arm.latency.p90),
                f"{arm.images_per_second:,.1f}",
                *cells,
            ]
        )
    head = ("file", "precision", ">p50", ">wall p90", ">images/s", ">speed-up (95 %)", "clock", "verdict")
    print_table(console, head, rows, title=title)
    for flag in result.flags:
        sentence(console, f"[red]! {escape(flag)}[/]")


def _matrix(found: Measurement) -> None:
    """Every file on every runtime and batch, in one table."""
    head, rows = ["file", "precision"], []
    for result in found.results:
        device = ", device" if result.settings.transfer == "device" else ""
        head.append(f">{result.runtime}, batch {result.settings.batch}{device}")
    for arm in found.results[0].ratios:
        ratios = [result.ratios[arm] for result in found.results]
        said = [f"{ratio.decisive.ratio:.2f}× {ratio.verdict}" for ratio in ratios]
        rows.append([arm, found.files[arm].precision, *said])
    print_table(out(), head, rows, title="speed-up over the base")


def _without_samples(facts: dict[str, Any]) -> dict[str, Any]:
    """Hundreds of raw samples serve no script that reads a table."""
    arms = [{k: v for k, v in arm.items() if k not in ("wall", "cpu")} for arm in facts["arms"]]
    return {**facts, "arms": arms}
