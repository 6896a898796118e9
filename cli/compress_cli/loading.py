"""From what was typed to a network and its images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core import plural
from compress.errors import ConfigError, ModelError, one_line
from compress_cli.console import UsageError, warn

if TYPE_CHECKING:
    from torch import nn

    from compress.data import Data, Preprocessing
    from compress.networks import Loaded


def resolve(
    loaded: Loaded,
    size: tuple[float, ...] | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    channels: int | None = None,
) -> Preprocessing:
    """How the network's images are prepared; the number of channels is as given, or that of its first convolution."""
    from dataclasses import replace

    from compress.data import Preprocessing, preset_for

    name, (first, dims) = loaded.architecture.name, taken_by(loaded.model)
    channels, dims = (first, dims) if channels is None else (channels, len(size or ()))
    sides = _sides(size, dims)
    found = loaded.preprocessing or (preset_for(name) if dims == 2 else None)
    if found is None or len(found.size) != dims or (channels != found.channels and dims != 2):
        if sides is None:
            raise UsageError(
                f"the network takes samples of {plural(channels, 'channel')} over {_DIMENSIONS[dims]}, nothing says their size",
                hint=f"--size {'16000' if dims == 1 else ','.join(['16'] * dims)}, or --example package.module:function",
            )
        found = Preprocessing(mean=(0.0,) * channels, std=(1.0,) * channels, size=sides)
    elif channels != found.channels:
        found = preset_for(name, (channels, *found.size))
    if sides is not None and dims == 2 and loaded.preprocessing is None:
        found = preset_for(name, (channels, *sides))
    elif sides is not None and sides != found.size:
        scale = None if found.resize is None else round(max(sides) * found.resize / max(found.size))
        found = replace(found, size=sides, resize=scale)
    if mean is not None or std is not None:
        found = replace(found, mean=_spread(mean, channels, found.mean), std=_spread(std, channels, found.std))
    return found


def _spread(given: tuple[float, ...] | None, channels: int, otherwise: tuple[float, ...]) -> tuple[float, ...]:
    """One number serves every channel."""
    return otherwise if given is None else given * channels if len(given) == 1 else given


_DIMENSIONS = {1: "one dimension (a length)", 2: "height and width", 3: "depth, height and width"}


def _sides(size: tuple[float, ...] | None, dims: int) -> tuple[int, ...] | None:
    """``--size`` for a network of so many dimensions; one number serves all of them.

    Raises:
        UsageError: too many numbers, or some that are no sizes.
    """
    if size is None:
        return None
    if len(size) not in (1, dims) or any(side != int(side) or side < 1 for side in size):
        told = {1: "one whole number", 2: "one or two whole numbers of pixels", 3: "one or three whole numbers"}[dims]
        example = {1: "16000", 2: "224", 3: "16,64,64"}[dims]
        raise UsageError(f"--size {','.join(f'{s:g}' for s in size)}: {told} are wanted", hint=f"--size {example}")
    return tuple(int(side) for side in size) * (dims if len(size) == 1 else 1)


def taken_by(model: nn.Module) -> tuple[int, int]:
    """Channels and dimensions of what a network takes: those of its first convolution.

    Raises:
        ModelError: the network has none.
    """
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            return module.in_channels, len(module.kernel_size)
    raise ModelError("the network has no convolution, nothing could be pruned", hint="give a convolutional network")


def classes_of(model: nn.Module, shape: tuple[int, ...]) -> int | None:
    """How many outputs the network has, by asking it; None where it does not return one row of logits an image.

    Raises:
        ModelError: it does not take images of this shape.
    """
    import torch

    from compress.signature import tensors

    try:
        with torch.inference_mode():
            answer = model(torch.zeros(2, *shape))
    except Exception as error:  # whatever the user's forward raises
        raise ModelError(
            f"the network does not take images of {list(shape)}: {one_line(error, 200)}",
            hint="give the size it was trained on with --size, or, where it takes something else than one batch of images, "
            "inputs that it runs on with --example package.module:function",
        ) from error
    first = next(iter(tensors(answer).values()), None)
    return int(first.shape[1]) if first is not None and first.dim() == 2 else None


def example_from(spec: str) -> Any:
    """What ``package.module:function`` returns, or is: one call's inputs.

    Raises:
        UsageError: it cannot be imported, or fails.
    """
    from compress.core import import_entrypoint, is_entrypoint

    if not is_entrypoint(spec):
        raise UsageError(
            f"--example {spec}: package.module:function is wanted",
            hint="a function that returns what the network is called with",
        )
    try:
        found = import_entrypoint(spec)
        return found() if callable(found) else found
    except ImportError as error:
        raise UsageError(f"--example {spec}: {error}", hint="check that it can be imported from here") from error
    except Exception as error:  # the user's own code
        raise UsageError(
            f"--example {spec} failed: {type(error).__name__}: {one_line(error)}", hint="it is called without arguments"
        ) from error


