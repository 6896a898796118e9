"""Numbers: ages, angles, places of landmarks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from compress.core import Figure, TaskScore
from compress.errors import TaskError
from compress.signature import first_tensor
from compress.tasks.base import Task
from compress.tasks.imitation import spread


@dataclass(frozen=True)
class Regression(Task):
    """One or more numbers an image, (images,) or (images, numbers).

    Attributes:
        unit: of the numbers, in reports.
        metric: ``MAE`` or ``RMSE``, over all numbers of all images.
    """

    unit: str = ""
    metric: Literal["MAE", "RMSE"] = "MAE"

    name: ClassVar[str] = "regression"
    targets: ClassVar[tuple[str, ...]] = ("values",)

    @property
    def figures(self) -> tuple[Figure, ...]:
        """The metric, lower is better."""
        return (Figure(self.metric, self.unit, higher=False),)

    @property
    def bounded(self) -> Figure:
        """The metric: by the triangle inequality its rise is at most what the answers changed by."""
        return self.figures[0]

    @property
    def root(self) -> bool:
        """The RMSE's is the root of the mean square."""
        return self.metric == "RMSE"

    def values(self, raw: Any) -> Tensor:
        """(n, numbers)."""
        first = first_tensor(raw)
        return first.reshape(len(first), -1)

    def loss(self, raw: Any, batch: Any) -> Tensor:
        """Absolute errors, or for RMSE squares that become lines beyond one deviation (Huber's); each number's over its spread.

        Over the spread in the batch, so that pixels weigh no more than degrees.
        """
        values = self.values(raw).float()
        targets = _targets(batch).to(values)
        off = (values - targets) / spread(targets).sqrt()
        return F.smooth_l1_loss(off, torch.zeros_like(off), beta=1.0 if self.root else 0.0)

    def score(self, model: nn.Module, batches: Iterable[Any]) -> Mapping[str, TaskScore]:
        """The metric, its interval over images."""
        rows = []
        for raw, batch in self.predicted(model, batches):
            off = self.values(raw).double() - _targets(batch).to(self.values(raw)).double()
            rows.append((off.square() if self.root else off.abs()).mean(1).cpu())
        return {self.metric: self.from_rows(torch.cat(rows).numpy()[:, None])}

    def pooled(self, rows: NDArray[np.float64]) -> float:
        """The mean, or the root of the mean square."""
        mean = float(rows.mean())
        return mean**0.5 if self.root else mean

    def change(self, raw: Any, before: Any) -> Tensor:
        """Mean absolute, or mean square, difference of the two answers, (n,)."""
        off = self.values(raw).double() - self.values(before).double()
        return (off.square() if self.root else off.abs()).mean(1)

    def check(self, raw: Any, batch: Any) -> None:
        """As many targets as numbers, all finite."""
        values, targets = self.values(raw), _targets(batch)
        if targets.shape != values.shape or not bool(targets.isfinite().all()):
            raise TaskError(
                f"the targets are {tuple(targets.shape)}, the network returns {tuple(values.shape)}"
                if targets.shape != values.shape
                else "the targets hold values that are not finite",
                hint="give as many finite numbers an image as the network returns",
            )


def _targets(batch: Any) -> Tensor:
    found = torch.as_tensor(batch[1])
    return found.reshape(len(found), -1)
