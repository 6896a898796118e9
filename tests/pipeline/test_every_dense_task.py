"""Tasks whose answers are maps or boxes, through every method: `make slow` runs them all (see test_every_task.py)."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from support.dense_nets import CLASSES, SIDE, Pixels, dense_fcos, squares, trained
from torch import nn
from torch.utils.data import Dataset

from compress.data import Data, data_from
from compress.networks import network_of
from compress.pipeline import make_job, prune
from compress.tasks import Task, task_of

TASKS = ("segmentation", "detection", "restoration")
METHODS = ("smoea", "bicnn", "cluster", "csgd", "obs", "uniform", "global")
QUICK: dict[str, Any] = {
    "round_to": 4,
    "budget": 900,
    "calibration": 32,
    "epochs": 0,
    "latency_seconds": 0.0,
    "exporter": "legacy",
    "value": 0.7,
}
SPLITS = {"train": 128, "validation": 160, "calibration": 64, "test": 160}


class Shown(Dataset[Any]):
    """Pictures with what is wanted of each, or alone."""

    def __init__(self, pictures: Any, wanted: Any = None) -> None:
        self.pictures, self.wanted = pictures, wanted

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, number: int) -> Any:
        return self.pictures[number] if self.wanted is None else (self.pictures[number], self.wanted[number])


def pairs(name: str, count: int, seed: int) -> tuple[Any, Any]:
    """Pictures, and masks, boxes or the pictures without noise."""
    images, masks, boxes = squares(count, seed)
    if name == "restoration":
        clean = (nn.functional.one_hot(masks, CLASSES).permute(0, 3, 1, 2).float() + 0.2) / 1.5
        return clean + 0.1 * images.clamp(-1, 1), clean
    return images, masks if name == "segmentation" else boxes


@cache
def network(name: str) -> tuple[Task, nn.Module]:
    """Trained for a second or two by the task's own loss."""
    task = task_of(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = dense_fcos() if name == "detection" else Pixels(3, 16)
        images, wanted = pairs(name, 256, 0)
        return task, trained(made, task, [(images[i : i + 32], wanted[i : i + 32]) for i in range(0, 256, 32)], 48, lr=0.003)


def data(name: str, *, targets: bool) -> Data:
    """Fresh pictures in four splits."""
    found = {split: pairs(name, count, 1 + number) for number, (split, count) in enumerate(SPLITS.items())}
    classes = ["background", "red", "green"] if name == "detection" and targets else ()
    return data_from(**{split: Shown(*part) if targets else Shown(part[0]) for split, part in found.items()}, classes=classes)


@pytest.mark.slow
@pytest.mark.parametrize("targets", [True, False])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", TASKS)
def test_every_dense_task_with_every_method(name: str, method: str, targets: bool, tmp_path: Path) -> None:
    """What is printed is of the task, what is scored is what the network scores, and no bound is exceeded on fresh images."""
    task, model = network(name)
    more: dict[str, Any] = {"epochs": 10, "batch": 16} if method == "csgd" else {}
    job = make_job(flags={**QUICK, "method": method, **more})
    wanted = data(name, targets=targets)
    found = prune(network_of(model, example=torch.zeros(2, 3, SIDE, SIDE), task=task), wanted, job, tmp_path / "run")
    report = found.report
    page = (
        re.sub(r'base64,[^"]*', "", (tmp_path / "run" / "report.html").read_text())
        + (tmp_path / "run" / "report.md").read_text()
    )
    assert "top-1" not in page.lower() and (report.task, report.figure) == (task.name, task.figure)
    assert report.after.macs < report.before.macs and bool(report.scores) == targets
    assert (report.certificate is None) == any("no certificate" in note for note in report.notes)
    assert targets or (report.certificate is not None) == (task.bounded is not None)
    if targets:
        final = report.measured("final", "test")
        assert final is not None and final.value == pytest.approx(
            task.scored(found.model, wanted.test.batches(64)).value, rel=1e-4
        )
    if report.certificate is not None:
        images, truth = pairs(name, 400, 77)
        batches = [(images[i : i + 100], truth[i : i + 100]) for i in range(0, 400, 100)]
        before, after = (task.score(one, batches)[report.certificate.figure.name].value for one in (model, found.model))
        assert report.certificate.figure.worse(before, after) <= report.certificate.bound + 1e-6
