"""Boxes: what torchvision's detectors say through ours, what mAP is, what is cut and exported, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.dense_nets import CLASSES, DETECTORS, SIDE, dense_fcos, dense_normed, detector, squares, trained
from torch import Tensor, nn

import compress
from compress import Preprocessing
from compress.coupling import trace
from compress.errors import CompressError, TaskError
from compress.export import ParityVerdict, export_verified
from compress.networks import load, network_of
from compress.surgery import cut, random_plan, verify
from compress.tasks import DenseDetector, Detection
from compress.tasks.detection import MAP, MAP50, _mean_average_precision
from compress.tasks.matching import COCO_OVERLAPS, average_precision, rows_of

PLAIN = Preprocessing((0.0,) * 3, (1.0,) * 3, (SIDE, SIDE))
IMAGES, _, TARGETS = squares(8)


def dense(name: str, seed: int = 0) -> tuple[nn.Module, DenseDetector]:
    made = detector(name, seed)
    return made, DenseDetector(made, (SIDE, SIDE)).eval()


@pytest.mark.parametrize("name", DETECTORS)
def test_boxes_are_those_that_torchvision_finds(name: str) -> None:
    made, ours = dense(name)
    with torch.no_grad():
        wanted, found = made(list(IMAGES)), Detection().found(ours(IMAGES), (SIDE, SIDE))
    assert sum(len(one["boxes"]) for one in wanted) > 50
    for theirs, own in zip(wanted, found, strict=True):
        assert theirs["labels"].tolist() == own["labels"].tolist()
        torch.testing.assert_close(own["boxes"], theirs["boxes"], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(own["scores"], theirs["scores"])


@pytest.mark.parametrize("name", DETECTORS)
def test_the_loss_is_torchvisions(name: str) -> None:
    made, ours = dense(name)
    batch = (IMAGES, [*TARGETS[:-1], {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}])
    wanted = sum(made.train()(list(batch[0]), [dict(t) for t in batch[1]]).values())
    found = Detection().loss(ours.train()(IMAGES), batch)
    torch.testing.assert_close(found, wanted)
    found.backward()
    grads = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in ours.parameters()]
    assert sum(grads) > 0.8 * len(grads)
    assert list(made.state_dict()) == list(ours.state_dict())


@pytest.mark.parametrize("made", [dense_fcos, dense_normed])
def test_a_detector_is_made_by_its_factory_and_read_from_a_file(made: Any, tmp_path: Path) -> None:
    """As ``--arch mypackage.nets:factory`` has it: shapes first, without numbers, which anchors and batch norms are not."""
    wanted = made().eval()
    torch.save(wanted.state_dict(), tmp_path / "net.pt")
    loaded = load(tmp_path / "net.pt", zoo={}, arch=f"support.dense_nets:{made.__name__}").model.eval()
    assert loaded.constants == wanted.constants
    with torch.no_grad():
        alike(Detection().found(loaded(IMAGES), (SIDE, SIDE)), Detection().found(wanted(IMAGES), (SIDE, SIDE)))


def test_crowds_are_not_trained_on() -> None:
    _, ours = dense("fcos")
    crowd = [{**t, "iscrowd": torch.ones(len(t["labels"]))} for t in TARGETS]
    none = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)} for _ in TARGETS]
    with torch.no_grad():
        raw = ours(IMAGES)
        assert Detection().loss(raw, (IMAGES, crowd)) == Detection().loss(raw, (IMAGES, none))
        assert Detection().loss(raw, (IMAGES, crowd)) != Detection().loss(raw, (IMAGES, TARGETS))


def test_constants_are_no_outputs() -> None:
    _, retinanet = dense("retinanet")
    assert retinanet.constants["levels"] == (64 * 6, 16 * 6) and retinanet.constants["family"] == "RetinaNet"
    assert set(Detection().outputs(retinanet(IMAGES[:1]))) == {"cls_logits", "bbox_regression"}


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_is_traced_cut_and_put_back(name: str) -> None:
    made, ours = dense(name)
    small = halved(ours)
    count = [sum(p.numel() for p in m.parameters()) for m in (ours, small)]
    assert count[1] < 0.75 * count[0] and small.constants == ours.constants
    made.backbone, made.head = small.backbone, small.head
    with torch.no_grad():
        alike(Detection().found(small(IMAGES), (SIDE, SIDE)), made(list(IMAGES)))


@pytest.mark.parametrize("name", ["fcos", *(pytest.param(n, marks=pytest.mark.slow) for n in ("retinanet", "ssdlite"))])
def test_the_file_of_a_cut_detector_finds_the_same_boxes(name: str, tmp_path: Path) -> None:
    small, file = halved(dense(name)[1]), tmp_path / "m.onnx"
    _, parity = export_verified(small, torch.randn(10, 3, SIDE, SIDE), file, exporter="legacy")
    assert parity.verdict is ParityVerdict.PASS, parity.message
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_outputs()]
    said = dict(zip(names, map(torch.from_numpy, session.run(None, {"input": IMAGES.numpy()})), strict=True))
    with torch.no_grad():
        task = Detection()
        alike(task.found({**said, **small.constants}, (SIDE, SIDE)), task.found(small(IMAGES), (SIDE, SIDE)))


def halved(ours: DenseDetector) -> Any:
    network = network_of(ours, PLAIN)
    topology = trace(network.model, torch.zeros(1, 3, SIDE, SIDE))
    plan = random_plan(topology, 0.5, np.random.default_rng(0))
    small = cut(network.model, topology, plan)
    verify(network.model, topology, plan, small, IMAGES)
    return small


def alike(one: list[dict[str, Tensor]], two: list[dict[str, Tensor]]) -> None:
    """The surest boxes are the same; of scores about the threshold one may be lost."""
    for own, theirs in zip(one, two, strict=True):
        assert abs(len(own["scores"]) - len(theirs["scores"])) <= 1
        torch.testing.assert_close(own["scores"][:5], theirs["scores"][:5], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(own["boxes"][:5], theirs["boxes"][:5], atol=1e-2, rtol=1e-3)


# ---- the figure -------------------------------------------------------------------------------------------------------


def objects(boxes: list[list[float]], labels: list[int], scores: list[float] | None = None, **more: Any) -> dict[str, Tensor]:
    found = {"boxes": torch.tensor(boxes).float().reshape(-1, 4), "labels": torch.tensor(labels, dtype=torch.long)}
    return found | ({} if scores is None else {"scores": torch.tensor(scores)}) | more


def test_a_case_by_hand() -> None:
    """One class, two objects, three boxes found: right, wrong, right. Precision 1 up to a recall of 1/2, then 2/3."""
    truth = [objects([[0, 0, 10, 10], [20, 20, 30, 30]], [1, 1])]
    found = [objects([[0, 0, 10, 10], [0, 20, 10, 30], [20, 20, 30, 31]], [1, 1, 1], [0.9, 0.8, 0.7])]
    wanted = (51 * 1 + 50 * 2 / 3) / 101  # of 101 recalls
    rows = rows_of(found, truth, 2, 10, (0.5,))
    assert average_precision(rows) == pytest.approx(wanted)
    assert _mean_average_precision(found, truth)[1] == pytest.approx(wanted, abs=1e-6)


def random_objects(rng: np.random.Generator, images: int, scored: bool, near: list[Any] | None = None) -> list[Any]:
    made = []
    for place in range(images):
        count = int(rng.integers(0, 7))
        corner, sides = rng.uniform(0, 50, (count, 2)), rng.uniform(3, 30, (count, 2))
        boxes = np.concatenate((corner, corner + sides), 1)
        labels = rng.integers(1, 4, count)
        if near is not None and count and len(near[place]["labels"]):
            which = rng.integers(0, len(near[place]["labels"]), count)
            moved = near[place]["boxes"].numpy()[which] + rng.normal(0, 2, (count, 4))
            good = (rng.random(count) < 0.7) & (moved[:, 2] > moved[:, 0] + 1) & (moved[:, 3] > moved[:, 1] + 1)
            boxes[good], labels[good] = moved[good], near[place]["labels"].numpy()[which][good]
        one = objects(boxes.tolist(), labels.tolist())
        if scored:
            one["scores"] = torch.from_numpy(rng.integers(1, 20, count) / 20).float()  # with ties
        else:
            one["iscrowd"] = torch.from_numpy((rng.random(count) < 0.2).astype(np.int64))
        made.append(one)
    return made


@given(seed=st.integers(0, 10_000))
def test_what_is_resampled_is_what_torchmetrics_measures(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = random_objects(rng, 12, scored=False)
    found = random_objects(rng, 12, scored=True, near=truth)
    rows = rows_of(found, truth, 4, 10, COCO_OVERLAPS)
    whole, half = _mean_average_precision(found, truth)
    assert average_precision(rows) == pytest.approx(half, abs=1e-5)
    assert average_precision(rows, slice(None)) == pytest.approx(whole, abs=1e-5)
    drawn = rng.integers(0, 12, 12)
    again = _mean_average_precision([found[i] for i in drawn], [truth[i] for i in drawn])
    assert average_precision(rows[drawn]) == pytest.approx(again[1], abs=1e-5)
    assert average_precision(rows_of(found, truth, 4, 10, (0.5,))) == average_precision(rows)


def test_nothing_found_and_nothing_to_find() -> None:
    truth, none = [objects([[0, 0, 9, 9]], [1])], [objects([], [], [])]
    for found, known in ((none, truth), ([objects([[0, 0, 9, 9]], [1], [0.5])], [objects([], [])])):
        assert average_precision(rows_of(found, known, 2, 10, (0.5,))) == 0
        assert _mean_average_precision(found, known) == (0.0, 0.0)


def test_a_tiny_detector_learns_and_the_score_sees_it() -> None:
    images, _, targets = squares(48)
    torch.manual_seed(0)
    model = DenseDetector(DETECTORS["fcos"](), (SIDE, SIDE))
    task = Detection()
    held = [(images[32:40], targets[32:40]), (images[40:], targets[40:])]
    task.check(model.eval()(images[:4]), (images[:4], targets[:4]))
    batches = [(images[i : i + 8], targets[i : i + 8]) for i in range(0, 32, 8)]
    before = task.score(model, held)[MAP50.name].value
    trained(model, task, batches, 24, lr=0.003)
    found = task.score(model, held)
    half = found[MAP50.name]
    assert half.value > before + 0.4 and half.low <= half.value <= half.high and half.high - half.low > 0.01
    assert found[MAP.name].value <= half.value and half.images == 16
    assert task.error(model, held, 0.0) == pytest.approx(1 - half.value, abs=1e-5)
    with torch.no_grad():
        raw = model(images[:4])
        shifted = {**raw, "cls_logits": raw["cls_logits"] + 1.0}
        assert float(task.imitate(raw, raw)) == pytest.approx(0, abs=1e-5) and float(task.imitate(shifted, raw)) > 0.01
    assert task.change(raw, raw) is None and set(task.outputs(raw)) == {"cls_logits", "bbox_regression", "bbox_ctrness"}


# ---- refused ----------------------------------------------------------------------------------------------------------

EMPTY = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
BAD: dict[str, Any] = {
    "wanted is a list with a dict": torch.zeros(2),
    "are .*wanted is a list|list with a dict": [EMPTY],
    "a target of boxes holds": [EMPTY, {"boxes": torch.zeros(1, 4)}],
    "stands out of its image of 32 x 32: 0, 0, 99, 9": [EMPTY, objects([[0, 0, 99, 9]], [1])],
    "has no area: 5, 0, 5, 9": [EMPTY, objects([[5, 0, 5, 9]], [1])],
    "run from 3 to 3; 3 classes": [EMPTY, objects([[0, 0, 9, 9]], [CLASSES])],
    "the label 0": [EMPTY, objects([[0, 0, 9, 9]], [0])],
}


@pytest.mark.parametrize("message", BAD)
def test_targets_that_cannot_be_are_refused(message: str) -> None:
    _, ours = dense("fcos")
    batch = (IMAGES[:2], BAD[message])
    for look in (lambda: Detection().check(ours(IMAGES[:2]), batch), lambda: Detection().score(ours, [batch])):
        with torch.no_grad(), pytest.raises(CompressError, match=message) as caught:
            look()
        assert caught.value.hint


def test_other_networks_are_refused_with_a_cure() -> None:
    with pytest.raises(TaskError, match="the network returns Tensor; what the heads of a detector say") as caught:
        Detection().check(torch.zeros(2, 3), (IMAGES[:2], TARGETS[:2]))
    assert "DenseDetector" in caught.value.hint
    with pytest.raises(TaskError, match="a Linear is none of torchvision's detectors of one stage") as caught:
        DenseDetector(nn.Linear(1, 1), (SIDE, SIDE))
    assert "docs/tasks.md" in caught.value.hint
    with pytest.raises(TaskError, match="does not run on images of 0 x 0"):
        DenseDetector(detector("fcos"), (0, 0))
    assert compress.tasks.TASKS["detection"]
