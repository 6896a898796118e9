"""An image for an image: without noise, sharper, larger, coloured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.core import Figure, TaskScore, resampled
from compress.errors import TaskError
from compress.signature import first_tensor
from compress.tasks.base import Task
from compress.tasks.extra import need

PSNR = Figure("PSNR", "dB")
RMSE = Figure("RMSE", higher=False)
_MOST = 100.0
"""dB of an image that is restored exactly."""


@dataclass(frozen=True)
class Restoration(Task):
    """Images (n, c, h, w) with values from 0 to ``range``, and targets of the same shape.

    Attributes:
        distance: what training minimises, ``L1`` or ``L2``.
        range: the largest value of a target.
    """

    distance: Literal["L1", "L2"] = "L1"
    range: float = 1.0

    name: ClassVar[str] = "restoration"
    targets: ClassVar[tuple[str, ...]] = ("images",)
    images_that_tell: ClassVar[int] = 8
    figures = (PSNR, RMSE)
    bounded = RMSE
    root = True

    def restored(self, raw: Any) -> Tensor:
        """(n, c, h, w).

        Raises:
            TaskError: the first output is something else.
        """
        first = first_tensor(raw)
        if first.dim() != 4:
            raise TaskError(
                f"the network returns {tuple(first.shape)}, images (n, channels, height, width) are wanted",
                hint="name another task, or outputs where nothing is known",
            )
        return first

    def loss(self, raw: Any, batch: Any) -> Tensor:
        """The mean absolute or squared error of all values, as shares of the range."""
        restored = self.restored(raw).float() / self.range
        targets = _images(batch).to(restored) / self.range
        return F.l1_loss(restored, targets) if self.distance == "L1" else F.mse_loss(restored, targets)

    def score(self, model: nn.Module, batches: Iterable[Any]) -> Mapping[str, TaskScore]:
        """PSNR, the mean of every image's own, and the RMSE over all images; intervals over images."""
        need(self.name, "torchmetrics")
        from torchmetrics.functional.image import peak_signal_noise_ratio

        decibels, squares = [], []
        for raw, batch in self.predicted(model, batches):
            restored = self.restored(raw).double()
            targets = _images(batch).to(restored)
            each = peak_signal_noise_ratio(restored, targets, data_range=self.range, reduction="none", dim=(1, 2, 3))
            decibels.append(each.clamp_max(_MOST).reshape(-1).cpu().numpy())
            squares.append((restored - targets).square().mean((1, 2, 3)).cpu().numpy())
        if not decibels:
            raise TaskError("no image to measure PSNR on, at least 1 is needed", hint="check the path of the data")
        rows = np.concatenate(squares)[:, None]
        low, high = resampled(rows, _root_mean)
        rmse = TaskScore(value=_root_mean(rows), low=low, high=high, images=len(rows), per_image=rows)
        return {PSNR.name: self.from_rows(np.concatenate(decibels)[:, None]), RMSE.name: rmse}

    def change(self, raw: Any, before: Any) -> Tensor:
        """The mean square difference of two answers, (n,): the root of its mean is the most that the RMSE can rise by."""
        return (self.restored(raw).double() - self.restored(before).double()).square().mean((1, 2, 3))

    def check(self, raw: Any, batch: Any) -> None:
        """Targets of the answer's shape, finite, within the range."""
        need(self.name, "torchmetrics")
        restored, targets = self.restored(raw), _images(batch)
        if targets.shape != restored.shape or not targets.is_floating_point():
            raise TaskError(
                f"the targets are {tuple(targets.shape)} of {targets.dtype}, the network answers {tuple(restored.shape)}",
                hint="give targets as float images of the shape that the network returns",
            )
        low, high = float(targets.min()), float(targets.max())
        if not (low >= -1e-3 * self.range and high <= 1.001 * self.range):  # NaN, too
            raise TaskError(
                f"the targets run from {low:g} to {high:g}, 0 to {self.range:g} is the range",
                hint="scale them, or say the range: --task restoration:range=255",
            )


def _root_mean(rows: np.ndarray) -> float:
    return math.sqrt(float(rows.mean()))


def _images(batch: Any) -> Tensor:
    return torch.as_tensor(batch[1])
