"""One label an image, named by the highest of several logits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.core import TOP1, Figure, TaskScore, wilson
from compress.errors import DataError, TaskError
from compress.signature import first_tensor
from compress.tasks.base import Task

TOP5 = Figure("top-5 accuracy", share=True)


@dataclass(frozen=True)
class Classification(Task):
    """Classes, one an image.

    Attributes:
        label_smoothing: share of the target spread over all classes in training.
        temperature: of both distributions in imitation.
    """

    label_smoothing: float = 0.0
    temperature: float = 4.0

    name: ClassVar[str] = "classification"
    figures = (TOP1, TOP5)
    names_one_label: ClassVar[bool] = True
    bounds: ClassVar[str] = "top-1 accuracy dropped"

    def logits(self, raw: Any) -> Tensor:
        """The classes' scores, (n, classes); auxiliary heads, which come after them, are not looked at.

        Raises:
            TaskError: the first output is something else.
        """
        first = first_tensor(raw)
        if first.ndim != 2 or first.shape[1] < 2:
            raise TaskError(
                f"the network returns {tuple(first.shape)}, wanted are logits (images, classes), two classes or more",
                hint="name what the network is for: --task binary, multilabel, regression, segmentation, ... or outputs",
            )
        return first

    def loss(self, raw: Any, batch: Any) -> Tensor:
        """Cross-entropy."""
        logits = self.logits(raw).float()
        return F.cross_entropy(logits, _labels(batch).to(logits.device), label_smoothing=self.label_smoothing)

    def imitate(self, raw: Any, teacher: Any) -> Tensor:
        """KL(teacher || student) at a temperature (Hinton, Vinyals, Dean 2015); T² keeps the gradients' scale."""
        t = self.temperature
        own, target = (F.log_softmax(self.logits(each).float() / t, 1) for each in (raw, teacher))
        return t * t * F.kl_div(own, target, log_target=True, reduction="batchmean")

    def score(self, model: nn.Module, batches: Iterable[Any]) -> Mapping[str, TaskScore]:
        """Top-1 and, where there are more than five classes, top-5, with Wilson's intervals."""
        right, right5, classes = [], [], 0
        for raw, batch in self.predicted(model, batches):
            logits, labels = self.logits(raw).float(), _labels(batch)
            if len(labels) and int(labels.min()) < 0:
                raise DataError("the images have no labels, so accuracy cannot be measured", hint="give labelled images")
            classes = logits.shape[1]
            hits = logits.topk(min(5, classes), dim=1).indices == labels.to(logits.device).unsqueeze(1)
            right.append(hits[:, 0].cpu().numpy())
            right5.append(hits.any(1).cpu().numpy())
        if not right:
            raise DataError("no image to measure the accuracy on, at least 1 is needed", hint="check the path of the data")
        found = {TOP1.name: _counted(np.concatenate(right))}
        return found | ({TOP5.name: _counted(np.concatenate(right5))} if classes > 5 else {})

    def decisions(self, raw: Any) -> Tensor:
        """The class of the highest logit, (n,)."""
        return self.logits(raw).argmax(dim=1)

    def gradient_target(self, raw: Any) -> Tensor:
        """Cross-entropy against the network's own answers: labels are not needed."""
        logits = self.logits(raw)
        return F.cross_entropy(logits, logits.detach().argmax(dim=1))

    def check(self, raw: Any, batch: Any) -> None:
        """Logits, and labels within them."""
        logits = self.logits(raw)
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            return
        labels = _labels(batch)
        if labels.shape != logits.shape[:1] or labels.is_floating_point():
            raise TaskError(
                f"the targets have shape {tuple(labels.shape)} and type {labels.dtype}, wanted are whole numbers, one an image",
                hint="give class indices (n,), or name another task with --task",
            )
        if len(labels) and int(labels.max()) >= logits.shape[1]:
            raise TaskError(
                f"label {int(labels.max())} occurs, but the network has {logits.shape[1]} classes",
                hint="check the labels, or give a network with a larger head",
            )


def _labels(batch: Any) -> Tensor:
    labels = batch[1]
    return labels if isinstance(labels, Tensor) else torch.as_tensor(labels)


def _counted(right: np.ndarray) -> TaskScore:
    correct, total = int(right.sum()), len(right)
    low, high = wilson(correct, total)
    return TaskScore(value=correct / total, low=low, high=high, images=total, per_image=right.astype(np.float64))
