"""Boxes around objects, as torchvision's detectors of one stage find them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from compress.core import Figure, TaskScore, resampled, share_interval
from compress.data import check_boxes
from compress.errors import TaskError
from compress.tasks.base import Task
from compress.tasks.binary import bernoulli_kl
from compress.tasks.extra import need
from compress.tasks.matching import COCO_OVERLAPS, average_precision, rows_of

MAP50 = Figure("mAP50", share=True)
MAP = Figure("mAP", share=True)
_SCORED_BY = ("torchmetrics", "faster_coco_eval")
_DRAWS = 200
"""Of the bootstrap of mAP, which looks at ten thresholds."""


@dataclass(frozen=True)
class Detection(Task):
    """Objects of classes from 1, as dicts of ``boxes`` and ``labels``; of a network that is a ``DenseDetector``.

    Attributes:
        least_score: of a box that is found.
        overlap: of two boxes of one class from which the worse one is dropped.
        most: boxes found in an image.
    """

    least_score: float = 0.05
    overlap: float = 0.5
    most: int = 100

    name: ClassVar[str] = "detection"
    targets: ClassVar[tuple[str, ...]] = ("boxes",)
    images_that_tell: ClassVar[int] = 16
    figures = (MAP50, MAP)

    def found(self, raw: Any, size: tuple[int, int]) -> list[dict[str, Tensor]]:
        """Boxes, scores and labels of every image: decoded, clipped and rid of doubles by torchvision.

        Args:
            raw: the answer.
            size: height and width of the images.

        Raises:
            TaskError: the answer is not that of a ``DenseDetector``.
        """
        said, places = _heads(raw)
        anchors, levels = places.anchors.to(said["cls_logits"].device), places.levels
        reference, sizes = self._reference(said, places), [size] * len(said["cls_logits"])
        if places.family == "SSD":
            return reference.postprocess_detections(said, [anchors] * len(sizes), sizes)  # type: ignore[no-any-return]
        split = {name: list(torch.split(t, levels, dim=1)) for name, t in said.items()}
        return reference.postprocess_detections(  # type: ignore[no-any-return]
            split, [list(torch.split(anchors, levels))] * len(sizes), sizes
        )

    def loss(self, raw: Any, batch: Any) -> Tensor:
        """The sum of the losses that torchvision trains the detector's family with; crowds are left out."""
        said, places = _heads(raw)
        device = said["cls_logits"].device
        wanted = [_trained_on(target, device) for target in batch[1]]
        anchors, reference = [places.anchors.to(device)] * len(wanted), self._reference(said, places)
        if places.family == "FCOS":
            found = reference.compute_loss(wanted, said, anchors, places.levels)
        elif places.family == "RetinaNet":
            found = reference.compute_loss(wanted, said, anchors)
        else:
            found = reference.compute_loss(wanted, said, anchors, _matched_anchors(reference, wanted, anchors[0]))
        return torch.stack([value.float() for value in found.values()]).sum()

    def imitate(self, raw: Any, teacher: Any) -> Tensor:
        """How far the classes and boxes are from the teacher's, places with objects weighing as the teacher is sure of them."""
        (own, places), (wanted, _) = _heads(raw), _heads(teacher)
        ours, theirs = own.pop("cls_logits"), wanted.pop("cls_logits")
        if places.family == "SSD":  # its classes exclude each other, the first is the background
            sure = 1 - theirs.softmax(-1)[..., 0]
            each = F.kl_div(F.log_softmax(ours, -1), F.log_softmax(theirs, -1), log_target=True, reduction="none").sum(-1)
        else:
            sure = theirs.sigmoid().amax(-1)
            each = bernoulli_kl(ours, theirs).sum(-1)
        for name, said in own.items():
            each = each + sure * F.smooth_l1_loss(said, wanted[name], reduction="none").sum(-1)
        return each.sum() / sure.sum().clamp_min(1.0)

    def score(self, model: nn.Module, batches: Iterable[Any]) -> Mapping[str, TaskScore]:
        """mAP at an overlap of 0.5, and COCO's over ten; intervals by the bootstrap over images."""
        need(self.name, *_SCORED_BY)
        found, truth, classes = self._found_in(model, batches)
        value, value50 = _mean_average_precision(found, truth)
        rows = rows_of(found, truth, classes, self.most, COCO_OVERLAPS)
        low50, high50 = share_interval(*resampled(rows, self.pooled), len(rows))
        over_all = resampled(rows, lambda drawn: average_precision(drawn, slice(None)), draws=_DRAWS)
        low, high = share_interval(*over_all, len(rows))
        return {
            MAP50.name: TaskScore(
                value=value50, low=min(low50, value50), high=max(high50, value50), images=len(rows), per_image=rows
            ),
            MAP.name: TaskScore(value=value, low=min(low, value), high=max(high, value), images=len(rows)),
        }

    def error(self, model: nn.Module, batches: Iterable[Any], base: float) -> float:
        """1 - mAP50, without its interval."""
        found, truth, classes = self._found_in(model, batches)
        return MAP50.error(self.pooled(rows_of(found, truth, classes, self.most, (0.5,))), base)

    def pooled(self, rows: NDArray[np.float64]) -> float:
        """mAP50 of rows of :func:`compress.tasks.matching.rows_of`."""
        return average_precision(rows)

    def check(self, raw: Any, batch: Any) -> None:
        """The answer of a ``DenseDetector``, and targets with boxes in their image and labels that it knows."""
        need(self.name, *_SCORED_BY)
        said, _ = _heads(raw)
        images, wanted = batch
        if (
            not isinstance(wanted, Sequence)
            or len(wanted) != len(said["cls_logits"])
            or not all(isinstance(t, Mapping) for t in wanted)
        ):
            raise TaskError(
                f"the targets are a {type(wanted).__name__}, wanted is a list with a dict of boxes and labels an image",
                hint="give data with boxes: docs/data.md",
            )
        for target in wanted:
            check_boxes(target, images.shape[-2:], said["cls_logits"].shape[-1], "the first batch")
            if len(target["labels"]) and int(target["labels"].min()) < 1:
                raise TaskError("an object has the label 0, which is the background's", hint="number classes from 1")

    def _found_in(
        self, model: nn.Module, batches: Iterable[Any]
    ) -> tuple[list[dict[str, Tensor]], list[Mapping[str, Tensor]], int]:
        found: list[dict[str, Tensor]] = []
        truth: list[Mapping[str, Tensor]] = []
        classes = 0
        for raw, (images, wanted) in self.predicted(model, batches):
            classes = _heads(raw)[0]["cls_logits"].shape[-1]
            found += self.found(raw, (images.shape[-2], images.shape[-1]))
            truth += list(wanted)
        if not found:
            raise TaskError("no image to measure mAP on, at least 1 is needed", hint="check the path of the data")
        return found, truth, classes

    def _reference(self, said: Mapping[str, Tensor], places: Places) -> Any:
        return _reference(places.family, said["cls_logits"].shape[-1], self.least_score, self.overlap, self.most)


