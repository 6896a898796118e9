"""What networks answer about images: for scores, for comparisons in pairs, and for what can be bounded without targets."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from compress.core import (
    TOP1,
    Certificate,
    Difference,
    Figure,
    Right,
    TaskScore,
    bounded_mean,
    certificate,
    difference,
    finite_json,
    pooled_difference,
    read_json,
    write_json,
)
from compress.data import Data, Split, examples_in
from compress.errors import ConfigError, DataError, TaskError
from compress.evaluation.evaluator import Material, logits
from compress.networks import channels_last, frozen_copy
from compress.signature import bare
from compress.tasks import Task, cut_out, moved, per_image_error

MOST_IMAGES = 5_000
_BATCH = 64
AGREEMENT, OUTPUT_ERROR = Figure("agreement", share=True), Figure("output error", higher=False, share=True)
"""What networks are compared by where nothing scores them: against the unpruned one."""


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
        change: by how much their answers differ, as the task says (``Task.change``), (images asked about,).
    """

    split: Split
    change: NDArray[np.float64]

    @property
    def agree(self) -> Right:
        """Where they answer the same."""
        return np.equal(self.change, 0)


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


def unseen(data: Data, material: Material, scored: bool, *, decided: bool = False) -> tuple[tuple[Split, int], ...]:
    """The splits that hold images which played no part in a run, and how many at their beginning did.

    The test split belongs to them, as the first, only where nothing is scored: elsewhere it is kept for the final figure.

    Args:
        data: the run's images.
        material: those of the search.
        scored: there is a final figure on the test split.
        decided: the scores of all validation images took a recovery back, so that none of these images is unseen.
    """
    tests = () if scored else ((data.test, 0),)
    judged = len(data.validation) if decided else len(material.judged)
    parts = (*tests, (data.validation, judged), (data.calibration, len(material.calibration)))
    return tuple((split, used) for split, used in parts if len(split) > used)


def _both(before: nn.Module, after: nn.Module, task: Task, split: Split, skip: int, most: int) -> Iterator[tuple[Any, Any]]:
    """The answers of two networks to some images of a split, batch by batch: (before, after)."""
    from accelerate import Accelerator

    device = Accelerator().device
    networks = [bare(frozen_copy(m, device)) for m in (before, after)]
    seen = asked = 0
    for batch in split.batches(_BATCH):
        count = examples_in(batch)
        start, end = min(max(skip - seen, 0), count), min(count, max(skip - seen, 0) + most - asked)
        seen += count
        if start < end:
            args, kwargs = task.inputs(moved(cut_out(batch, slice(start, end)), device))
            with torch.inference_mode():
                one, other = (network(*args, **kwargs) for network in networks)
            asked += end - start
            yield one, other
        if asked >= most:
            return


def agreements(
    before: nn.Module, after: nn.Module, parts: Sequence[tuple[Split, int]], task: Task, *, most: int = MOST_IMAGES
) -> tuple[Agreement, ...]:
    """How much the answers of two networks differ, split by split; splits without readable images are left out.

    Args:
        before: the unpruned network.
        after: the pruned one.
        parts: splits and how many of their first images to leave out, from :func:`unseen`.
        task: what the networks are for; one that bounds nothing gives nothing.
        most: ask about so many images at the most.
    """
    found: list[Agreement] = []
    if task.bounded is None:
        return ()
    for split, used in parts:
        left = most - sum(len(a.change) for a in found)
        if left > 0:
            changes = [task.change(after_, before_) for before_, after_ in _both(before, after, task, split, used, left)]
            rows = [c.cpu().double().numpy() for c in changes if c is not None]
            found += [Agreement(split, np.concatenate(rows))] if rows else []
    return tuple(found)


def certify(found: Sequence[Agreement], task: Task) -> Certificate | None:
    """What two networks' differences say about what can have been lost; None where no image was asked about."""
    total = sum(len(a.change) for a in found)
    if not total or task.bounded is None:
        return None
    names = " and ".join(f"{len(a.change)} {a.split.name}" for a in found)
    source = f"{names} images that the run had not used"
    if task.names_one_label:
        return certificate(sum(int((~a.agree).sum()) for a in found), total, source, figure=task.bounded)
    changes = np.concatenate([a.change for a in found])
    if not np.isfinite(changes).all():
        return None
    mean, bound = float(changes.mean()), bounded_mean(changes, task.bounded.share)
    if task.root:
        mean, bound = math.sqrt(mean), math.sqrt(bound)
    return Certificate(images=total, disagree=None, bound=bound, source=source, figure=task.bounded, change=mean)


# ---- the file that comparisons read ----------------------------------------------------------------------------------

_FILE = "answers.json"
_WHENS = ("base", "final")


@dataclass(frozen=True)
class JudgedTest:
    """The unpruned (``base``) and the pruned network (``final``) on the test images.

    Attributes:
        figure: what they were judged by.
        one: what they were held against.
        values: of the figure.
        rows: what each image contributes, (images, k); empty where a figure has no such thing.
        scores: with their intervals; empty where they were held against the unpruned network.
    """

    figure: Figure
    one: str
    values: Mapping[str, float]
    rows: Mapping[str, NDArray[np.float64]]
    scores: Mapping[str, TaskScore] = field(default_factory=dict)


_LABEL, _UNPRUNED = "the label", "what the unpruned network says"


