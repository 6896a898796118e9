"""torchvision's detectors of one stage as networks of fixed shapes: what their heads say, before anything is chosen."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import TaskError, one_line

FAMILIES = ("FCOS", "RetinaNet", "SSD")


class DenseDetector(nn.Module):
    """FCOS, RetinaNet, SSD or SSDLite without its choice of boxes, which has no fixed shape: for training and evaluation alike.

    It takes images (n, c, h, w) of one size, already normalised, and returns a dict of what torchvision's heads say:
    ``cls_logits`` (n, a, classes) for each of a places, ``bbox_regression`` (n, a, 4), and of FCOS ``bbox_ctrness`` (n, a, 1);
    beside them the ``constants`` that boxes are chosen with, which are no tensors and therefore no outputs of a file. The
    task ``detection`` chooses by torchvision's own functions. Parameters have torchvision's names. A detector that was cut is
    put back by ``detector.backbone, detector.head = small.backbone, small.head``.

    Attributes:
        constants: the detector's ``family``, how many places each of its ``levels`` has, and their ``anchors`` (a, 4) as the
            bytes of float32: left, top, right, bottom.

    Args:
        detector: of torchvision; its backbone and head are used, not copied.
        size: height and width of the images; torchvision's own resizing and normalising are left to the data.

    Raises:
        TaskError: it is of another family, or does not run on such images.
    """

    def __init__(self, detector: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        kinds = [kind.__name__ for kind in type(detector).__mro__]
        family = next((name for name in FAMILIES if name in kinds), None)
        if family is None:
            raise TaskError(
                f"a {type(detector).__name__} is none of torchvision's detectors of one stage: {', '.join(FAMILIES)}",
                hint="write a task of your own for it: docs/tasks.md",
            )
        self.backbone: nn.Module = detector.backbone  # type: ignore[assignment]
        self.head: nn.Module = detector.head  # type: ignore[assignment]
        anchors, levels = _places(detector, size)
        self.constants = {"family": family, "levels": levels, "anchors": anchors.numpy().tobytes()}

    def forward(self, images: Tensor) -> dict[str, Any]:
        """What the heads say, and the constants."""
        return {**self.head(_features(self.backbone, images)), **self.constants}


def _features(backbone: nn.Module, images: Tensor) -> list[Tensor]:
    found = backbone(images)
    return list((OrderedDict([("0", found)]) if isinstance(found, Tensor) else found).values())


def _places(detector: Any, size: tuple[int, int]) -> tuple[Tensor, tuple[int, ...]]:
    """Anchors (a, 4), and how many there are in each level."""
    from torchvision.models.detection.image_list import ImageList

    training = detector.training
    first = next(detector.parameters())
    try:
        with torch.no_grad():
            images = torch.zeros(1, 3, *size, device=first.device, dtype=first.dtype)
            body = detector.eval().backbone
            if first.is_meta:  # its buffers may have numbers, as batch norms' have
                body = copy.deepcopy(body).to("meta")
            features = _features(body, images)
            if first.is_meta:  # built without numbers: anchors have them all the same
                features, images = [torch.zeros(t.shape) for t in features], torch.zeros(images.shape)
            (found,) = detector.anchor_generator(ImageList(images, [size]), features)
    except Exception as error:  # whatever the user's backbone raises
        raise TaskError(
            f"the detector does not run on images of {size[0]} x {size[1]}: {type(error).__name__}: {one_line(error)}",
            hint="give the height and width that it is meant for",
        ) from error
    finally:
        detector.train(training)
    each = detector.anchor_generator.num_anchors_per_location()
    levels = tuple(t.shape[-2] * t.shape[-1] * many for t, many in zip(features, each, strict=True))
    return found.detach().float().cpu(), levels
