"""Several answers of yes or no an image, each told by the sign of its logit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.core import Figure, TaskScore
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
    """

    threshold: float = 0.0

    name: ClassVar[str] = "multilabel"
    targets: ClassVar[tuple[str, ...]] = ("values",)
    figures = (LABEL_ACCURACY, F1)
    bounded = LABEL_ACCURACY

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

        rows, said, truth = [], [], []
        for raw, batch in self.predicted(model, batches):
            answers, targets = (self.logits(raw) > self.threshold).cpu(), _targets(batch).cpu()
            rows.append((answers == targets.bool()).double().mean(1))
            said.append(answers)
            truth.append(targets)
        right = self.from_rows(torch.cat(rows).numpy()[:, None])
        answers, targets = torch.cat(said).int(), torch.cat(truth).int()
        f1 = float(multilabel_f1_score(answers, targets, num_labels=answers.shape[1], average="micro"))
        return {LABEL_ACCURACY.name: right, F1.name: TaskScore(value=f1, low=f1, high=f1, images=len(answers))}

    def change(self, raw: Any, before: Any) -> Tensor:
        """The share of an image's labels that are answered otherwise, (n,)."""
        now, then = (self.logits(each) > self.threshold for each in (raw, before))
        return (now != then).double().mean(1)

    def gradient_target(self, raw: Any) -> Tensor:
        """Binary cross-entropy against the network's own answers."""
        logits = self.logits(raw)
        return F.binary_cross_entropy_with_logits(logits, (logits.detach() > self.threshold).to(logits))

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


def _targets(batch: Any) -> Tensor:
    return torch.as_tensor(batch[1])