def on_test(before: nn.Module, after: nn.Module, test: Split, task: Task) -> JudgedTest:
    """Both networks by the task's figure.

    Raises:
        DataError: the images cannot be read, or some have no target.
    """
    from accelerate import Accelerator

    assert task.figure is not None
    device = Accelerator().device
    try:
        scores = {
            w: task.scored(frozen_copy(m, device), test.batches(_BATCH)) for w, m in zip(_WHENS, (before, after), strict=True)
        }
    except DataError as error:
        raise DataError(
            f"the test images cannot be judged: {error.message}", hint="give labelled images in test/ (or val/)"
        ) from error
    except TaskError as error:
        error.met_in("test")
        raise
    rows = {w: s.per_image for w, s in scores.items() if s.per_image is not None}
    one = _LABEL if task.names_one_label else "the target"
    return JudgedTest(
        figure=task.figure, one=one, values={w: float(s.value) for w, s in scores.items()}, rows=rows, scores=scores
    )


def paired_difference(
    task: Task, figure: Figure, ours: Sequence[NDArray[np.float64]], theirs: Sequence[NDArray[np.float64]]
) -> Difference:
    """How much more of a figure ours have than theirs, paired by image.

    Args:
        task: that judged them.
        figure: of the rows.
        ours: per seed, what each image contributes, (images, k).
        theirs: the same images in the same order.
    """
    if task.names_one_label:
        return difference([rows[:, 0] == 1 for rows in ours], [rows[:, 0] == 1 for rows in theirs])
    pool = task.pooled if figure == task.figure else Task().pooled
    return pooled_difference(ours, theirs, pool, higher=figure.higher, share=figure.share)


def change_of(judged: JudgedTest | None, task: Task) -> Difference | None:
    """What became of the figure, pruned minus unpruned; None where it is not computed from images with targets."""
    if judged is None or judged.one == _UNPRUNED or set(judged.rows) != set(_WHENS):
        return None
    base, final = (judged.rows[when] for when in _WHENS)
    if not len(base) or base.shape != final.shape:
        return None
    return paired_difference(task, judged.figure, [final], [base])


def blind(
    before: nn.Module, after: nn.Module, test: Split, task: Task, agreed: Sequence[Agreement] | None
) -> JudgedTest | None:
    """The same without targets: right is what the unpruned network says; None where no image can be read.

    Args:
        before: the unpruned network.
        after: the pruned one.
        test: images.
        task: one that names one label an image is judged by agreement, another one by how far its outputs are.
        agreed: of :func:`agreements`, where they are known: nothing is asked again.
    """
    if task.names_one_label:
        known = agreements(before, after, ((test, 0),), task) if agreed is None else agreed
        found = next((a.agree for a in known if a.split is test), None)
        if found is None:
            return None
        rows = {"base": np.ones((len(found), 1)), "final": found.astype(np.float64)[:, None]}
        return JudgedTest(figure=AGREEMENT, one=_UNPRUNED, values={w: float(r.mean()) for w, r in rows.items()}, rows=rows)
    pairs = _both(before, after, task, test, 0, MOST_IMAGES)
    errors = [per_image_error(task.outputs(after_), task.outputs(before_)).cpu().double().numpy() for before_, after_ in pairs]
    if not errors:
        return None
    final = np.concatenate(errors)[:, None]
    rows = {"base": np.zeros_like(final), "final": final}
    return JudgedTest(figure=OUTPUT_ERROR, one=_UNPRUNED, values={w: float(r.mean()) for w, r in rows.items()}, rows=rows)


def save_predictions(folder: Path, data: Data, found: JudgedTest | None) -> None:
    """Writes ``answers.json``: what each test image contributes, and what it was held against; right answers as 0 and 1."""
    kept: dict[str, Any] = {"split": data.test.digest, "one": _UNPRUNED if found is None else found.one}
    if found is None:
        kept["right"] = dict.fromkeys(_WHENS, "")
    elif (
        found.rows
        and all(r.shape[1] == 1 and bool(np.isin(r, (0, 1)).all()) for r in found.rows.values())
        and found.figure.share
    ):
        kept["right"] = {when: "".join("01"[int(r)] for r in rows[:, 0]) for when, rows in found.rows.items()}
    else:
        kept |= {"values": found.values, "rows": {when: rows.tolist() for when, rows in found.rows.items()}}
    if found is not None and found.figure != AGREEMENT:
        kept["figure"] = asdict(found.figure)
    write_json(folder / _FILE, finite_json(kept))


def read_predictions(folder: Path) -> JudgedTest | None:
    """What :func:`save_predictions` wrote; None where nothing readable was, or no image was judged."""
    try:
        kept = read_json(folder / _FILE, hint="start over with --fresh")
        one = str(kept["one"])
        figure = Figure(**kept["figure"]) if "figure" in kept else AGREEMENT if one == _UNPRUNED else TOP1
        if "right" in kept:
            bits = {w: np.frombuffer(kept["right"][w].encode(), dtype=np.uint8) == ord("1") for w in _WHENS}
            rows = {w: found.astype(np.float64)[:, None] for w, found in bits.items()}
            values = {w: float(found.mean()) if len(found) else math.nan for w, found in rows.items()}
        else:
            rows = {w: np.asarray(kept["rows"][w], dtype=np.float64).reshape(len(kept["rows"][w]), -1) for w in kept["rows"]}
            values = {w: float(kept["values"][w]) for w in _WHENS}
    except (ConfigError, KeyError, TypeError, AttributeError, ValueError):
        return None
    empty = bool(rows) and not all(len(r) for r in rows.values())
    return None if empty else JudgedTest(figure=figure, one=one, values=values, rows=rows)
