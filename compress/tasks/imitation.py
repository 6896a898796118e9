"""How outputs of which nothing is known are compared, imitated and projected: per output and channel, over their own spread."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.errors import TaskError

_STILL = 1e-3
"""The least spread of a channel, as a share of the whole output's: one that hardly moves must not drown the others."""
_NEAR = 0.1
"""Deviations within which a difference is squared in imitation."""


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


def imitation_loss(raw: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> Tensor:
    """Mean over outputs of how far they are from the teacher's, each channel over its spread in the teacher's answer.

    The mean is not taken out first: an offset that all images share counts. Squares near the teacher's answer, and no steeper
    than straight lines further away (Huber's): batch norms that begin to train throw outputs of any size off at first, and
    squares of that would destroy the network.

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
        got, wanted = (t[:, None] if t.dim() == 1 else t for t in (ours[name].float(), wanted.float()))
        off = (got - wanted) / spread(wanted).sqrt()
        total = total + F.smooth_l1_loss(off, torch.zeros_like(off), beta=_NEAR)
    return total / len(theirs)


def per_image_error(raw: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> Tensor:
    """Per image (n,) the squared difference, each channel's over its variance; outputs without a row an image are left out."""
    count = max(len(t) for t in kept_outputs(before).values())
    parts = []
    for name, wanted in kept_outputs(before).items():
        if len(wanted) == count:
            off = raw[name].float().sub(wanted.float()).square()
            off, scale = (off[:, None] if off.dim() == 1 else off), spread(wanted)
            parts.append((off / scale).flatten(1).mean(1))
    return torch.stack(parts).mean(0)


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
