"""What networks say about images, one class an image: for paired comparisons and for agreement without labels."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from compress.core import Certificate, Right, certificate, read_json, write_json
from compress.data import Data, Split
from compress.errors import ConfigError, DataError
from compress.evaluation.evaluator import Material, logits
from compress.networks import channels_last

MOST_IMAGES = 5_000


@dataclass(frozen=True)
class Predictions:
    """One network's classes for the readable images of a split, in the split's order.

    Attributes:
        classes: highest logit, (images,).
        labels: the true ones, -1 where unknown, (images,).
    """

    classes: NDArray[np.int64]
    labels: NDArray[np.int64]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Where the predicted class is the label, (images,)."""
        return np.equal(self.classes, self.labels)


@dataclass(frozen=True)
class Agreement:
    """Two networks on one split.

    Attributes:
        split: the images.
        agree: where both name the same class, (images asked about,).
    """

    split: Split
    agree: Right


def predict(model: nn.Module, split: Split, *, skip: int = 0, most: int | None = None, batch: int = 256) -> Predictions:
    """Asks a network about a split.

    Args:
        model: left as it is.
        split: images.
        skip: leave out so many readable images at the split's beginning.
        most: ask about so many at the most.
        batch: images at a time.
    """
    from accelerate import Accelerator

    device = Accelerator().device  # as in training and in compress.recovery.accuracy
    judge = channels_last(copy.deepcopy(model).float().to(device)).eval()
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
    return Predictions(np.concatenate(classes), np.concatenate(labels))


def unseen(data: Data, material: Material, *, decided: bool = False) -> tuple[tuple[Split, int], ...]:
    """The splits that hold images which played no part in a run, and how many at their beginning did.

    The test split belongs to them, as the first, only where there are no labels: elsewhere it is kept for the final figure.

    Args:
        data: the run's images.
        material: those of the search.
        decided: the labels of all validation images took a recovery back, so that none of these images is unseen.
    """
    tests = () if data.labelled else ((data.test, 0),)
    judged = len(data.validation) if decided else len(material.judged)
    parts = (*tests, (data.validation, judged), (data.calibration, len(material.calibration)))
    return tuple((split, used) for split, used in parts if len(split) > used)


def agreements(
    before: nn.Module, after: nn.Module, parts: Sequence[tuple[Split, int]], *, most: int = MOST_IMAGES
) -> tuple[Agreement, ...]:
    """Where two networks agree, split by split; splits without readable images are left out.

    Args:
        before: the unpruned network.
        after: the pruned one.
        parts: splits and how many of their first images to leave out, from :func:`unseen`.
        most: ask about so many images at the most.
    """
    found: list[Agreement] = []
    with torch.inference_mode():
        for split, used in parts:
            left = most - sum(len(a.agree) for a in found)
            if left > 0:
                ours, theirs = (predict(m, split, skip=used, most=left).classes for m in (before, after))
                found += [Agreement(split, np.equal(ours, theirs))] if len(ours) else []
    return tuple(found)


def certify(found: Sequence[Agreement]) -> Certificate | None:
    """What two networks' disagreement says about the accuracy that can have been lost; None where no image was asked about."""
    total, disagree = sum(len(a.agree) for a in found), sum(int((~a.agree).sum()) for a in found)
    names = " and ".join(f"{len(a.agree)} {a.split.name}" for a in found)
    return certificate(disagree, total, f"{names} images that the run had not used") if total else None


# ---- the file that comparisons read ----------------------------------------------------------------------------------

_FILE = "answers.json"


def on_test(before: nn.Module, after: nn.Module, test: Split) -> dict[str, Right]:
    """Which test images the unpruned (``base``) and the pruned network (``final``) answer rightly.

    Raises:
        DataError: they cannot be read, or some have no label.
    """
    said = {"base": predict(before, test), "final": predict(after, test)}
    if any(not len(a.labels) or int(a.labels.min()) < 0 for a in said.values()):
        raise DataError("the test images cannot be read or have no labels", hint="give labelled images in test/ (or val/)")
    return {when: found.right for when, found in said.items()}


def blind(agreed: Sequence[Agreement], test: Split) -> dict[str, Right]:
    """The same without labels: right is what the unpruned network says; of :func:`agreements`, nothing is asked again."""
    found = next((a.agree for a in agreed if a.split is test), np.zeros(0, np.bool_))
    return {"base": np.ones_like(found), "final": found}


def save_predictions(folder: Path, data: Data, right: Mapping[str, Right]) -> None:
    """Writes ``answers.json``: a 0 or 1 for each test image, and what 1 means."""
    bits = {when: "".join("01"[int(r)] for r in found) for when, found in right.items()}
    means = "the label" if data.labelled else "what the unpruned network says"
    write_json(folder / _FILE, {"split": data.test.digest, "one": means, "right": bits})


def read_predictions(folder: Path) -> dict[str, Right]:
    """What :func:`save_predictions` wrote; empty where nothing readable was, or no image was judged."""
    try:
        kept = read_json(folder / _FILE, hint="start over with --fresh")["right"]
        right = {when: np.frombuffer(kept[when].encode(), dtype=np.uint8) == ord("1") for when in ("base", "final")}
    except (ConfigError, KeyError, TypeError, AttributeError):
        return {}
    return right if len(right["final"]) else {}
