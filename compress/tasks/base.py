"""The protocol of a task: one class, of which somebody with a task of their own overrides what it uses.

Everything that would otherwise believe that a network names classes asks here. What a task does not say stays unsaid: without
``score`` nothing is scored, and without ``decisions`` or ``change`` nothing is certified.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from compress.core import Figure, TaskScore
from compress.errors import TaskError
from compress.signature import bare, tensors
from compress.tasks.batches import arguments_in, moved
from compress.tasks.imitation import normalised_squared_error, projected


class Task:
    """What a network is for. A member that is not overridden is that of ``outputs``: nothing is known of the outputs.

    Attributes:
        name: for people, and in reports.
        names_one_label: every image gets one label, so that agreement bounds the loss of accuracy.
        bounds: what :meth:`change` bounds, as the subject of a sentence (``MAE rose``); empty where it bounds nothing.
    """

    name: ClassVar[str] = "outputs"
    names_one_label: ClassVar[bool] = False
    bounds: ClassVar[str] = ""

    @property
    def figures(self) -> tuple[Figure, ...]:
        """What it is scored by; the first one decides. Empty: nothing is scored."""
        return ()

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
        raise TaskError(f"the task {self.name} has no loss", hint="give it loss(raw, batch), or imitate only: --distill 1")

    def imitate(self, raw: Any, teacher: Any) -> Tensor:
        """How far the outputs are from the teacher's, a number: squared errors, each channel's over the teacher's spread."""
        return normalised_squared_error(self.outputs(raw), self.outputs(teacher))

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

    def decisions(self, raw: Any) -> Tensor | None:
        """The label that every image gets, (n,); None where it is not one label an image."""
        return None

    def change(self, raw: Any, before: Any) -> Tensor | None:
        """Per image (n,) by how much an answer differs from the unpruned network's, in the unit of the first figure.

        Without labels it bounds what :attr:`bounds` names; None where nothing is bounded.
        """
        return None

    def gradient_target(self, raw: Any) -> Tensor:
        """The number whose gradient the Taylor criterion takes; draws from torch's generator.

        The outputs over their spread, projected on normal noise: the gradient is a sample of the Gauss-Newton metric of their
        squared error.
        """
        return projected(self.outputs(raw))

    # ---- checking ----

    def check(self, raw: Any, batch: Any) -> None:
        """Looks at the answer to one batch before any long work.

        Raises:
            TaskError: outputs or targets are not what the task needs.
        """
        del raw, batch

    # ---- for all tasks alike ----

    @property
    def figure(self) -> Figure | None:
        """What decides; None where nothing is scored."""
        return self.figures[0] if self.figures else None

    def has(self, member: str) -> bool:
        """Whether the task has an optional member of its own: ``loss``, ``score``, ``decisions``, ``change``."""
        return getattr(type(self), member) is not getattr(Task, member)

    def answer(self, model: nn.Module, batch: Any) -> Any:
        """What a network answers to a batch, called as this task calls it."""
        args, kwargs = self.inputs(batch)
        return bare(model)(*args, **kwargs)

    def predicted(self, model: nn.Module, batches: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """(answer, batch) for each batch, without gradients, where the network is."""
        place = next(model.parameters(), torch.empty(0)).device
        for batch in batches:
            with torch.inference_mode():
                there = moved(batch, place)
                raw = self.answer(model, there)
            yield raw, there

    def scored(self, model: nn.Module, batches: Iterable[Any]) -> TaskScore:
        """The score by the figure that decides, looked at.

        Raises:
            TaskError: there is none, or it is no finite number.
        """
        figure = self.figure
        if figure is None:
            raise TaskError(f"the task {self.name} has no figure to be scored by", hint="give it figures and score()")
        found = self.score(model, batches)
        if figure.name not in found:
            raise TaskError(
                f"the task {self.name} scored {', '.join(found) or 'nothing'}, not {figure.name}",
                hint="score() returns a TaskScore for every figure's name",
            )
        return found[figure.name]
