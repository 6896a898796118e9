"""The world of boxes for `claims.py`: squares in noise, a tiny FCOS of torchvision, and mAP50 by formulas of their own.

Boxes are decoded, rid of doubles and matched here for all images at once, not by torchvision or `compress.tasks`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

SIDE, KINDS, STRIDES = 16, 2, (4, 8)
"""Pixels of a side, kinds of objects beside the background, and pixels between two places of each level."""
LEAST_SCORE, DOUBLE, RIGHT = 0.05, 0.5, 0.5
_MOST, _AT_ONCE = 2, 1000
Targets = list[dict[str, Tensor]]


def samples(count: int, noise: float, draw: torch.Generator) -> tuple[Tensor, Targets]:
    """Images (n, 3, side, side), and none, one or two objects in each: of a kind, in a half of the image, of a brightness."""
    images = noise * torch.randn(count, 3, SIDE, SIDE, generator=draw)
    sizes = torch.randint(4, SIDE // 2 + 1, (count, _MOST), generator=draw)
    lefts = (torch.rand(count, _MOST, generator=draw) * (SIDE // 2 - sizes + 1)).long() + torch.arange(_MOST) * (SIDE // 2)
    tops = (torch.rand(count, _MOST, generator=draw) * (SIDE - sizes + 1)).long()
    kinds = torch.randint(KINDS, (count, _MOST), generator=draw)
    there = torch.rand(count, _MOST, generator=draw) < 0.8
    bright = 0.6 + 0.8 * torch.rand(count, _MOST, generator=draw)
    boxes = torch.stack((lefts, tops, lefts + sizes, tops + sizes), 2)
    axis = torch.arange(SIDE)
    for number in range(_MOST):
        left, top, right, bottom = (edge[:, None] for edge in boxes[:, number].unbind(1))
        within = ((axis >= top) & (axis < bottom))[:, :, None] & ((axis >= left) & (axis < right))[:, None]
        images[torch.arange(count), kinds[:, number]] += within * (there[:, number] * bright[:, number])[:, None, None]
    targets = [
        {"boxes": box[seen].float(), "labels": kind[seen] + 1} for box, kind, seen in zip(boxes, kinds, there, strict=True)
    ]
    return images, targets


def network() -> nn.Module:
    """Untrained, with batch norms in its body and group norms in its head."""
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.fcos import FCOS, FCOSHead

    from compress.tasks import DenseDetector

    body = Body()
    places = AnchorGenerator(tuple((stride,) for stride in STRIDES), ((1.0,),) * len(STRIDES))
    head = FCOSHead(body.out_channels, 1, KINDS + 1, num_convs=1)
    return DenseDetector(FCOS(body, KINDS + 1, anchor_generator=places, head=head), (SIDE, SIDE))


class Body(nn.Module):
    """Features of both strides."""

    out_channels = 32

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(*_block(3, 16), *_block(16, 24, 2), *_block(24, 32, 2))
        self.second = nn.Sequential(*_block(32, 24, 2), *_block(24, 32))

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        fine = self.first(images)
        return OrderedDict([("0", fine), ("1", self.second(fine))])


def _block(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


# ---- truth -------------------------------------------------------------------------------------------------------------


def truth(answer: dict[str, Any], targets: Targets) -> dict[str, float]:
    """mAP50: the mean over kinds, of those that occur, of the area under precision over recall, at 101 recalls."""
    boxes, scores = _decoded(answer)
    known, kinds = _padded(targets)
    areas = []
    for kind in range(1, KINDS + 1):
        mine = kinds == kind
        if not bool(mine.any()):
            continue
        found = [
            _judged(*(part[start : start + _AT_ONCE] for part in (boxes, scores[..., kind], known, mine)))
            for start in range(0, len(boxes), _AT_ONCE)
        ]
        areas.append(_area(*(torch.cat(part) for part in zip(*found, strict=True)), int(mine.sum())))
    return {"mAP50": sum(areas) / len(areas)}


def _decoded(answer: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Boxes (n, places, 4) within the image, and a score of every class, (n, places, classes)."""
    centres, steps = [], []
    for stride in STRIDES:
        axis = stride * torch.arange(SIDE // stride, dtype=torch.float64)
        row, column = torch.meshgrid(axis, axis, indexing="ij")
        centres.append(torch.stack((column.reshape(-1), row.reshape(-1)), 1))
        steps.append(torch.full((row.numel(), 1), float(stride), dtype=torch.float64))
    centre, step = torch.cat(centres), torch.cat(steps)
    sides = answer["bbox_regression"].double() * step
    boxes = torch.cat((centre - sides[..., :2], centre + sides[..., 2:]), 2).clamp(0, SIDE)
    return boxes, (answer["cls_logits"].double().sigmoid() * answer["bbox_ctrness"].double().sigmoid()).sqrt()


def _padded(targets: Targets) -> tuple[Tensor, Tensor]:
    """Objects (n, most, 4), and their kinds; 0 is none."""
    boxes, kinds = torch.zeros(len(targets), _MOST, 4, dtype=torch.float64), torch.zeros(len(targets), _MOST, dtype=torch.long)
    for number, target in enumerate(targets):
        boxes[number, : len(target["labels"])], kinds[number, : len(target["labels"])] = (
            target["boxes"].double(),
            target["labels"],
        )
    return boxes, kinds


def _judged(boxes: Tensor, scores: Tensor, known: Tensor, mine: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of the boxes of one kind that are found, and whether each is right: image by image, the best box first."""
    scores, order = scores.sort(1, descending=True)
    boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4))
    shared, right = _shared(boxes, boxes), torch.where(mine[:, None], _shared(boxes, known), -1.0)
    found = scores > LEAST_SCORE
    taken, good = torch.zeros_like(mine), torch.zeros_like(found)
    for place in range(boxes.shape[1]):
        found[:, place + 1 :] &= ~(found[:, place, None] & (shared[:, place, place + 1 :] > DOUBLE))
        overlap, which = torch.where(taken, -1.0, right[:, place]).max(1)
        good[:, place] = found[:, place] & (overlap >= RIGHT)
        taken |= good[:, place, None] & (torch.arange(taken.shape[1]) == which[:, None])
    return scores[found], good[found]


def _shared(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union, (n, boxes of one, boxes of the other)."""
    low = torch.maximum(one[:, :, None, :2], other[:, None, :, :2])
    both = (torch.minimum(one[:, :, None, 2:], other[:, None, :, 2:]) - low).clamp_min(0).prod(3)
    mine, theirs = ((boxes[..., 2:] - boxes[..., :2]).prod(2) for boxes in (one, other))
    return both / (mine[:, :, None] + theirs[:, None] - both).clamp_min(1e-12)


def _area(scores: Tensor, right: Tensor, objects: int) -> float:
    right = right[scores.argsort(descending=True, stable=True)].double()
    recall = right.cumsum(0) / objects
    precision = right.cumsum(0) / torch.arange(1, len(right) + 1)
    wanted = torch.linspace(0, 1, 101, dtype=torch.float64) - 1e-9
    best = [float(precision[recall >= least].max()) if bool((recall >= least).any()) else 0.0 for least in wanted]
    return sum(best) / len(best)
