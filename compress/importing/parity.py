"""Whether an imported network computes what ONNX Runtime makes of the file: this decides, or nothing is done."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.errors import CompressError, ImportRefused, one_line
from compress.importing.network import ImportedNetwork
from compress.importing.operators.comparisons import Cast
from compress.importing.random_inputs import KINDS, random_of, takes_whole_numbers
from compress.runtime import Array, OrtRuntime, Session, inputs_of

TOLERANCE = 1e-4
"""Of a channel's scale."""
_BEYOND = 20.0
"""Times the noise of the network's own arithmetic up to which a difference is no error."""
_PROBABILITY = 5e-7
"""What runtimes' own sigmoids and exponentials are off by."""
_TELLS = 1000.0
"""Times what is allowed of a probability that an output has to reach for the comparison to say something of it."""
_ROUNDING = 2.0**-23
_BATCHES = (1, 2, 3)


@dataclass(frozen=True)
class Proof:
    """How far a network is from the file.

    Attributes:
        error: the largest difference of any output over that output's largest number.
        outputs: how many were compared.
        batches: sizes.
        kinds: of the inputs.
        silent: outputs that were near zero on every input, so that the comparison says nothing of them.
    """

    error: float
    outputs: int
    batches: tuple[int, ...]
    kinds: tuple[str, ...]
    silent: tuple[str, ...] = ()


def proven(network: ImportedNetwork, path: Path, *, batches: Sequence[int] = _BATCHES, seed: int = 0) -> Proof:
    """Runs the file and the network on the same inputs, of several kinds and batch sizes, and compares every output.

    A file with a fixed batch is given one example after the other.

    Raises:
        ImportRefused: an output differs, or is none of the file's; nothing should be done with the network.
        ModelError: ONNX Runtime does not run the file.
    """
    generator = torch.Generator().manual_seed(seed)
    worst, exact, told = 0.0, list[ImportedNetwork | None](), set[str]()
    with OrtRuntime(threads=1).load(path) as session:
        for kind, count in zip(KINDS, batches, strict=False):
            inputs, wanted = _asked(session, network, count, kind, generator)
            got, where = _outputs(network, inputs), f"{kind} inputs, a batch of {count}"
            told |= {name for name, array in wanted.items() if _tells(array)}
            try:
                worst = max(worst, *(_difference(name, array, got[name], None, where) for name, array in wanted.items()))
            except ImportRefused as error:  # unless the network's own arithmetic is as far off
                exact = exact or [_in_double(network)]
                noise = None if exact[0] is None else _noise(exact[0], inputs, got)
                if noise is None:
                    raise error
                worst = max(worst, *(_difference(name, x, got[name], noise[name], where) for name, x in wanted.items()))
    silent = tuple(name for name in network.graph.output_names if name not in told)
    return Proof(error=worst, outputs=len(network.graph.outputs), batches=tuple(batches), kinds=KINDS, silent=silent)


def _asked(
    session: Session, network: ImportedNetwork, count: int, kind: str, generator: torch.Generator
) -> tuple[tuple[Tensor, ...], Mapping[str, Array]]:
    """Random inputs, and what the file makes of them; whole numbers go once up to 255, unless a table's rows end before."""
    if kind == KINDS[-1] and takes_whole_numbers(network):
        inputs = random_of(network, count, kind, generator, whole=256)
        try:
            return inputs, _of_file(session, network, inputs)
        except CompressError:
            pass
    inputs = random_of(network, count, kind, generator)
    return inputs, _of_file(session, network, inputs)


def _tells(wanted: Array) -> bool:
    """Whether an output is no probability, or large enough for what is allowed of one to be nothing beside it."""
    if wanted.dtype.kind != "f" or not wanted.size or float(np.nan_to_num(wanted).min()) < 0:
        return True
    return float(np.nan_to_num(wanted).max()) >= _TELLS * _PROBABILITY


def _in_double(network: ImportedNetwork) -> ImportedNetwork | None:
    if sum(p.numel() for p in network.parameters()) > 2e8:
        return None
    exact = copy.deepcopy(network).double()
    for module in exact.modules():
        if isinstance(module, Cast) and module.dtype == torch.float32:  # whole numbers become what the weights are
            module.dtype = torch.float64
    return exact


def _noise(exact: ImportedNetwork, inputs: Sequence[Tensor], got: Mapping[str, Array]) -> dict[str, Array] | None:
    """How far equally right evaluations are apart: in double precision, and with each input, or each result, off by a rounding.

    None where the network makes floats itself, and does not run in double precision.
    """
    generator = torch.Generator().manual_seed(0)
    shaken = [
        x * (1 + 2.0**-20 * (torch.rand(x.shape, generator=generator) * 2 - 1)) if x.is_floating_point() else x for x in inputs
    ]
    try:
        one, others = _outputs(exact, inputs), [got, _outputs(exact, shaken), _rounded(exact, inputs, generator)]
    except ImportRefused:
        return None
    return {name: np.max([np.abs(one[name] - other[name]) for other in others], axis=0) for name in got}


