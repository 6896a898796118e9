"""What a user's batches hold: how many examples, which kind of targets; and whether those can be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from compress.core import plural
from compress.data.preprocessing import Preprocessing
from compress.data.targets import TargetKind
from compress.errors import DataError


def paired(batch: Any) -> tuple[Any, Any] | None:
    """(inputs, targets), where a batch is two things."""
    return (batch[0], batch[1]) if isinstance(batch, (tuple, list)) and len(batch) == 2 else None


def with_boxes(sample: Any) -> bool:
    """Whether an example is an image with a dict of boxes."""
    pair = paired(sample)
    return pair is not None and isinstance(pair[1], Mapping) and "boxes" in pair[1]


def collate(samples: list[Any]) -> Any:
    """Examples as a batch: images stacked and their boxes in a list; everything else as torch does it."""
    from torch.utils.data import default_collate

    if all(with_boxes(sample) for sample in samples):
        return regular(([x for x, _ in samples], [target for _, target in samples]))
    return default_collate(samples)


def regular(batch: Any) -> Any:
    """A batch as ours are: lists of images and of dicts, as torchvision's references make them, as one tensor and a list.

    Raises:
        DataError: the images have different sizes.
    """
    pair = paired(batch)
    if pair is None or not all(isinstance(part, (tuple, list)) for part in pair) or not pair[1]:
        return batch
    images, targets = pair
    if not all(isinstance(t, Mapping) for t in targets) or not all(isinstance(x, Tensor) and x.dim() == 3 for x in images):
        return batch
    sizes = {tuple(x.shape) for x in images}
    if len(sizes) > 1:
        raise DataError(
            f"a batch holds images of different sizes: {sorted(sizes)[:3]}",
            hint="resize them (and their boxes) to one size: networks are cut, clocked and exported at one",
        )
    return torch.stack(list(images)), list(targets)


def examples_in(batch: Any) -> int:
    """How many examples a batch holds.

    Raises:
        DataError: it holds no tensor.
    """
    pair = paired(batch)
    listed = pair is not None and all(isinstance(part, (tuple, list)) for part in pair)
    if pair is not None and listed and len(pair[0]) == len(pair[1]) and all(isinstance(t, Mapping) for t in pair[1]):
        return len(pair[1])
    for leaf in tree_leaves(batch):
        if isinstance(leaf, Tensor) and leaf.dim() > 0:
            return len(leaf)
    raise DataError(
        f"a batch of type {type(batch).__name__} holds no tensor",
        hint="give batches of tensors in any structure, as (inputs, targets) where there are targets",
    )


def kind_of(batch: Any) -> TargetKind:
    """What the targets of a batch are; ``own`` where it is none of ours, ``none`` without targets or with labels of -1."""
    pair = paired(batch)
    if pair is None:
        return "none" if isinstance(batch, Tensor) else "own"
    targets = pair[1]
    if isinstance(targets, list) and targets and all(isinstance(t, Mapping) and "boxes" in t for t in targets):
        return "boxes"
    if not isinstance(targets, Tensor):
        return "own"
    if targets.is_floating_point():
        return "values" if targets.dim() < 3 else "images" if targets.dim() == 4 else "own"
    if targets.dim() == 1:
        return "none" if len(targets) and bool((targets == -1).all()) else "classes"
    return "values" if targets.dim() == 2 else "masks" if targets.dim() == 3 else "own"


def check_batch(batch: Any, kind: TargetKind, classes: int, where: str) -> None:
    """Looks at one batch before any work.

    Args:
        batch: the first of a split.
        kind: of its targets.
        classes: names that are known; 0 for none.
        where: the split's name.

    Raises:
        DataError: inputs or targets of the wrong type, size or range.
    """
    pair = paired(batch)
    inputs, targets = pair if pair is not None else (batch, None)
    for leaf in tree_leaves(inputs):
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and not bool(leaf.isfinite().all()):
            raise DataError(f"{where}: the inputs hold values that are not finite", hint="look at what the dataset returns")
    if isinstance(targets, Tensor):
        _check_tensor(targets, kind, classes, where)
        if isinstance(inputs, Tensor) and len(inputs) != len(targets):
            raise DataError(
                f"{where}: {plural(len(inputs), 'input')} and {plural(len(targets), 'target')} in a batch",
                hint="give one an input",
            )
        if kind == "masks" and isinstance(inputs, Tensor) and inputs.dim() == 4 and targets.shape[1:] != inputs.shape[2:]:
            raise DataError(
                f"{where}: masks are {tuple(targets.shape[1:])}, their images {tuple(inputs.shape[2:])}",
                hint="give masks of the images' own size",
            )
    if kind == "boxes":
        for target in targets or ():
            check_boxes(target, inputs.shape[-2:] if isinstance(inputs, Tensor) else None, classes, where)


def _check_tensor(targets: Tensor, kind: TargetKind, classes: int, where: str) -> None:
    if targets.is_floating_point() and not bool(targets.isfinite().all()):
        raise DataError(f"{where}: the targets hold values that are not finite", hint="look at what the dataset returns")
    if kind not in ("classes", "masks") or not targets.numel():
        return
    known = targets[targets != 255] if kind == "masks" else targets
    low, high = (int(known.min()), int(known.max())) if known.numel() else (0, 0)
    beyond = classes and high > classes - (kind == "classes")
    if low < 0 or beyond:
        named = f"; {classes} classes are named, 0 to {classes - 1}" if classes else ""
        raise DataError(
            f"{where}: the targets run from {low} to {high}{named}",
            hint="number classes from 0" + (", and what is to be ignored 255" if kind == "masks" else ""),
        )


def check_boxes(target: Mapping[str, Any], size: Any, classes: int, where: str) -> None:
    """Looks at the boxes of one image.

    Args:
        target: a dict of ``boxes`` (k, 4) and ``labels`` (k,), as torchvision wants them.
        size: the image's height and width, where known.
        classes: names that are known, the background's among them; 0 for none.
        where: what to call it.

    Raises:
        DataError: other types or shapes, a box out of the image or without an area, a label that has no name.
    """
    boxes, labels = target.get("boxes"), target.get("labels")
    right = isinstance(boxes, Tensor) and isinstance(labels, Tensor) and boxes.is_floating_point()
    if not right or boxes.dim() != 2 or boxes.shape[1] != 4 or labels.shape != boxes.shape[:1] or labels.is_floating_point():  # type: ignore[union-attr]
        said = {k: (tuple(v.shape), str(v.dtype)) if isinstance(v, Tensor) else type(v).__name__ for k, v in target.items()}
        raise DataError(
            f"{where}: a target of boxes holds {said}",
            hint="give boxes float (k, 4): left, top, right, bottom in pixels, and labels int64 (k,) from 1",
        )
    if not len(boxes):  # type: ignore[arg-type]
        return
    found = boxes.detach().double().cpu().numpy()  # type: ignore[union-attr]
    width, height = (float(size[1]), float(size[0])) if size is not None else (np.inf, np.inf)
    out = ~((found >= -1) & (found <= np.array([width, height, width, height]) + 1)).all(axis=1)
    flat = (found[:, 2] <= found[:, 0]) | (found[:, 3] <= found[:, 1])
    for wrong, how in ((out, f"stands out of its image of {width:g} x {height:g}"), (flat, "has no area")):
        if wrong.any():
            box = ", ".join(f"{v:g}" for v in found[wrong][0])
            raise DataError(
                f"{where}: a box {how}: {box}",
                hint="give left, top, right, bottom in pixels of the image that the dataset returns",
            )
    low, high = int(labels.min()), int(labels.max())  # type: ignore[union-attr]
    if low < 0 or (classes and high >= classes):
        raise DataError(
            f"{where}: labels of boxes run from {low} to {high}; {classes or 'no'} classes are named, background first",
            hint="number objects from 1, as torchvision does",
        )


def as_given(inputs: Any) -> Preprocessing:
    """Pre-processing that does nothing, in the shape of the inputs."""
    if isinstance(inputs, Tensor) and 3 <= inputs.dim() <= 5 and inputs.shape[1] <= 64:
        channels = inputs.shape[1]
        return Preprocessing(mean=(0.0,) * channels, std=(1.0,) * channels, size=tuple(inputs.shape[2:]))
    count = sum(leaf[0].numel() for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor) and leaf.dim() > 0)
    return Preprocessing(mean=(0.0,), std=(1.0,), size=(max(1, count),))