def loop_from(spec: str | None) -> Any:
    """The training loop that ``package.module:function`` names; None for None.

    Raises:
        UsageError: it cannot be imported.
        ConfigError: it cannot be called as a loop is.
    """
    if spec is None:
        return None
    from compress.core import import_entrypoint, is_entrypoint
    from compress.recovery import check_loop

    if not is_entrypoint(spec):
        raise UsageError(
            f"--train {spec}: package.module:function is wanted", hint="def train(model, teacher, data, budget, hooks): ..."
        )
    try:
        loop = import_entrypoint(spec)
    except ImportError as error:
        raise UsageError(f"--train {spec}: {error}", hint="check that it can be imported from here") from error
    check_loop(loop)
    return loop


def shape_of(example: Any) -> tuple[int, ...] | None:
    """The shape of one of the samples that an example is of; None where it is of something else than one batch of samples."""
    import torch

    alone = example[0] if isinstance(example, tuple) and len(example) == 1 else example
    samples = isinstance(alone, torch.Tensor) and alone.is_floating_point() and 3 <= alone.dim() <= 5
    return tuple(alone.shape[1:]) if samples else None


def own_code(source: str) -> bool:
    """Whether images are named by a function of the user's own, whose examples are used as they are."""
    from compress.core import is_entrypoint
    from compress.data import TORCHVISION

    return is_entrypoint(source) and source.partition(":")[0] not in TORCHVISION and not Path(source).exists()


def load_data(
    source: str | None, preprocessing: Preprocessing | None, classes: int | None, *, labels: str, seed: int, download: bool
) -> Data | None:
    """The images, if any were named."""
    from compress.data import examined, open_data

    if source is None:
        if labels != "sorted" or download:
            raise UsageError("--labels and --download speak of images, but there is no --data", hint="add --data FOLDER")
        return None
    data = open_data(source, preprocessing=preprocessing, num_classes=classes, labels=labels, seed=seed, download=download)
    for warning in (*data.warnings, *examined(data)):
        warn(warning)
    return data


def numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """``0.5,0.5`` as numbers; ``32x32`` works too."""
    if text is None:
        return None
    try:
        found = tuple(float(part) for part in text.replace("x", ",").split(","))
    except ValueError as error:
        raise UsageError(f"--{option} {text!r} is not a list of numbers", hint=f"write --{option} as in 224,224") from error
    whole = option in ("size", "batches", "prefer")
    least, most, said = {"mean": (0.0, 1.0, "in [0, 1], as pixels are"), "std": (0.0, 100.0, "above 0")}.get(
        option, (1.0, 65_536.0, "whole numbers from 1 to 65,536")
    )
    for value in found:
        if not (math.isfinite(value) and least <= value <= most) or (whole and value != int(value)):
            raise UsageError(f"--{option} {text!r}: {value:g} is there, wanted are numbers {said}", hint="see --help")
    return found


def image_of(size: str | None, file: Path) -> tuple[int, ...] | None:
    """The shape of one input, for files that leave it open; the channels are the file's."""
    from compress.export import read_interface

    sides = numbers("size", size)
    if sides is None:
        return None
    (channels, *rest) = read_interface(file).inputs[0].row or (3, -1, -1)
    if len(sides) not in (1, len(rest)) or any(side != int(side) or side < 1 for side in sides):
        raise UsageError(f"--size {size}: one whole number for each of {len(rest)} dimensions is wanted", hint="--size 224,224")
    every = sides * len(rest) if len(sides) == 1 else sides
    return (channels if channels > 0 else 3, *(int(side) for side in every))


def writable(path: Path, *, folder: bool) -> Path:
    """A place for a result, asked before any work: its nearest existing parent must be a folder that can be written to.

    Raises:
        ConfigError: it cannot.
    """
    import os

    if path.exists() and not path.is_dir() and not path.is_file():
        raise ConfigError(f"--out {path} is no ordinary file", hint="choose another --out")
    if path.exists() and path.is_dir() != folder:
        kind = "a file" if folder else "a folder"
        raise ConfigError(f"--out {path} is {kind}, a {'folder' if folder else 'file'} was wanted", hint="choose another --out")
    parent = path if path.exists() and folder else path.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise ConfigError(f"--out {path} cannot be written: {parent} is no writable folder", hint="choose another --out")
    return path


def onnx_of(run: Path, precision: str = "fp32") -> Path:
    """The ONNX file of a run's folder in a precision; a file is itself.

    Raises:
        ConfigError: there is none; the hint says which command makes it.
    """
    if precision not in ("fp32", "fp16", "int8"):
        raise ConfigError(f"--precision {precision!r} is not known", hint="--precision fp32, fp16 or int8")
    if run.is_file():
        return run
    from compress.report import verified

    verified(run)
    file = run / ("model.onnx" if precision == "fp32" else f"model.{precision}.onnx")
    if not file.is_file():
        made = f"compress export {run} --precision {precision}" if precision != "fp32" else f"compress prune ... --out {run}"
        raise ConfigError(f"{file} is not there", hint=made)
    return file
