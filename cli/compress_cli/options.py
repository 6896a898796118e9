"""Options that several commands share, declared once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

_NETWORK, IMAGES, _OUTPUT = "Network", "Images", "Output"

MODEL = (
    "The network's file: .pt, .pth, .safetensors, TorchScript, .onnx or our own; or its source, whose weights are fetched: "
    "torchvision:NAME, timm:NAME, hf-hub:ORG/NAME, an address."
)
Model = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL)]
Config = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Settings from a TOML file, or from a run: RUN/job.json.", rich_help_panel="Search"),
]
Arch = Annotated[
    str | None,
    typer.Option(
        help="Architecture, where it cannot be recognised: a name of `compress models`, torchvision:NAME, timm:NAME or "
        "package.module:factory.",
        rich_help_panel=_NETWORK,
    ),
]
TrustPickle = Annotated[
    bool, typer.Option("--trust-pickle", help="The file may execute code while it is read.", rich_help_panel=_NETWORK)
]
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="plain|ema|ENTRY",
        help="Which, of a file that holds several: averaged ones are ema. Default: the plain ones that fit.",
        rich_help_panel=_NETWORK,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        metavar="H[,W]",
        help="Input size in pixels. Default: what the file, your own data or the architecture says.",
        rich_help_panel=_NETWORK,
    ),
]
Example = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:FUNCTION",
        help="What one call of the network takes, where that is not one batch of images: a tensor, a tuple of arguments or a "
        "dict of named ones, from your own code. It names the inputs of ONNX files and gives their shapes.",
        rich_help_panel=_NETWORK,
    ),
]
TaskName = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="NAME",
        help="What the network is for: classification, binary, multilabel, regression (regression:unit=px), ..., outputs, or "
        "package.module:NAME; docs/tasks.md. Default: recognised where it is certain, else outputs.",
        rich_help_panel=_NETWORK,
    ),
]
DynamicSize = Annotated[
    bool,
    typer.Option(
        "--dynamic-size",
        help="ONNX files take any height and width that the network takes; compared at two sizes.",
        rich_help_panel=_OUTPUT,
    ),
]
Mean = Annotated[
    str | None, typer.Option(metavar="M,M,M", help="Mean per channel of pixels in [0, 1].", rich_help_panel=_NETWORK)
]
Std = Annotated[str | None, typer.Option(metavar="S,S,S", help="Deviation per channel.", rich_help_panel=_NETWORK)]
DataSource = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Folder of images by class, or with masks, boxes (YOLO, VOC, COCO) or a targets.csv; a .zip of one, .npz, "
        "`digits`, cifar10, or package.module:function (a dataset, a loader, a dict of them). "
        "Without it nothing is scored.",
        rich_help_panel=IMAGES,
    ),
]
Labels = Annotated[
    str,
    typer.Option(
        metavar="HOW",
        help="How class folders become outputs of the network: sorted, index-prefix or a file; or what to read where a "
        "layout holds several: classes, masks, "
        "boxes, images, values, none.",
        rich_help_panel=IMAGES,
    ),
]
Download = Annotated[bool, typer.Option("--download", help="Torchvision's data sets may be fetched.", rich_help_panel=IMAGES)]
Train = Annotated[
    str | None,
    typer.Option(
        "--train",
        metavar="MODULE:FUNCTION",
        help="Your own training loop instead of ours: (model, teacher, data, budget, hooks) -> model. docs/own-loop.md.",
        rich_help_panel="Recovery",
    ),
]
Workers = Annotated[
    str | None,
    typer.Option(
        "--workers",
        metavar="N|auto|ray",
        help="Processes that score plans side by side, or actors of a Ray cluster (ray, ray:N, ray://HOST:PORT, with /N); plan "
        "and front do not depend on it. docs/scaling.md. Default: by the search's size, cores and memory.",
        rich_help_panel="Search",
    ),
]
ScoreThreads = Annotated[
    int | None,
    typer.Option("--score-threads", help="Threads of each worker. Default: 1 with --workers N.", rich_help_panel="Search"),
]
Runtimes = Annotated[
    list[str] | None,
    typer.Option(
        "--runtime",
        metavar="NAME",
        help="Where to measure: cpu, cuda or tensorrt of ONNX Runtime, torch-cpu or torch-cuda; repeatable. Default: cpu.",
        rich_help_panel="Measuring",
    ),
]
RequireGpu = Annotated[
    bool, typer.Option("--require-gpu", help="Falling back to the CPU is an error.", rich_help_panel="Measuring")
]
Exporter = Annotated[
    str | None, typer.Option(metavar="auto|dynamo|legacy", help="Which of torch's exporters.", rich_help_panel=_OUTPUT)
]
Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        metavar="NAME",
        help="Where the run's figures are written as well, through Accelerate: tensorboard (RUN/tensorboard), wandb, mlflow or "
        "trackio; repeatable.",
        rich_help_panel=_OUTPUT,
    ),
]
OutFolder = Annotated[
    Path | None, typer.Option("--out", help="Run folder. Default: runs/MODEL-METHOD.", rich_help_panel=_OUTPUT)
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.", rich_help_panel=_OUTPUT)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.", rich_help_panel=_OUTPUT)]
Debug = Annotated[bool, typer.Option("--debug", help="Errors with a traceback.", rich_help_panel=_OUTPUT)]


def spread(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command whose dataclasses of options are spread out: each such parameter becomes the fields of its class, in place.

    The fields are annotated as options of a command are. What the command declares itself, with another help text for example,
    is not declared again; both the command and the dataclass are given its value.
    """
    signature, hints = inspect.signature(command), get_type_hints(command, include_extras=True)
    groups = {name: hints[name] for name in signature.parameters if is_dataclass(hints[name])}
    own = [name for name in signature.parameters if name not in groups]
    spread_out = []
    for name, parameter in signature.parameters.items():
        if name in groups:
            meant = get_type_hints(groups[name], include_extras=True)
            spread_out += [_parameter(f, meant[f.name]) for f in fields(groups[name]) if f.name not in own]
        else:
            spread_out.append(parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=hints[name]))

    @wraps(command)
    def inside(**options: Any) -> Any:
        made = {name: group(**{f.name: options[f.name] for f in fields(group)}) for name, group in groups.items()}
        return command(**{name: options[name] for name in own}, **made)

    inside.__signature__ = signature.replace(parameters=spread_out)  # type: ignore[attr-defined]
    inside.__annotations__ = {p.name: p.annotation for p in spread_out}
    return inside


def _parameter(field: Field[Any], annotation: Any) -> Parameter:
    default = Parameter.empty if field.default is MISSING else field.default
    return Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
