"""How strongly a layer is held at its old weights where it is seen at few positions: by images that were held out.

A layer behind a global average is seen once an image. Where its columns are about as many as its rows, least squares finds
weights that are right on these images and wrong on all others, and what reads them is then solved from what never comes again.
So the pull is the one with the smallest error on images that the weights were not solved from, each image left out once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from compress.recovery.moments import ROWS_PER_COLUMN

FOLDS = 4
"""Parts of the images, each held out once."""
_LADDER = tuple(10.0**power for power in range(7))
"""Times the smallest pull; with the last one hardly more than a constant is solved for."""

ImageRows = tuple[Tensor, Tensor]
"""Of one image: its inputs, (cardinality, positions, columns), and residuals, (cardinality, positions, outputs)."""


def few(rows: int, columns: int) -> bool:
    """Whether there are too few rows for the smallest pull to be safe."""
    return rows < ROWS_PER_COLUMN * columns


def held_out_ridge(parts: Sequence[ImageRows], least: float, centred: bool) -> float:
    """The pull that is best on images that are left out, in units of the inputs' mean variance.

    Args:
        parts: inputs and residuals, one part an image.
        least: the smallest that is tried; what the answer is where nothing larger is better, or there is one image.
        centred: whether a constant is free.
    """
    folds = [list(parts[k::FOLDS]) for k in range(min(FOLDS, len(parts)))]
    if least <= 0 or len(folds) < 2:
        return least
    ladder = [least * step for step in _LADDER]
    errors = torch.zeros(len(ladder), dtype=torch.float64)
    for fold in folds:
        rest = [part for other in folds if other is not fold for part in other]
        errors += held_out_errors(_joined(rest), _joined(fold), ladder, centred)
    return ladder[int(errors.argmin())]  # the first of equal ones


def held_out_errors(known: ImageRows, other: ImageRows, ladder: Sequence[float], centred: bool) -> Tensor:
    """Squared errors on ``other`` of what ridge least squares finds on ``known``, one a pull.

    One decomposition serves all of them: of the inputs' products over columns or over rows, whichever are fewer.
    """
    (u, residual), (v, wanted) = ((x.double(), y.double()) for x, y in (known, other))
    if centred:
        mean_u, mean_r = u.mean(1, keepdim=True), residual.mean(1, keepdim=True)
        u, residual, v, wanted = u - mean_u, residual - mean_r, v - mean_u, wanted - mean_r
    rows, columns = u.shape[1:]
    if rows < columns:
        values, vectors = torch.linalg.eigh(u @ u.mT)
        left, right = v @ u.mT @ vectors, vectors.mT @ residual
    else:
        values, vectors = torch.linalg.eigh(u.mT @ u)
        left, right = v @ vectors, vectors.mT @ (u.mT @ residual)
    level = (u.square().sum((1, 2)) / columns).clamp(min=torch.finfo(torch.float64).tiny)[:, None, None]
    shrunk = (right / (values.clamp(min=0)[:, :, None] + ridge * level) for ridge in ladder)
    return torch.stack([(wanted - left @ answer).square().sum() for answer in shrunk])


def _joined(parts: Sequence[ImageRows]) -> ImageRows:
    return torch.cat([u for u, _ in parts], dim=1), torch.cat([r for _, r in parts], dim=1)
