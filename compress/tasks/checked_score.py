"""A score as a task gave it: is it a number, and does its interval hold it?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from numbers import Real
from typing import Any

from torch import Tensor

from compress.core import Figure, TaskScore
from compress.errors import TaskError

_MADE = "score() returns a mapping: the name of every figure -> TaskScore(value, low, high, images)"
_SLACK = 1e-6
"""Of an interval's ends, as a share of the value: single precision may round them to its other side."""


def checked_score(task: str, figure: Figure, found: Any) -> TaskScore:
    """The score of a figure out of what a task's ``score`` gave, its numbers as plain ones; NaN is a score.

    Args:
        task: its name.
        figure: that decides.
        found: the mapping.

    Raises:
        TaskError: the figure is missing, a value is no number, out of the figure's range or out of its own interval, or the
            numbers of images do not fit.
    """
    score = found.get(figure.name) if isinstance(found, Mapping) else None
    if not isinstance(score, TaskScore):
        if isinstance(found, Mapping) and figure.name in found:
            seen = f"{figure.name} as a {type(score).__name__}, a TaskScore was wanted"
        else:
            seen = (", ".join(map(str, found)) if isinstance(found, Mapping) else type(found).__name__) or "nothing"
            seen += f", wanted was {figure.name}"
        raise TaskError(f"the task {task} scored {seen}", hint=_MADE)
    numbers = [_plain(x) for x in (score.value, score.low, score.high)]
    value, low, high = (math.nan if x is None else x for x in numbers)
    wanted = "numbers in [0, 1]" if figure.share else "numbers"
    if None in numbers or (figure.share and not (math.isnan(value) or -1e-9 <= value <= 1 + 1e-9)):
        raise TaskError(
            f"the task {task} scored {figure.name} as {score.value!r} ({score.low!r} to {score.high!r}), {wanted} are wanted",
            hint=_MADE,
        )
    slack = _SLACK * max(1.0, abs(value)) if math.isfinite(value) else 0.0
    if math.isfinite(value) and not low - slack <= value <= high + slack:
        raise TaskError(
            f"the task {task} scored {figure.name} as {value:g}, which its interval from {low:g} to {high:g} does not hold",
            hint="give the ends of its 95 % interval; self.from_rows(rows) makes a score of what every image contributes",
        )
    _check_images(task, figure, score)
    return replace(score, value=value, low=low, high=high)


def _check_images(task: str, figure: Figure, score: TaskScore) -> None:
    """At least one image, and as many rows.

    Raises:
        TaskError: it is otherwise.
    """
    rows = score.images if score.per_image is None else len(score.per_image)
    if isinstance(score.images, bool) or not isinstance(score.images, int) or score.images < 1 or rows != score.images:
        held = "" if score.per_image is None else f", and rows of {rows}"
        raise TaskError(
            f"the task {task} scored {figure.name} on {score.images!r} images{held}: one or more, each with a row, are wanted",
            hint="count the images that score() was given; per_image has one row for each, or is left out",
        )


def _plain(value: Any) -> float | None:
    """As a float: of Python's, NumPy's and torch's numbers; None of anything else, and of truth values."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    single = isinstance(value, Tensor) and value.numel() == 1 and value.dtype.is_floating_point
    return float(value.detach() if single else value) if number or single else None
