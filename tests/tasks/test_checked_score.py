"""A score as a user's own task gives it: plain numbers that its interval holds, or an error that says what is wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compress.core import Figure, TaskScore
from compress.errors import TaskError
from compress.tasks import Task

SHARE = Figure("mIoU", share=True)
LENGTH = Figure("distance", "px", higher=False)


class Scored(Task):
    """Scores what it is told."""

    name = "told"

    def __init__(self, figure: Figure, found: Any) -> None:
        self.kind, self.found = figure, found

    @property
    def figures(self) -> tuple[Figure, ...]:
        return (self.kind,)

    def score(self, model: nn.Module, batches: Any) -> Any:
        return self.found


def told(figure: Figure, *numbers: Any, images: Any = 7, rows: Any = None) -> TaskScore:
    return Scored(figure, {figure.name: TaskScore(*numbers, images, rows)}).scored(nn.Identity(), [])


@pytest.mark.parametrize("kind", [float, np.float32, np.float64, torch.tensor, lambda x: torch.tensor([x], requires_grad=True)])
def test_numbers_of_any_library_become_plain(kind: Any) -> None:
    found = told(LENGTH, kind(3.5), kind(3.25), kind(4.0))
    assert found == TaskScore(3.5, 3.25, 4.0, 7) and type(found.value) is float
    assert math.isnan(told(SHARE, kind(math.nan), kind(math.nan), kind(math.nan)).value), "of a network that was destroyed"


WRONG: list[tuple[Figure, Any, dict[str, Any], str]] = [
    (LENGTH, (None, None, None), {}, "distance as None"),
    (LENGTH, ("3", 2.0, 4.0), {}, "distance as '3'"),
    (LENGTH, (True, False, True), {}, "distance as True"),
    (LENGTH, (torch.tensor([3, 4]), 2.0, 4.0), {}, "numbers are wanted"),
    (LENGTH, (3.0, None, None), {}, "numbers are wanted"),
    (LENGTH, (3.0, math.nan, math.nan), {}, "interval from nan to nan does not hold"),
    (LENGTH, (3.0, 4.0, 2.0), {}, "3, which its interval from 4 to 2 does not hold"),
    (LENGTH, (3.0, 5.0, 6.0), {}, "3, which its interval from 5 to 6"),
    (SHARE, (96.7, 95.0, 98.0), {}, r"numbers in \[0, 1\] are wanted"),
    (LENGTH, (3.0, 2.0, 4.0), {"images": 0}, "on 0 images"),
    (LENGTH, (3.0, 2.0, 4.0), {"images": None}, "on None images"),
    (LENGTH, (3.0, 2.0, 4.0), {"rows": np.zeros((6, 1))}, "on 7 images, and rows of 6"),
]


@pytest.mark.parametrize(("figure", "numbers", "more", "said"), WRONG)
def test_what_is_no_score_is_named(figure: Figure, numbers: Any, more: dict[str, Any], said: str) -> None:
    with pytest.raises(TaskError, match=said) as caught:
        told(figure, *numbers, **more)
    assert "TaskScore" in caught.value.hint or "self.from_rows" in caught.value.hint or "images" in caught.value.hint


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({}, "scored nothing, wanted was mIoU"),
        ({"iou": 1.0}, "iou, wanted was mIoU"),
        ({"mIoU": 0.5}, "mIoU as a float"),
        (0.5, "float"),
    ],
)
def test_a_mapping_of_scores_is_wanted(found: Any, said: str) -> None:
    with pytest.raises(TaskError, match=said) as caught:
        Scored(SHARE, found).scored(nn.Identity(), [])
    assert "TaskScore(value, low, high, images)" in caught.value.hint
