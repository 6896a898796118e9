"""What a file in fewer bits loses, in the words of the network's task: its figure, else how much answers changed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.core import Difference, Figure, TaskScore, pooled_difference
from compress.data import Split, examples_in
from compress.export.interface import read_interface
from compress.runtime import Array, OrtRuntime
from compress.tasks import Task, per_image_error

OUTPUT_ERROR = Figure("output error", higher=False, share=True)
"""Mean squared difference from fp32's outputs, each channel's over its variance: what a task without a figure is held to."""
_BATCH = 64
_MOST = 2**26
"""Numbers of the answers that are held at once."""


class _InSession(nn.Module):
    """A file's session as a module: one tensor where the file has one output, else a mapping of them."""

    def __init__(self, session: Any, names: tuple[str, ...]) -> None:
        super().__init__()
        self.session, self.names = session, names

    def forward(self, images: Tensor) -> Any:
        found = [torch.from_numpy(np.asarray(part)) for part in self.session.run(np.ascontiguousarray(images.numpy()))]
        return found[0] if len(found) == 1 else dict(zip(self.names, found, strict=True))


@dataclass(frozen=True)
class FileJudge:
    """How files of one network are judged.

    Attributes:
        task: what the network is for.
        split: images.
        limit: only so many of them; None is all.
    """

    task: Task
    split: Split
    limit: int | None = None

    @property
    def scored(self) -> bool:
        """Whether the images have what the task is scored on."""
        return self.task.figure is not None and self.split.target_kind in self.task.targets

    @property
    def figure(self) -> Figure:
        """What a loss is told in: the task's figure, what changes of its answers bound, or the outputs' error."""
        if self.scored:
            assert self.task.figure is not None
            return self.task.figure
        return self.task.bounded or OUTPUT_ERROR

    def score(self, path: Path) -> TaskScore:
        """The file's own figure."""
        with OrtRuntime(threads=None).load(path) as session:
            return self.task.scored(_InSession(session, _names(path)), self._batches())

    def loss(self, source: Path, path: Path, base: TaskScore | None = None) -> float:
        """What a file loses against fp32, a fraction or in the figure's unit; infinite where its outputs are not finite.

        Args:
            source: the fp32 file.
            path: the other one.
            base: the fp32 file's score, where it is known.
        """
        if self.scored:
            lost = self.figure.worse((base or self.score(source)).value, self.score(path).value)
            return lost if math.isfinite(lost) else math.inf
        mean = float(np.mean(self.changes(source, path)))
        found = math.sqrt(mean) if self.task.bounded is not None and self.task.root else mean
        return found if math.isfinite(found) else math.inf

    def changes(self, source: Path, path: Path) -> Array:
        """Per image by how much the answers differ, as the task bounds it, else the outputs' error."""
        rows = []
        with OrtRuntime(threads=None).load(source) as one, OrtRuntime(threads=None).load(path) as other:
            before, after = (_InSession(s, _names(p)) for s, p in ((one, source), (other, path)))
            for batch in self._batches():
                (images, *_), _ = self.task.inputs(batch)
                was, now = before(images), after(images)
                change = self.task.change(now, was) if self.task.bounded is not None else None
                if change is None:
                    change = per_image_error(self.task.outputs(now), self.task.outputs(was))
                rows.append(change.double().numpy())
        return np.concatenate(rows)

    def outputs(self, path: Path) -> Array:
        """The first output of the images, (n, numbers), of as many as memory allows."""
        rows, held = [], 0
        with OrtRuntime(threads=None).load(path) as session:
            for batch in self._batches():
                (images, *_), _ = self.task.inputs(batch)
                first = np.asarray(session.run(np.ascontiguousarray(images.numpy()))[0])
                rows.append(first.reshape(len(first), -1))
                held += first.size
                if held > _MOST:
                    break
        return np.concatenate(rows)

    def _batches(self) -> Iterator[Any]:
        left = self.limit
        for batch in self.split.batches(_BATCH, limit=self.limit):
            yield batch
            left = None if left is None else left - examples_in(batch)
            if left is not None and left <= 0:
                return


def paired_loss(task: Task, before: TaskScore, after: TaskScore) -> Difference:
    """What was lost, with its interval, paired by image where the figure is computed from images; more is worse."""
    figure = task.figure
    assert figure is not None
    if before.per_image is not None and after.per_image is not None:
        ours, theirs = (before, after) if figure.higher else (after, before)
        assert ours.per_image is not None and theirs.per_image is not None
        return pooled_difference([ours.per_image], [theirs.per_image], task.pooled, share=figure.share)
    lost = figure.worse(before.value, after.value)
    return Difference(mean=lost, low=-math.inf, high=math.inf, images=after.images, seeds=1)


def _names(path: Path) -> tuple[str, ...]:
    return tuple(port.name for port in read_interface(path).outputs)
