"""Batches without targets: a classifier imitates the unpruned network, and images are not taken for labels."""

from __future__ import annotations

import pytest
import torch

from compress.errors import TrainError
from compress.tasks import Classification


def test_images_alone_are_not_taken_for_labels() -> None:
    task, logits, images = Classification(), torch.randn(8, 4), 9 + torch.randn(8, 1, 3, 3).abs()
    task.check_step(logits, logits, images, 1.0)
    for teacher, share in ((logits, 0.5), (None, 1.0)):
        with pytest.raises(TrainError, match="have no labels"):
            task.check_step(logits, teacher, images, share)
    with pytest.raises(TrainError, match="label 9 occurs"):
        task.check_step(logits, logits, (images, torch.full((8,), 9)), 1.0)
