"""How far a cut network's outputs are from the unpruned one's, as a share of what the outputs tell apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compress.signature import tensors

_MOST = 10.0
"""What one channel's error counts at the most: one that is destroyed must not hide what becomes of the others."""
_STILL = 1e-5
"""A channel whose spread is below this share of its size says nothing, and is measured by its size."""
_BATCH = 64


def outputs_of(model: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
    """Every floating-point output with a row an image, in their order, in evaluation mode."""
    parts: list[dict[str, Tensor]] = []
    was = model.training
    model.eval()
    with torch.no_grad():
        for batch in torch.split(images, _BATCH):
            output = tensors(model(batch.contiguous(memory_format=torch.channels_last) if batch.dim() == 4 else batch))
            found = {n: t for n, t in output.items() if t.is_floating_point() and t.dim() and len(t) == len(batch)}
            parts.append({n: t if t.dim() > 1 else t[:, None] for n, t in found.items()})
    model.train(was)
    names = [n for n in parts[0] if all(n in part for part in parts)]  # a table has as many rows as images by chance
    return tuple(torch.cat([part[n] for part in parts]) for n in names)


def relative(wanted: Tensor, got: Tensor) -> float:
    """||wanted - got||^2 / ||wanted - mean||^2."""
    spread = float((wanted - wanted.mean(dim=0, keepdim=True)).pow(2).sum())
    return float((wanted - got).pow(2).sum()) / max(spread, 1e-12)


def balanced(wanted: Tensor, got: Tensor) -> float:
    """The same, every channel over its own spread, averaged: boxes in pixels weigh no more than scores.

    Layouts differ, so that every dimension behind the first is taken for the channels' once; the largest average counts.
    """
    worst = 0.0
    off = (wanted - got).double().pow(2)
    spread = (wanted - wanted.mean(dim=0, keepdim=True)).double().pow(2)
    size = wanted.double().pow(2)
    for axis in range(1, wanted.dim()):
        others = [d for d in range(wanted.dim()) if d != axis]
        missed, told, whole = (t.sum(dim=others) for t in (off, spread, size))
        least = torch.maximum(told, _STILL**2 * whole).clamp_min(1e-24)
        worst = max(worst, float((missed / least).clamp(max=_MOST).mean()))
    return worst


def outputs_apart(before: nn.Module, after: nn.Module, images: Tensor) -> float:
    """The error of one network's outputs against another's, on some images; NaN where one is not finite."""
    return output_error(outputs_of(before, images), outputs_of(after, images))


def output_error(wanted: Sequence[Tensor], got: Sequence[Tensor]) -> float:
    """The error of all outputs: of one table of logits as it is, else of every channel alike; NaN where one is not finite."""
    if len(got) != len(wanted) or not all(bool(torch.isfinite(t).all()) for t in got):
        return float("nan")
    if len(wanted) == 1 and wanted[0].dim() == 2:
        return relative(wanted[0], got[0])
    return sum(relative(w, g) if w.dim() == 2 else balanced(w, g) for w, g in zip(wanted, got, strict=True)) / len(wanted)
