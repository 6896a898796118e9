"""Several answers of yes or no an image, each told by the sign of its logit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from compress.core import Figure, TaskScore, mean_interval, resampled, share_interval
from compress.errors import TaskError
from compress.signature import first_tensor
from compress.tasks.base import Task
from compress.tasks.binary import bernoulli_kl
from compress.tasks.extra import need

LABEL_ACCURACY = Figure("label-wise accuracy", share=True)
F1 = Figure("F1 (micro)", share=True)


@dataclass(frozen=True)
class Multilabel(Task):
    """A logit for each label, (images, labels).

    Attributes:
        threshold: of the logits.
        metric: what decides, ``accuracy`` label by label or the micro-averaged ``F1``; the other one stands beside it.
    """

    threshold: float = 0.0
    metric: Literal["accuracy", "F1"] = "accuracy"

    name: ClassVar[str] = "multilabel"
    targets: ClassVar[tuple[str, ...]] = ("values",)
    bounded = LABEL_ACCURACY

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Both, the metric first."""
        return (LABEL_ACCURACY, F1) if self.metric == "accuracy" else (F1, LABEL_ACCURACY)

    def logits(self, raw: Any) -> Tensor:
        """(n, labels).

        Raises:
            TaskError: the first output is something else.
        """
        first = first_tensor(raw)
        if first.dim() != 2:
            raise TaskError(
                f"the network returns {tuple(first.shape)}, a logit for each label is wanted: (images, labels)",
                hint="--task segmentation where every pixel is labelled, binary for one answer an image",
            )
        return first

    def loss(self, raw: Any, batch: Any) -> Tensor:
        """Binary cross-entropy, the mean over labels."""
        logits = self.logits(raw).float()
        return F.binary_cross_entropy_with_logits(logits, _targets(batch).to(logits))

    def imitate(self, raw: Any, teacher: Any) -> Tensor:
        """KL divergence of every answer, the mean over labels."""
        return bernoulli_kl(self.logits(raw).float(), self.logits(teacher).float()).mean()

    def score(self, model: nn.Module, batches: Iterable[Any]) -> Mapping[str, TaskScore]:
        """The share of right answers over all labels, and micro-averaged F1; intervals over images."""
        need(self.name, "torchmetrics")
        from torchmetrics.functional.classification import multilabel_f1_score

        said, truth = self._said(model, batches)
        right, counts = _right(said, truth), _counts(said, truth)
        low, high = share_interval(*mean_interval(right[:, 0]), len(right))
        accuracy = TaskScore(value=float(right.mean()), low=low, high=high, images=len(right), per_image=right)
        value = float(multilabel_f1_score(said.int(), truth.int(), num_labels=said.shape[1], average="micro"))
        low, high = share_interval(*resampled(counts, micro_f1), len(counts))
        f1 = TaskScore(value=value, low=min(low, value), high=max(high, value), images=len(counts), per_image=counts)
        return {LABEL_ACCURACY.name: accuracy, F1.name: f1}

    def pooled(self, rows: NDArray[np.float64]) -> float:
        """The mean share of right answers, (images, 1); or of :func:`_counts`, (images, 3), the micro-averaged F1."""
        return micro_f1(rows) if self.metric == "F1" else float(rows.mean())

    def error(self, model: nn.Module, batches: Iterable[Any], base: float) -> float:
        """1 - what decides, without its interval."""
        made = _counts if self.metric == "F1" else _right
        return self.figures[0].error(self.pooled(made(*self._said(model, batches))), base)

    def change(self, raw: Any, before: Any) -> Tensor:
        """The share of an image's labels that are answered otherwise, (n,)."""
        now, then = (self.logits(each) > self.threshold for each in (raw, before))
        return (now != then).double().mean(1)

    def gradient_target(self, raw: Any) -> Tensor:
        """Binary cross-entropy against the network's own answers."""
        logits = self.logits(raw)
        return F.binary_cross_entropy_with_logits(logits, (logits.detach() > self.threshold).to(logits))

    def _said(self, model: nn.Module, batches: Iterable[Any]) -> tuple[Tensor, Tensor]:
        """Answers and targets, (images, labels) of truth values."""
        said, truth = [], []
        for raw, batch in self.predicted(model, batches):
            said.append((self.logits(raw) > self.threshold).cpu())
            truth.append(_targets(batch).cpu().bool())
        if not said:
            raise TaskError("no image to measure labels on, at least 1 is needed", hint="check the path of the data")
        return torch.cat(said), torch.cat(truth)

    def check(self, raw: Any, batch: Any) -> None:
        """Logits, and as many targets of 0 and 1."""
        need(self.name, "torchmetrics")
        logits, targets = self.logits(raw), _targets(batch)
        if targets.shape != logits.shape or not bool(((targets == 0) | (targets == 1)).all()):
            raise TaskError(
                f"the targets are {tuple(targets.shape)}, from {float(targets.min()):g} to {float(targets.max()):g}; "
                f"0 or 1 for each label, {tuple(logits.shape)}, is wanted",
                hint="give a 0 or 1 for each label of each image; --task regression for other numbers",
            )


def micro_f1(rows: NDArray[np.float64]) -> float:
    """F1 of all labels of all images: of each image how many are rightly named, wrongly named and missed, (images, 3)."""
    right, wrong, missed = rows.sum(0)
    return float(2 * right / max(2 * right + wrong + missed, 1))


def _counts(said: Tensor, truth: Tensor) -> NDArray[np.float64]:
    counted = torch.stack([(said & truth).sum(1), (said & ~truth).sum(1), (~said & truth).sum(1)], 1)
    return counted.double().numpy()


def _right(said: Tensor, truth: Tensor) -> NDArray[np.float64]:
    return (said == truth).double().mean(1, keepdim=True).numpy()


def _targets(batch: Any) -> Tensor:
    return torch.as_tensor(batch[1])
