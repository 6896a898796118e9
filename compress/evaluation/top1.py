"""Top-1 and top-5 accuracy of a network on labelled images."""

from __future__ import annotations

import torch
from torch import nn

from compress.core import Accuracy
from compress.errors import DataError
from compress.networks import autocast, frozen_copy, logits_of, placed
from compress.recovery import LabelledImages


def accuracy(
    model: nn.Module, split: LabelledImages, *, batch: int = 256, limit: int | None = None, precision: str = "fp32"
) -> Accuracy:
    """How many images of a split the network names right.

    Args:
        model: the network; it is left as it is.
        split: images and labels.
        batch: images at a time.
        limit: look at the first so many only.
        precision: ``fp32``, ``bf16`` or ``auto``, as in :class:`~compress.recovery.Schedule`.

    Raises:
        DataError: there is no image, or no label.
    """
    from accelerate import Accelerator

    device = Accelerator().device
    judge = frozen_copy(model, device)
    correct = correct5 = torch.zeros((), dtype=torch.int64, device=device)
    total, classes = 0, 0
    with torch.inference_mode(), autocast(device, precision):
        for images, labels in split.batches(batch, limit=limit):
            if len(labels) and int(labels.min()) < 0:
                raise DataError("the images have no labels, so accuracy cannot be measured", hint="give labelled images")
            logits = logits_of(judge(placed(images, device))).float()
            classes = logits.shape[1]
            hits = logits.topk(min(5, classes), dim=1).indices == labels.to(device).unsqueeze(1)
            correct, correct5 = correct + hits[:, 0].sum(), correct5 + hits.sum()
            total += len(labels)
    if total == 0:
        raise DataError("no image to measure the accuracy on, at least 1 is needed", hint="check the path of the data")
    return Accuracy(int(correct), total, int(correct5) if classes > 5 else None)