def _rounded(exact: ImportedNetwork, inputs: Sequence[Tensor], generator: torch.Generator) -> Mapping[str, Array]:
    """The outputs where every node's result is off by as much as single precision rounds it, up or down by chance.

    What a network's formulas cancel (a variance as the mean of squares minus the square of the mean) shows here, and runtimes
    sum up in different orders.
    """

    def shake(_: torch.nn.Module, given: tuple[Any, ...], result: object) -> object:
        if not isinstance(result, Tensor) or not result.is_floating_point():
            return result
        first = given[0] if given else None
        summed = first.numel() / max(1, result.numel()) if isinstance(first, Tensor) else 1.0
        step = _ROUNDING * math.sqrt(max(1.0, summed))  # a sum of many is off by more
        return result * (1 + step * (torch.rand(result.shape, generator=generator) * 2 - 1))

    handles = [m.register_forward_hook(shake) for m in exact.modules() if not any(True for _ in m.children())]
    try:
        return _outputs(exact, inputs)
    finally:
        for handle in handles:
            handle.remove()


def _outputs(network: ImportedNetwork, inputs: Sequence[Tensor]) -> dict[str, Array]:
    kind = next((p.dtype for p in network.parameters()), torch.float32)
    given = [x.to(kind) if x.is_floating_point() else x for x in inputs]
    with torch.no_grad():
        try:
            answer = network(*given)
        except (RuntimeError, TypeError, ValueError) as error:
            raise ImportRefused(f"the imported network does not run: {one_line(error, 200)}") from error
    named = answer if isinstance(answer, dict) else {network.graph.output_names[0]: answer}
    return {name: x.detach().numpy() for name, x in named.items()}


def _of_file(session: Session, network: ImportedNetwork, inputs: Sequence[Tensor]) -> Mapping[str, Array]:
    names = network.graph.input_names
    given = dict(zip(names, (x.numpy() for x in inputs), strict=True))
    order = [one.name for one in inputs_of(session)]
    if not network.graph.batch:
        return dict(zip(network.graph.output_names, session.run([given[name] for name in order]), strict=True))
    axes = network.axes
    count = next(len(given[name]) for name in names if axes.inputs[name] == 0)
    rows = [
        session.run([given[name][i : i + 1] if axes.inputs[name] == 0 else given[name] for name in order]) for i in range(count)
    ]
    found = {}
    for place, name in enumerate(network.graph.output_names):
        axis = axes.outputs[name]
        found[name] = rows[0][place] if axis is None else np.concatenate([row[place] for row in rows], axis=axis)
    return found


def _difference(name: str, wanted: Array, got: Array, noise: Array | None, where: str) -> float:
    """The error of an output as a fraction of its scale.

    Raises:
        ImportRefused: it is beyond the tolerance.
    """
    if wanted.size == got.size and np.squeeze(wanted).shape == np.squeeze(got).shape:
        got = got.reshape(wanted.shape)  # a squeeze without axes takes a batch of one away
        noise = None if noise is None else noise.reshape(wanted.shape)
    if wanted.shape != got.shape or (wanted.dtype.kind == "f") != (got.dtype.kind == "f"):
        raise ImportRefused(
            f"the imported network's output {name[:80]!r} is {got.dtype} {list(got.shape)}, the file's {wanted.dtype} "
            f"{list(wanted.shape)} ({where})",
            hint="this is a mistake in compress: please report the file",
        )
    one, two = wanted.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(one)
    if not (finite == np.isfinite(two)).all() or not np.array_equal(one[~finite], two[~finite], equal_nan=True):
        raise ImportRefused(f"the output {name[:80]!r} is not finite where the file's is, or the other way round ({where})")
    if not one.size or not finite.any():
        return 0.0
    apart = np.where(finite, np.abs(np.where(finite, one, 0.0) - np.where(finite, two, 0.0)), 0.0)
    off = np.zeros_like(apart) if noise is None else np.nan_to_num(noise.astype(np.float64))
    scale = float(np.abs(one[finite]).max())
    if one.dtype.kind != "f" and apart.any():
        raise ImportRefused(f"the imported network's output {name[:80]!r} has other whole numbers than the file's ({where})")
    probable = bool((one[finite] >= 0).all() and scale <= 1)  # runtimes compute a probability to so many digits
    floor = (_PROBABILITY if probable else 0.0) + 1e-6 * scale
    for axis in {min(1, one.ndim - 1), one.ndim - 1} - {-1}:
        others = tuple(d for d in range(one.ndim) if d != axis)
        sizes = np.where(finite, np.abs(np.where(finite, one, 0.0)), 0.0).max(axis=others)
        allowed = np.maximum(TOLERANCE * sizes, _BEYOND * off.max(axis=others)) + floor
        if (apart.max(axis=others) > allowed).any():
            worst = int(np.argmax(apart.max(axis=others) - allowed))
            raise ImportRefused(
                f"the imported network computes something else: output {name[:80]!r}, index {worst} of dimension {axis}, is "
                f"off by {apart.max(axis=others)[worst]:.1e}, {allowed[worst]:.1e} is allowed ({where})",
                hint="this is a mistake in compress: please report the file",
            )
    error = float(apart.max()) / (scale or 1.0)
    if not math.isfinite(error):
        raise ImportRefused(f"the output {name[:80]!r} cannot be compared ({where})")
    return error


def refused_by_runtime(error: CompressError) -> ImportRefused:
    """A file that ONNX Runtime does not run."""
    return ImportRefused(f"ONNX Runtime does not run the file: {error.message}", hint=error.hint)
