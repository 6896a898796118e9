"""Yes or no, one an image, told by the sign of one logit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.core import Figure, TaskScore, wilson
from compress.errors import TaskError
from compress.signature import first_tensor
from compress.tasks.base import Task

ACCURACY = Figure("accuracy", share=True)


@dataclass(frozen=True)
class Binary(Task):
    """One logit an image; above the threshold is label 1.

    Attributes:
        threshold: of the logit.
    """

    threshold: float = 0.0

    name: ClassVar[str] = "binary"
    targets: ClassVar[tuple[str, ...]] = ("classes", "values")
    figures = (ACCURACY,)
    bounded = ACCURACY
    names_one_label: ClassVar[bool] = True
    images_that_tell: ClassVar[int] = 200

    def logit(self, raw: Any) -> Tensor:
        """(n,).

        Raises:
            TaskError: there is not one number an image.
        """
        first = first_tensor(raw)
        if first.dim() == 0 or first.numel() != len(first):
            raise TaskError(
                f"the network returns {tuple(first.shape)}, one logit an image is wanted: (images,) or (images, 1)",
                hint="--task classification for two or more classes, multilabel for several answers of yes or no",
            )
        return first.reshape(-1)

    def loss(self, raw: Any, batch: Any) -> Tensor:
        """Binary cross-entropy."""
        logit = self.logit(raw).float()
        return F.binary_cross_entropy_with_logits(logit, _zero_or_one(batch).to(logit))

    def imitate(self, raw: Any, teacher: Any) -> Tensor:
        """KL divergence between the two answers, as probabilities."""
        own, wanted = self.logit(raw).float(), self.logit(teacher).float()
        return bernoulli_kl(own, wanted).mean()

    def score(self, model: nn.Module, batches: Iterable[Any]) -> Mapping[str, TaskScore]:
        """Accuracy with Wilson's interval."""
        right = [
            (self.decisions(raw) == _zero_or_one(batch).to(self.logit(raw).device)).cpu().numpy()
            for raw, batch in self.predicted(model, batches)
        ]
        found = np.concatenate(right)
        low, high = wilson(int(found.sum()), len(found))
        rows = found.astype(np.float64)[:, None]
        return {ACCURACY.name: TaskScore(value=float(found.mean()), low=low, high=high, images=len(found), per_image=rows)}

    def decisions(self, raw: Any) -> Tensor:
        """1 where the logit is above the threshold, (n,)."""
        return (self.logit(raw) > self.threshold).long()

    def gradient_target(self, raw: Any) -> Tensor:
        """Binary cross-entropy against the network's own answers."""
        logit = self.logit(raw)
        return F.binary_cross_entropy_with_logits(logit, (logit.detach() > self.threshold).to(logit))

    def chance(self, classes: int) -> float:
        """One of two."""
        del classes
        return 0.5

    def check(self, raw: Any, batch: Any) -> None:
        """One logit, and targets of 0 and 1."""
        logit, targets = self.logit(raw), _zero_or_one(batch)
        if len(targets) != len(logit) or not bool(((targets == 0) | (targets == 1)).all()):
            raise TaskError(
                f"the targets are {tuple(targets.shape)}, from {float(targets.min()):g} to {float(targets.max()):g}; "
                f"0 or 1 for each of {len(logit)} images is wanted",
                hint="give two class folders, or targets of 0 and 1; --task regression for other numbers",
            )


def bernoulli_kl(own: Tensor, wanted: Tensor) -> Tensor:
    """KL(wanted || own) of two answers of yes or no, from their logits, elementwise."""
    probability = wanted.sigmoid()
    return F.binary_cross_entropy_with_logits(own, probability, reduction="none") - F.binary_cross_entropy_with_logits(
        wanted, probability, reduction="none"
    )


def _zero_or_one(batch: Any) -> Tensor:
    return torch.as_tensor(batch[1]).reshape(-1)
