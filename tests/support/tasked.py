"""A tiny network for every task, trained in a second: where a bright square lies, how large it is, which pixels are its."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from compress.data import Data, data_from
from compress.tasks import Regression, Task, task_of

SIDE = 12


def squares(images: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures (n, 1, 12, 12) with a bright square, and its centre's row and column, (n, 2)."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    centres = 2 + (SIDE - 5) * torch.rand(images, 2, generator=generator)
    off = torch.stack([rows - centres[:, 0, None, None], columns - centres[:, 1, None, None]]).abs().amax(0)
    pictures = 0.3 * torch.rand(images, 1, SIDE, SIDE, generator=generator) + (off <= 2)[:, None].float()
    return 2 * pictures - 1, centres


def targets_of(name: str, pictures: Tensor, centres: Tensor) -> Tensor:
    """What a task wants of such pictures."""
    half = (SIDE - 1) / 2
    low, right = centres[:, 0] > half, centres[:, 1] > half
    kinds = {
        "classification": (2 * low + right).long(),
        "binary": right.long(),
        "multilabel": torch.stack([low, right, low == right], 1).float(),
        "regression": centres,
    }
    return kinds.get(name.partition(":")[0], centres)


WIDTHS = {"classification": 4, "binary": 1, "multilabel": 3, "regression": 2, "outputs": 2}


def network(outputs: int) -> nn.Module:
    """Two convolutions and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * (SIDE // 2) ** 2, outputs),
    )


class Shown(Dataset[Tensor]):
    """Pictures without anything."""

    def __init__(self, pictures: Tensor) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:
        return self.pictures[index]


@dataclass(frozen=True)
class Trained:
    """A network and what it was trained for."""

    task: Task
    model: nn.Module

    def data(self, images: int = 240, *, targets: bool = True, seed: int = 1) -> Data:
        """Fresh pictures in four splits; without targets they are only shown."""

        def split(count: int, number: int) -> Dataset[Any]:
            pictures, centres = squares(count, seed=1000 * seed + number)
            return TensorDataset(pictures, targets_of(self.task.name, pictures, centres)) if targets else Shown(pictures)

        parts = {"train": split(128, 1), "validation": split(images, 2), "calibration": split(64, 3), "test": split(images, 4)}
        return data_from(**parts, classes=4 if self.task.name == "classification" else ())

    def truth(self, model: nn.Module, images: int = 4000) -> float:
        """The figure on so many fresh pictures."""
        pictures, centres = squares(images, seed=77)
        wanted = targets_of(self.task.name, pictures, centres)
        return self.task.scored(model.eval(), list(zip(pictures.split(500), wanted.split(500), strict=True))).value


@cache
def trained(name: str) -> Trained:
    """Trained by the task's own loss; ``outputs`` is a regressor of which nobody says so."""
    task = task_of(name)
    learnt = task_of("regression") if name == "outputs" else task
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = network(WIDTHS[task.name]).train()
        adam = torch.optim.Adam(model.parameters(), 3e-3)
        pictures, centres = squares(1024, seed=0)
        wanted = targets_of(learnt.name, pictures, centres)
        for step in range(160):
            part = torch.randperm(len(pictures))[:64]
            loss = learnt.loss(model(pictures[part]), (pictures[part], wanted[part]))
            adam.zero_grad()
            loss.backward()
            adam.step()
            adam.param_groups[0]["lr"] = 3e-3 * (1 - step / 160)
    return Trained(task, model.eval())


# ---- as a command line names them ------------------------------------------------------------------------------------


class Distance(Regression):
    """A task of somebody's own."""

    name = "distance"


def example() -> Tensor:
    """What the networks take."""
    return torch.zeros(2, 1, SIDE, SIDE)


def pictures_of_regression() -> Data:
    """With targets."""
    return trained("regression").data()