class Places(NamedTuple):
    """The constants of a ``DenseDetector``."""

    family: str
    levels: list[int]
    anchors: Tensor


def _heads(raw: Any) -> tuple[dict[str, Tensor], Places]:
    """What the heads say, in single precision, and the constants.

    Raises:
        TaskError: something is missing.
    """
    known = raw if isinstance(raw, Mapping) else {}
    missing = {"cls_logits", "bbox_regression", "family", "levels", "anchors"} - set(known)
    if missing:
        seen = ", ".join(map(str, known)) or type(raw).__name__
        raise TaskError(
            f"the network returns {seen}; what the heads of a detector say is wanted, {', '.join(sorted(missing))} is missing",
            hint="wrap a detector of torchvision: compress.tasks.DenseDetector(detector, (height, width)), or write a task",
        )
    anchors = torch.frombuffer(bytearray(known["anchors"]), dtype=torch.float32).reshape(-1, 4)
    said = {name: t.float() for name, t in known.items() if isinstance(t, Tensor)}
    return said, Places(str(known["family"]), list(known["levels"]), anchors)


@lru_cache(maxsize=16)
def _reference(family: str, classes: int, least_score: float, overlap: float, most: int) -> Any:
    """A detector of torchvision with next to no body, for its loss, its decoding and its choice."""
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.fcos import FCOS
    from torchvision.models.detection.retinanet import RetinaNet
    from torchvision.models.detection.ssd import SSD

    body = nn.Identity()
    body.out_channels = 32  # type: ignore[assignment]
    how = {"score_thresh": least_score, "nms_thresh": overlap, "detections_per_img": most}
    with torch.random.fork_rng(devices=[]):
        if family == "SSD":
            return SSD(body, DefaultBoxGenerator([[2]]), (8, 8), classes, head=nn.Identity(), **how)
        return (FCOS if family == "FCOS" else RetinaNet)(body, classes, **how)


def _trained_on(target: Mapping[str, Any], device: torch.device) -> dict[str, Tensor]:
    boxes, labels = target["boxes"].float(), target["labels"].long()
    kept = target["iscrowd"] == 0 if "iscrowd" in target else torch.ones(len(labels), dtype=torch.bool)
    kept = kept.to(boxes.device)
    return {"boxes": boxes[kept].to(device), "labels": labels[kept].to(device)}


def _matched_anchors(reference: Any, wanted: Sequence[Mapping[str, Tensor]], anchors: Tensor) -> list[Tensor]:
    """As in the forward of torchvision's SSD."""
    from torchvision.ops import box_iou

    none = torch.full((len(anchors),), -1, dtype=torch.int64, device=anchors.device)
    return [
        reference.proposal_matcher(box_iou(target["boxes"], anchors)) if len(target["boxes"]) else none for target in wanted
    ]


def _mean_average_precision(
    found: Sequence[Mapping[str, Tensor]], truth: Sequence[Mapping[str, Tensor]]
) -> tuple[float, float]:
    """torchmetrics' mAP and mAP50; a network that finds nothing has 0."""
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision(iou_type="bbox", backend="faster_coco_eval")
    metric.warn_on_many_detections = False
    keys = ("boxes", "labels", "iscrowd")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metric.update(
            [{k: v.cpu() for k, v in one.items()} for one in found],
            [{k: one[k].cpu() for k in keys if k in one} for one in truth],
        )
        seen = metric.compute()
    return tuple(max(0.0, float(seen[name])) for name in ("map", "map_50"))  # type: ignore[return-value]
