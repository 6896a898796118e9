"""Which found boxes are right, image by image: what average precision is computed from, in a form that can be resampled.

The value of a score is torchmetrics'; this only says what it would be on other draws of the same images (COCO's matching:
Lin et al. 2014), and a test holds both equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats64 = NDArray[np.float64]
COCO_OVERLAPS: tuple[float, ...] = tuple(torch.linspace(0.5, 0.95, 10).tolist())
_RECALLS = np.array(torch.linspace(0.0, 1.0, 101).tolist())
"""COCO's thresholds, rounded to single precision, as torchmetrics has them."""
_HEAD = 2


def rows_of(
    found: Sequence[Mapping[str, Tensor]],
    truth: Sequence[Mapping[str, Tensor]],
    classes: int,
    most: int,
    overlaps: Sequence[float],
) -> Floats64:
    """One row an image: classes, thresholds; objects a class; and of every found box its class, score and, at each threshold,
    whether it is right (1), wrong (0) or neither (-1, where it lies on a crowd). What a row does not use is NaN.

    Args:
        found: dicts of ``boxes``, ``scores``, ``labels``.
        truth: dicts of ``boxes``, ``labels`` and, where there are crowds, ``iscrowd``.
        classes: labels are below it.
        most: boxes found in an image.
        overlaps: the least intersection over union of a right box.
    """
    rows = np.full((len(found), _HEAD + classes + most * (2 + len(overlaps))), np.nan)
    for row, said, known in zip(rows, found, truth, strict=True):
        row[:_HEAD] = classes, len(overlaps)
        labels = known["labels"].cpu().numpy()
        crowd = known["iscrowd"].cpu().numpy().astype(bool) if "iscrowd" in known else np.zeros(len(labels), bool)
        row[_HEAD : _HEAD + classes] = np.bincount(labels[~crowd], minlength=classes)[:classes]
        boxes, scores, named = (said[key].detach().cpu().double().numpy() for key in ("boxes", "scores", "labels"))
        table = row[_HEAD + classes :].reshape(most, 2 + len(overlaps))
        start = 0
        for label in np.unique(named):
            mine = np.flatnonzero(named == label)
            mine = mine[np.argsort(-scores[mine], kind="stable")][:100]
            own = labels == label
            matched = _matched(boxes[mine], known["boxes"].cpu().double().numpy()[own], crowd[own], overlaps)
            part = table[start : start + len(mine)]
            part[:, 0], part[:, 1], part[:, 2:] = label, scores[mine], matched
            start += len(mine)
    return rows


def _matched(found: Floats64, truth: Floats64, crowd: NDArray[np.bool_], overlaps: Sequence[float]) -> Floats64:
    """Found boxes, best first, against the objects: (found, thresholds) of 1, 0 and -1."""
    order = np.argsort(crowd, kind="stable")  # crowds last
    truth, crowd = truth[order], crowd[order]
    shared = _overlaps(found, truth, crowd)
    result = np.zeros((len(found), len(overlaps)))
    for column, least in enumerate(overlaps):
        taken = np.zeros(len(truth), bool)
        for i in range(len(found)):
            free = np.where(taken & ~crowd, -1.0, shared[i])
            for group, value in ((~crowd, 1.0), (crowd, -1.0)):
                allowed = np.where(group, free, -1.0)
                if len(allowed) and allowed.max() >= min(least, 1 - 1e-10):
                    best = len(allowed) - 1 - int(allowed[::-1].argmax())  # of equal ones COCO takes the last
                    taken[best], result[i, column] = True, value
                    break
    return result


def _overlaps(found: Floats64, truth: Floats64, crowd: NDArray[np.bool_]) -> Floats64:
    """Intersection over union, (found, truth); over the found box's own area where the object is a crowd."""
    low = np.maximum(found[:, None, :2], truth[None, :, :2])
    high = np.minimum(found[:, None, 2:], truth[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(2)
    mine, theirs = ((boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (found, truth))
    either = np.where(crowd[None], mine[:, None], mine[:, None] + theirs[None] - both)
    shared: Floats64 = both / np.maximum(either, 1e-12)
    return shared


def average_precision(rows: Floats64, columns: slice = slice(1)) -> float:
    """Mean over classes that occur, and over thresholds, of the precision at 101 recalls.

    Args:
        rows: of :func:`rows_of`; NaN is no found box.
        columns: the thresholds; by default the first.
    """
    if not len(rows):
        return 0.0
    classes, thresholds = int(rows[0, 0]), int(rows[0, 1])
    objects = rows[:, _HEAD : _HEAD + classes].sum(0)
    table = rows[:, _HEAD + classes :].reshape(-1, 2 + thresholds)
    table = table[~np.isnan(table[:, 0])]
    means = []
    for label in np.flatnonzero(objects > 0):
        mine = table[table[:, 0] == label]
        mine = mine[np.argsort(-mine[:, 1], kind="stable"), 2:][:, columns]
        means += [_of_one(column, float(objects[label])) for column in mine.T] if len(mine) else [0.0]
    return float(np.mean(means)) if means else 0.0


def _of_one(right: Floats64, objects: float) -> float:
    hit, miss = np.cumsum(right == 1), np.cumsum(right == 0)
    precision = hit / np.maximum(hit + miss, np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(hit / objects, _RECALLS, side="left")
    return float(np.where(place < len(precision), precision[np.minimum(place, len(precision) - 1)], 0.0).mean())
