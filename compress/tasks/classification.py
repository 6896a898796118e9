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
from compress.errors import DataError, TaskError, TrainError
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
    targets: ClassVar[tuple[str, ...]] = ("classes",)
    figures = (TOP1, TOP5)
    bounded = TOP1
    names_one_label: ClassVar[bool] = True
    logit_per_class: ClassVar[bool] = True
    images_that_tell: ClassVar[int] = 200

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

    def error(self, model: nn.Module, batches: Iterable[Any], base: float) -> float:
        """1 - top-1, in single precision as in every journal so far; NaN where a logit is not finite."""
        del base
        hits = []
        for raw, batch in self.predicted(model, batches):
            logits = self.logits(raw)
            if not bool(torch.isfinite(logits).all()):
                return float("nan")
            hits.append(logits.argmax(dim=1) == _labels(batch).to(logits.device))
        return 1.0 - float(torch.cat(hits).float().mean())

    def chance(self, classes: int) -> float | None:
        """One of so many."""
        return 1 / classes if classes else None

    def decisions(self, raw: Any) -> Tensor:
        """The class of the highest logit, (n,)."""
        return self.logits(raw).argmax(dim=1)

    def gradient_target(self, raw: Any) -> Tensor:
        """Cross-entropy against the network's own answers: labels are not needed."""
        logits = self.logits(raw)
        return F.cross_entropy(logits, logits.detach().argmax(dim=1))

    def check_step(self, raw: Any, teacher: Any, batch: Any, share: float) -> None:
        """The teacher has the same classes, and the labels are among them."""
        logits = self.logits(raw)
        labels = _labels(batch).cpu() if isinstance(batch, tuple | list) and len(batch) == 2 else torch.tensor([-1])
        target = None if teacher is None else self.logits(teacher)
        if target is not None and target.shape != logits.shape:
            raise TrainError(
                f"the teacher has {target.shape[1]} classes, the network {logits.shape[1]}",
                hint="distil from the unpruned network, or set distill to 0",
            )
        lowest, highest = int(labels.min()), int(labels.max())
        if lowest < 0 and (target is None or share < 1):
            raise TrainError(
                "the training images have no labels", hint="give labelled images, or a teacher and distill = 1 (imitation only)"
            )
        if highest >= logits.shape[1]:
            raise TrainError(
                f"label {highest} occurs, but the network has {logits.shape[1]} classes",
                hint="check the labels, or train a network with a larger head",
            )
        if target is None or share < 1:
            self.check(raw, batch)

    def check(self, raw: Any, batch: Any) -> None:
        """Logits, and labels within them."""
        logits, labels = self.logits(raw), _labels(batch)
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
    return TaskScore(value=correct / total, low=low, high=high, images=total, per_image=right.astype(np.float64)[:, None])
