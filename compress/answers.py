"""What networks say about images, one answer an image: for paired comparisons and for agreement without labels."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import nn

from compress.certificate import Certificate, certificate
from compress.data import Data, Split
from compress.evaluate import Material, logits

MOST_IMAGES = 5_000


@dataclass(frozen=True)
class Answers:
    """One network's classes for the readable images of a split, in the split's order.

    Attributes:
        classes: highest logit, (images,).
        labels: the true ones, -1 where unknown, (images,).
    """

    classes: NDArray[np.int64]
    labels: NDArray[np.int64]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Where the answer is the label, (images,)."""
        return np.equal(self.classes, self.labels)


def answers(model: nn.Module, split: Split, *, skip: int = 0, most: int | None = None, batch: int = 256) -> Answers:
    """Asks a network about a split.

    Args:
        model: left as it is.
        split: images.
        skip: leave out so many readable images at the split's beginning.
        most: ask about so many at the most.
        batch: images at a time.
    """
    device = Accelerator().device  # as in training and in train.accuracy
    judge = copy.deepcopy(model).float().to(device).to(memory_format=torch.channels_last).eval()
    classes, labels = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    seen = asked = 0
    for images, truth in split.batches(batch):
        start = min(max(skip - seen, 0), len(images))
        end = len(images) if most is None else min(len(images), start + most - asked)
        seen += len(images)
        if start < end:
            classes.append(logits(judge, images[start:end].to(device)).argmax(dim=1).cpu().numpy())
            labels.append(truth[start:end].cpu().numpy())
            asked += end - start
        if most is not None and asked >= most:
            break
    return Answers(np.concatenate(classes), np.concatenate(labels))


def unseen(data: Data, material: Material) -> tuple[tuple[Split, int], ...]:
    """The splits that hold images which played no part in a run, and how many at their beginning did.

    The test split belongs to them only where there are no labels: elsewhere it is kept for the final figure.
    """
    parts = [(data.validation, len(material.judged)), (data.calibration, len(material.calibration))]
    if not data.labelled:
        parts.append((data.test, 0))
    return tuple((split, used) for split, used in parts if len(split) > used)


def certify(
    before: nn.Module, after: nn.Module, parts: Sequence[tuple[Split, int]], *, most: int = MOST_IMAGES
) -> Certificate | None:
    """Counts on how many images two networks disagree, and what that says about the accuracy that can have been lost.

    Args:
        before: the unpruned network.
        after: the pruned one.
        parts: splits and how many of their first images to leave out, from :func:`unseen`.
        most: ask about so many images at the most.

    Returns:
        None where no image is left to ask about.
    """
    total = disagree = 0
    names = []
    with torch.inference_mode():
        for split, used in parts:
            left = most - total
            if left <= 0:
                break
            ours, theirs = (answers(m, split, skip=used, most=left).classes for m in (before, after))
            if len(ours):
                total, disagree = total + len(ours), disagree + int((ours != theirs).sum())
                names.append(f"{len(ours)} {split.name}")
    return certificate(disagree, total, f"{' and '.join(names)} images that the run had not used") if total else None
