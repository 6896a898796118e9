"""Tasks by name, and tasks of the user's own."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from compress.core import Figure, TaskScore
from compress.errors import ConfigError
from compress.tasks import TASKS, Task, task_named, task_of


@pytest.mark.parametrize("name", TASKS)
def test_a_built_in_task_is_made_from_its_name(name: str) -> None:
    task = task_named(name)
    assert task.name == name and bool(task.figures) == task.has("score")
    assert task_of(task) is task and task_of(type(task)) == task


@pytest.mark.parametrize(
    "text", ["clasification", "outputs:unit=px", "classification:temperature=warm", "no.such.module:Task", "a b"]
)
def test_other_names_are_refused_with_a_cure(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        task_named(text)
    assert caught.value.hint


def test_values_stand_behind_a_colon() -> None:
    assert task_named("classification:temperature=2").temperature == 2.0


class Landmarks:
    """Derives from nothing: what it does not say is that of ``outputs``."""

    figures = (Figure("distance", "px", higher=False),)

    def score(self, model, batches):
        return {"distance": TaskScore(1.0, 1.0, 1.0, 1)}


def test_an_object_with_some_members_becomes_a_task() -> None:
    task = task_of(Landmarks)
    assert isinstance(task, Task) and task.name == "Landmarks" and task.has("score") and not task.has("loss")
    assert task.answer(nn.Identity(), (torch.ones(2, 3), torch.zeros(2))).shape == (2, 3)


@dataclass
class Half:
    figures: tuple = (Figure("mIoU"),)


@pytest.mark.parametrize("given", [7, object(), Half(), nn.Identity()])
def test_what_is_no_task_is_refused(given: object) -> None:
    with pytest.raises(ConfigError):
        task_of(given)
