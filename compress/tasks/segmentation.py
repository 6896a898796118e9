"""A class for every pixel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from compress.core import Figure, TaskScore, mean_interval, share_interval
from compress.errors import TaskError
from compress.signature import first_tensor
from compress.tasks.base import Task
from compress.tasks.extra import need

MIOU = Figure("mIoU", share=True)
PIXEL_ACCURACY = Figure("pixel accuracy", share=True)


@dataclass(frozen=True)
class Segmentation(Task):
    """Logits (images, classes, height, width), or one logit a pixel for two classes, and masks (images, height, width).

    Logits of a lower resolution are enlarged to that of the masks, bilinearly.

    Attributes:
        void: the index of pixels that are to be ignored.
    """

    void: int = 255

    name: ClassVar[str] = "segmentation"
    targets: ClassVar[tuple[str, ...]] = ("masks",)
    images_that_tell: ClassVar[int] = 8
    figures = (MIOU, PIXEL_ACCURACY)
    bounded = PIXEL_ACCURACY

    def logits(self, raw: Any) -> Tensor:
        """(n, classes, h, w); auxiliary heads, which come after them, are not looked at.

        Raises:
            TaskError: the first output is something else.
        """
        first = first_tensor(raw)
        if first.dim() != 4:
            raise TaskError(
                f"the network returns {tuple(first.shape)}, logits (images, classes, height, width) are wanted",
                hint="--task classification where an image has one label, outputs where nothing is known",
            )
        return torch.cat((torch.zeros_like(first), first), dim=1) if first.shape[1] == 1 else first

    def pixel_classes(self, raw: Any, size: torch.Size | None = None) -> Tensor:
        """The class of every pixel, (n, h, w), in the size of the masks where it is given."""
        return self._sized(self.logits(raw), size).argmax(dim=1)

    def loss(self, raw: Any, batch: Any) -> Tensor:
        """Cross-entropy, the mean over the pixels that are not void."""
        masks = _masks(batch)
        logits = self._sized(self.logits(raw).float(), masks.shape[1:])
        losses = F.cross_entropy(logits, masks.to(logits.device), ignore_index=self.void, reduction="sum")
        return losses / (masks != self.void).sum().clamp_min(1).to(losses.device)

    def imitate(self, raw: Any, teacher: Any) -> Tensor:
        """KL(teacher || student) of every pixel's classes, the mean over pixels."""
        own, target = (F.log_softmax(self.logits(each).float(), 1) for each in (raw, teacher))
        return F.kl_div(own, target, log_target=True, reduction="none").sum(1).mean()

    def score(self, model: nn.Module, batches: Iterable[Any]) -> Mapping[str, TaskScore]:
        """Mean intersection over union of the classes that occur, and pixel accuracy; intervals over images.

        Of pixel accuracy, void pixels count as right: so it is what a share of changed pixels bounds.
        """
        need(self.name, "torchmetrics")
        from torchmetrics.functional.classification import multiclass_confusion_matrix

        rows, right = [], []
        for raw, batch in self.predicted(model, batches):
            masks, classes = _masks(batch), self.logits(raw).shape[1]
            for said, truth in zip(self.pixel_classes(raw, masks.shape[1:]), masks.to(raw_device(raw)), strict=True):
                counts = multiclass_confusion_matrix(said, truth, classes, ignore_index=self.void, validate_args=False)
                both = counts.diag()
                either = counts.sum(0) + counts.sum(1) - both
                if 0 <= self.void < classes:  # a class that is never asked for is no class
                    either[self.void] = 0
                rows.append(torch.cat((both, either)).double().cpu().numpy())
                right.append(float(((said == truth) | (truth == self.void)).double().mean()))
        if not rows:
            raise TaskError("no image to measure mIoU on, at least 1 is needed", hint="check the path of the data")
        pixels = np.array(right)
        low, high = share_interval(*mean_interval(pixels), len(pixels))
        accuracy = TaskScore(value=float(pixels.mean()), low=low, high=high, images=len(rows), per_image=pixels[:, None])
        return {MIOU.name: self.from_rows(np.stack(rows)), PIXEL_ACCURACY.name: accuracy}

    def pooled(self, rows: NDArray[np.float64]) -> float:
        """mIoU of images' intersections and unions, (images, 2 * classes): of the sums, the mean over classes that occur."""
        both, either = np.split(rows.sum(0), 2)
        there = either > 0
        return float((both[there] / either[there]).mean()) if there.any() else 0.0

    def change(self, raw: Any, before: Any) -> Tensor:
        """The share of an image's pixels that get another class, (n,)."""
        return (self.pixel_classes(raw) != self.pixel_classes(before)).double().mean((1, 2))

    def gradient_target(self, raw: Any) -> Tensor:
        """Cross-entropy against the network's own answers, the mean over pixels."""
        logits = self.logits(raw)
        return F.cross_entropy(logits, logits.detach().argmax(dim=1))

    def check(self, raw: Any, batch: Any) -> None:
        """Whole numbers in the logits' height and width, within the classes or void."""
        need(self.name, "torchmetrics")
        logits, masks = self.logits(raw), _masks(batch)
        height, width = logits.shape[2:]
        fits = masks.dim() == 3 and not masks.is_floating_point() and len(masks) == len(logits)
        if not fits or masks.shape[1] * width != masks.shape[2] * height or masks.shape[1] < height:
            raise TaskError(
                f"the targets are {tuple(masks.shape)} of {masks.dtype}; the network answers {tuple(logits.shape)}",
                hint="give masks of whole numbers (images, height, width), of the images' own size",
            )
        strange = masks[((masks < 0) | (masks >= logits.shape[1])) & (masks != self.void)]
        if strange.numel():
            number = int(strange.max())
            raise TaskError(
                f"class {number} occurs in the masks, the network has {logits.shape[1]} classes; void is {self.void}",
                hint=f"--task segmentation:void={number} if it is to be ignored, or give a network with more classes",
            )

    def _sized(self, logits: Tensor, size: torch.Size | None) -> Tensor:
        if size is None or logits.shape[2:] == size:
            return logits
        return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)


def raw_device(raw: Any) -> torch.device:
    """Where an answer is."""
    return first_tensor(raw).device


def _masks(batch: Any) -> Tensor:
    return torch.as_tensor(batch[1])
