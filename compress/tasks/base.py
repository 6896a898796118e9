"""The protocol of a task: one class, of which somebody with a task of their own overrides what it uses.

Everything that would otherwise believe that a network names classes asks here. What a task does not say stays unsaid: without
``score`` nothing is scored, and without ``change`` nothing is certified.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from compress.core import Figure, TaskScore, mean_interval, resampled, share_interval
from compress.errors import TaskError
from compress.signature import bare, tensors
from compress.tasks.batches import arguments_in, moved
from compress.tasks.checked_score import checked_score
from compress.tasks.imitation import imitation_loss, projected

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Task:
    """What a network is for. A member that is not overridden is that of ``outputs``: nothing is known of the outputs.

    Attributes:
        name: for people, and in reports.
        targets: kinds of targets that it is scored and trained on: of ``compress.data``, ``classes``, ``values``, ``masks``,
            ``images``, ``boxes``; ``own`` is whatever a user's loader gives.
        names_one_label: every image gets one label, so that a changed label is all that can change.
        logit_per_class: its one output is a row of logits, one for each class of the images.
        images_that_tell: below so many labelled images, candidates are told apart by their outputs instead.
    """

    name: ClassVar[str] = "outputs"
    targets: ClassVar[tuple[str, ...]] = ("classes", "values", "masks", "images", "boxes", "own")
    names_one_label: ClassVar[bool] = False
    logit_per_class: ClassVar[bool] = False
    images_that_tell: ClassVar[int] = 32

    @property
    def figures(self) -> tuple[Figure, ...]:
        """What it is scored by; the first one decides. Empty: nothing is scored."""
        return ()

    @property
    def bounded(self) -> Figure | None:
        """What :meth:`change` bounds without labels; None: nothing is."""
        return None

    @property
    def root(self) -> bool:
        """Whether it is bounded by the root of the mean of changes."""
        return False

    # ---- calling ----

    def inputs(self, batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What the network is called with: of ``(inputs, targets)`` the inputs."""
        return arguments_in(batch)

    def outputs(self, raw: Any) -> Mapping[str, Tensor]:
        """The network's answer as named tensors."""
        return tensors(raw)

    # ---- training ----

    def loss(self, raw: Any, batch: Any) -> Tensor:
        """What training minimises, a number that depends on the network.

        Raises:
            TaskError: the task has none.
        """
        raise TaskError(f"the task {self.name} has no loss", hint="give it loss(raw, batch), or leave --no-distill out")

    def imitate(self, raw: Any, teacher: Any) -> Tensor:
        """How far the outputs are from the teacher's, a number: each channel's differences over the teacher's spread."""
        return imitation_loss(self.outputs(raw), self.outputs(teacher))

    # ---- judging ----

    def score(self, model: nn.Module, batches: Iterable[Any]) -> Mapping[str, TaskScore]:
        """Every figure by its name.

        Args:
            model: in evaluation mode; ``predicted`` calls it.
            batches: images with their targets.

        Raises:
            TaskError: the task has none.
        """
        raise TaskError(f"the task {self.name} has no score", hint="give it score(model, batches) and figures")

    def pooled(self, rows: NDArray[np.float64]) -> float:
        """The first figure of what images contribute, (images, k): their mean, where it is one number an image."""
        return float(rows.mean())

    def decisions(self, raw: Any) -> Tensor | None:
        """The label that every image gets, (n,); None where it is not one label an image."""
        return None

    def change(self, raw: Any, before: Any) -> Tensor | None:
        """Per image (n,) by how much an answer differs from the unpruned one: its mean bounds the loss of :attr:`bounded`.

        Where every image gets one label: whether it is another one. None where nothing is bounded.
        """
        now, then = self.decisions(raw), self.decisions(before)
        return None if now is None or then is None else (now != then).double()

    def gradient_target(self, raw: Any) -> Tensor:
        """The number whose gradient the Taylor criterion takes; draws from torch's generator.

        The outputs over their spread, projected on normal noise: the gradient is a sample of the Gauss-Newton metric of their
        squared error.
        """
        return projected(self.outputs(raw))

    def chance(self, classes: int) -> float | None:
        """What a network without knowledge reaches of the first figure; None where nobody can say.

        Args:
            classes: that the images have; 0 where they have none.
        """
        del classes
        return None

    # ---- checking ----

    def check(self, raw: Any, batch: Any) -> None:
        """Looks at the answer to a batch: to the first one before any long work, to every one that is scored or trained on.

        Args:
            raw: the answer.
            batch: with targets of one of :attr:`targets`.

        Raises:
            TaskError: outputs or targets are not what the task needs.
        """
        del raw, batch

    def check_step(self, raw: Any, teacher: Any, batch: Any, share: float) -> None:
        """Looks at one step of a training; ``share`` is the weight of imitation, ``teacher`` its answer or None.

        Raises:
            TaskError: targets that are learnt from are not what the task needs.
            TrainError: there is nothing to learn from.
        """
        if teacher is None or share < 1:
            self.check(raw, batch)

    # ---- for all tasks alike ----

    @property
    def figure(self) -> Figure | None:
        """What decides; None where nothing is scored."""
        return self.figures[0] if self.figures else None

    @property
    def spec(self) -> str:
        """What names it again: of a built-in task its name and the values that are not usual, else where its class is."""
        kind = type(self)
        if not kind.__module__.startswith(f"{__package__}."):
            return f"{kind.__module__}:{kind.__qualname__}"
        known: tuple[Any, ...] = fields(self) if is_dataclass(self) else ()
        told = ",".join(f"{f.name}={value}" for f in known if (value := getattr(self, f.name)) != f.default)
        return f"{self.name}:{told}" if told else self.name

    def has(self, member: str) -> bool:
        """Whether the task has an optional member of its own: ``loss``, ``score``, ``change``."""
        return getattr(type(self), member) is not getattr(Task, member)

    def answer(self, model: nn.Module, batch: Any) -> Any:
        """What a network answers to a batch, called as this task calls it."""
        args, kwargs = self.inputs(batch)
        return bare(model)(*args, **kwargs)

    def predicted(self, model: nn.Module, batches: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """(answer, batch) for each batch, without gradients, where the network is; each one is looked at by :meth:`check`."""
        place = next(model.parameters(), torch.empty(0)).device
        for batch in batches:
            with torch.inference_mode():
                there = moved(batch, place)
                raw = self.answer(model, there)
            self.check(raw, there)  # a target that cannot be would be a figure that is not true
            yield raw, there

    def scored(self, model: nn.Module, batches: Iterable[Any]) -> TaskScore:
        """The score by the figure that decides, looked at; NaN is a score: of a network that was destroyed.

        Raises:
            TaskError: there is none, or it is no number.
        """
        figure = self.figure
        if figure is None:
            raise TaskError(f"the task {self.name} has no figure to be scored by", hint="give it figures and score()")
        return checked_score(self.name, figure, self.score(model, batches))

    def error(self, model: nn.Module, batches: Iterable[Any], base: float) -> float:
        """What a search minimises: see :meth:`compress.core.Figure.error`.

        Args:
            model: a candidate.
            batches: images with their targets.
            base: the unpruned network's value on the same images.
        """
        score, figure = self.scored(model, batches), self.figure
        assert figure is not None
        return figure.error(float(score.value), base)

    def from_rows(self, rows: NDArray[np.float64]) -> TaskScore:
        """A score of the first figure from what images contribute, (images, k), with its interval over the images."""
        value = self.pooled(rows)
        plain = type(self).pooled is Task.pooled
        low, high = mean_interval(rows.reshape(-1)) if plain else resampled(rows, self.pooled)
        if self.figure is not None and self.figure.share:
            low, high = share_interval(low, high, len(rows))
        return TaskScore(value=value, low=low, high=high, images=len(rows), per_image=rows)
