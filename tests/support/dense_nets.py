"""Tiny networks that answer with more than one label an image, and images for them."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetHead
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteHead

from compress.tasks import DenseDetector

SIDE = 32
CLASSES = 3


def squares(count: int, seed: int = 0) -> tuple[Tensor, Tensor, list[dict[str, Tensor]]]:
    """Grey noise with one or two squares, red (1) or green (2): images, masks, boxes."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    masks = torch.zeros(count, SIDE, SIDE, dtype=torch.long)
    targets = []
    for image, mask in zip(images, masks, strict=True):
        boxes, labels = [], []
        for column in range(int(torch.randint(1, 3, (), generator=generator))):
            side = int(torch.randint(8, 14, (), generator=generator))
            left = column * SIDE // 2 + int(torch.randint(0, SIDE // 2 - side + 1, (), generator=generator))
            top = int(torch.randint(0, SIDE - side + 1, (), generator=generator))
            label = int(torch.randint(1, CLASSES, (), generator=generator))
            image[label - 1, top : top + side, left : left + side] += 2
            mask[top : top + side, left : left + side] = label
            boxes.append([left, top, left + side, top + side])
            labels.append(label)
        targets.append({"boxes": torch.tensor(boxes).float(), "labels": torch.tensor(labels)})
    return images, masks, targets


class Pyramid(nn.Module):
    """Features at strides of 4 and 8."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.out_channels = width
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, width, 3, 2, 1), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(width, 24, 3, 2, 1), nn.ReLU(), nn.Conv2d(24, width, 1), nn.ReLU())

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        fine = self.stem(images)
        return OrderedDict([("0", fine), ("1", self.down(fine))])


HOW: dict[str, Any] = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3, "score_thresh": 0.05, "nms_thresh": 0.5}


def fcos() -> nn.Module:
    body = Pyramid()
    places = AnchorGenerator(((4,), (8,)), ((1.0,),) * 2)
    head = FCOSHead(body.out_channels, 1, CLASSES, num_convs=1)
    return FCOS(body, CLASSES, min_size=SIDE, max_size=SIDE, anchor_generator=places, head=head, detections_per_img=100, **HOW)


def retinanet() -> nn.Module:
    body = Pyramid()
    places = AnchorGenerator(((8, 11), (16, 22)), ((0.5, 1.0, 2.0),) * 2)
    head = RetinaNetHead(body.out_channels, places.num_anchors_per_location()[0], CLASSES)
    return RetinaNet(
        body, CLASSES, min_size=SIDE, max_size=SIDE, anchor_generator=places, head=head, detections_per_img=100, **HOW
    )


def ssdlite() -> nn.Module:
    body = Pyramid()
    places = DefaultBoxGenerator([[2], [2]], scales=[0.25, 0.5, 0.9])
    norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
    head = SSDLiteHead([body.out_channels] * 2, places.num_anchors_per_location(), CLASSES, norm)
    return SSD(body, places, (SIDE, SIDE), CLASSES, head=head, detections_per_img=100, **HOW)


DETECTORS = {"fcos": fcos, "retinanet": retinanet, "ssdlite": ssdlite}


def detector(name: str, seed: int = 0) -> nn.Module:
    """With random weights, of which some scores are high."""
    torch.manual_seed(seed)
    made = DETECTORS[name]()
    for key, tensor in made.named_parameters():
        if key.endswith(("cls_logits.weight", "cls_logits.bias")):
            nn.init.normal_(tensor, std=0.3)
    return made.eval()


def dense_fcos() -> nn.Module:
    """A factory as docs/tasks.md shows it."""
    return DenseDetector(fcos(), (SIDE, SIDE))


def dense_normed() -> nn.Module:
    """Another one, with the batch norms that most backbones have."""
    made = fcos()
    made.backbone.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 4, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
    return DenseDetector(made, (SIDE, SIDE))


class Pixels(nn.Module):
    """Logits of every pixel, from a small hourglass with a shortcut."""

    def __init__(self, out: int = CLASSES, width: int = 8) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.low = nn.Sequential(nn.Conv2d(width, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.last = nn.Conv2d(2 * width, out, 3, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        fine = self.first(images)
        coarse = nn.functional.interpolate(self.low(fine), scale_factor=2.0)
        return self.last(torch.cat((fine, coarse), 1))  # type: ignore[no-any-return]


def trained(model: nn.Module, task: Any, batches: list[Any], steps: int, lr: float = 0.01) -> nn.Module:
    """By the task's own loss."""
    adam = torch.optim.Adam(model.parameters(), lr)
    model.train()
    for step in range(steps):
        batch = batches[step % len(batches)]
        loss = task.loss(model(batch[0]), batch)
        adam.zero_grad()
        loss.backward()
        adam.step()
    return model.eval()
