"""How outputs of which nothing is known are compared, imitated and projected: per output and channel, over their own spread."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from compress.errors import TaskError

_STILL = 1e-3
"""The least spread of a channel, as a share of the whole output's: one that hardly moves must not drown the others."""


def kept_outputs(outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The floating-point outputs."""
    return {name: t for name, t in outputs.items() if t.is_floating_point() and t.dim() > 0}


def spread(output: Tensor) -> Tensor:
    """Variance of every channel over images and places, shaped to divide the output; never 0."""
    output = output.detach().float()
    if output.dim() == 1:
        output = output[:, None]
    others = tuple(d for d in range(output.dim()) if d != 1)
    variance = output.var(others, correction=0, keepdim=True)
    whole = output.var(correction=0)
    size = output.square().mean()
    return torch.maximum(variance, _STILL * whole + 1e-6 * size).clamp_min(1e-12)


def normalised_squared_error(raw: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> Tensor:
    """Mean over outputs of their squared errors, each channel's over its variance in the teacher's answer.

    The mean is not taken out first: an offset that all images share counts.

    Raises:
        TaskError: the outputs have other names or shapes than the teacher's.
    """
    ours, theirs = kept_outputs(raw), kept_outputs(teacher)
    shapes = [{n: tuple(t.shape) for n, t in each.items()} for each in (ours, theirs)]
    if shapes[0] != shapes[1] or not ours:
        raise TaskError(
            f"the network returns {shapes[0] or 'no floating-point tensor'}, the teacher {shapes[1]}",
            hint="imitate a network with the same outputs",
        )
    total = torch.zeros((), device=next(iter(ours.values())).device)
    for name, wanted in theirs.items():
        got = ours[name].float()
        got, wanted = (t[:, None] if t.dim() == 1 else t for t in (got, wanted.float()))
        total = total + ((got - wanted).square() / spread(wanted)).mean()
    return total / len(theirs)


def projected(outputs: Mapping[str, Tensor]) -> Tensor:
    """The outputs over their spread, summed with normal weights drawn from torch's generator.

    Raises:
        TaskError: no output is a floating-point tensor.
    """
    kept = kept_outputs(outputs)
    if not kept:
        raise TaskError("the network returns no floating-point tensor", hint="return what it computes")
    total = torch.zeros((), device=next(iter(kept.values())).device)
    for output in kept.values():
        rows = (output[:, None] if output.dim() == 1 else output).float()
        noise = torch.randn(rows.shape).to(rows.device)
        total = total + (noise * rows / spread(rows).sqrt()).sum() / rows[0].numel() ** 0.5
    return total
