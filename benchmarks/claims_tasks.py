"""Small worlds for `claims.py`: for each task a generator of fresh samples without end, a tiny network, and the truth.

The truth is counted here by formulas of its own, not by `compress.tasks`, so that a mistake there is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import claims_detection as boxes
import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE = 12
"""Pixels of a side; 8 to 16 are cheap enough for a hundred networks."""
CLASSES, LABELS, KINDS = 4, 5, 3


def _patterns(count: int, seed: int) -> Tensor:
    """Smooth random patterns of one spread, (count, 1, side, side): what this world's images are made of."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 1, 4, 4, generator=draw)
    smooth = F.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic", align_corners=True)
    return smooth / smooth.std(dim=(1, 2, 3), keepdim=True)


def _blobs(centres: Tensor, widths: Tensor) -> Tensor:
    """Round bright spots, (n, 1, side, side), at (n, 2) in pixels."""
    axis = torch.arange(SIDE, dtype=torch.float32)
    x = (axis[None, None, :] - centres[:, 0, None, None]) ** 2
    y = (axis[None, :, None] - centres[:, 1, None, None]) ** 2
    return torch.exp(-(x + y) / (2 * widths[:, None, None] ** 2))[:, None]


@dataclass(frozen=True)
class World:
    """One task with its samples.

    Attributes:
        task: as ``network_of(task=...)`` takes it.
        seed: of its patterns.
        noise: standard deviation that is added to images.
    """

    task: str
    seed: int
    noise: float

    @property
    def name(self) -> str:
        return self.task.partition(":")[0]

    @property
    def example(self) -> Tensor:
        """One input, of zeros."""
        return torch.zeros((1, 3, boxes.SIDE, boxes.SIDE) if self.name == "detection" else (1, 1, SIDE, SIDE))

    def samples(self, count: int, seed: int) -> tuple[Tensor, Any]:
        """Inputs (n, channels, side, side) and targets, independent of every other seed's."""
        draw = torch.Generator().manual_seed(seed)
        if self.name == "detection":
            return boxes.samples(count, self.noise, draw)
        inputs, targets = _MAKERS[self.name](self, count, draw)
        clean = inputs if self.name != "restoration" else targets
        return clean + self.noise * torch.randn(clean.shape, generator=draw), targets

    def network(self, seed: int) -> nn.Module:
        """Untrained."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            if self.name == "detection":
                return boxes.network()
            if self.name in ("segmentation", "restoration"):
                return Dense(KINDS if self.name == "segmentation" else 1, self.name == "restoration")
            outputs = {"classification": CLASSES, "binary": 1, "multilabel": LABELS, "regression": 2, "outputs": 2}
            return Pooled(outputs[self.name], places=self.name in ("regression", "outputs"))

    def loss(self, answer: Any, targets: Any) -> Tensor:
        """What the network is trained by."""
        if self.name == "detection":
            from compress.tasks import task_named

            return task_named(self.task).loss(answer, (None, targets))
        if self.name in ("classification", "segmentation"):
            return F.cross_entropy(answer, targets)
        if self.name in ("binary", "multilabel"):
            return F.binary_cross_entropy_with_logits(answer.reshape(targets.shape), targets.float())
        return F.l1_loss(answer, targets)

    def truth(self, answer: Any, targets: Any) -> dict[str, float]:
        """Name of a figure -> its value on these samples."""
        return _TRUTHS[self.name](answer, targets)

    def nothing_known(self, targets: Any) -> dict[str, float]:
        """The same of the best constant answer: a bound up to there says nothing."""
        if self.name == "detection":  # who finds nothing
            return {"mAP50": 0.0}
        return self.truth(*_CONSTANTS[self.name](targets))


class Pairs:
    """A dataset of inputs with the targets of each."""

    def __init__(self, inputs: Tensor, targets: Any) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, number: int) -> tuple[Tensor, Any]:
        return self.inputs[number], self.targets[number]


class InputsAlone:
    """A dataset of inputs whose targets nobody knows."""

    def __init__(self, inputs: Tensor) -> None:
        self.inputs = inputs

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, number: int) -> Tensor:
        return self.inputs[number]


def _classes(world: World, count: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    kinds = 2 if world.name == "binary" else CLASSES
    labels = torch.randint(kinds, (count,), generator=draw)
    shifts = torch.randint(-1, 2, (count, 2), generator=draw)
    images = _patterns(kinds, world.seed)[labels]
    rows = (torch.arange(SIDE)[None] + shifts[:, :1]) % SIDE
    columns = (torch.arange(SIDE)[None] + shifts[:, 1:]) % SIDE
    images = images.gather(2, rows[:, None, :, None].expand(-1, 1, -1, SIDE))
    return images.gather(3, columns[:, None, None, :].expand(-1, 1, SIDE, -1)), labels


def _several(world: World, count: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    present = (torch.rand(count, LABELS, generator=draw) < 0.4).float()
    return torch.einsum("nl,lchw->nchw", present, _patterns(LABELS, world.seed)), present


def _places(world: World, count: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    centres = 2 + (SIDE - 5) * torch.rand(count, 2, generator=draw)
    return 2 * _blobs(centres, 1.0 + torch.rand(count, generator=draw)), centres


def _masks(world: World, count: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    masks = torch.zeros(count, SIDE, SIDE, dtype=torch.int64)
    images = torch.zeros(count, 1, SIDE, SIDE)
    for kind, bright in ((1, 1.0), (2, -1.0)):
        centres = 1 + (SIDE - 3) * torch.rand(count, 2, generator=draw)
        there = _blobs(centres, 1.5 + 1.5 * torch.rand(count, generator=draw)) > 0.5
        masks[there[:, 0]] = kind
        images = torch.where(there, torch.full_like(images, bright), images)
    return images, masks


def _pictures(world: World, count: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    total = torch.zeros(count, 1, SIDE, SIDE)
    for _ in range(3):
        centres = SIDE * torch.rand(count, 2, generator=draw)
        total = total + _blobs(centres, 1.0 + 2 * torch.rand(count, generator=draw))
    clean = (total / 2).clamp(0, 1)
    return clean, clean


_MAKERS: dict[str, Callable[[World, int, torch.Generator], tuple[Tensor, Tensor]]] = {
    "classification": _classes,
    "binary": _classes,
    "multilabel": _several,
    "regression": _places,
    "outputs": _places,
    "segmentation": _masks,
    "restoration": _pictures,
}
NOISES = {
    "classification": (1.5, 4.5),
    "binary": (2.5, 7.0),
    "multilabel": (0.8, 3.0),
    "regression": (0.1, 0.8),
    "outputs": (0.1, 0.8),
    "segmentation": (0.2, 0.6),
    "restoration": (0.05, 0.25),
    "detection": (0.2, 0.6),
}
"""Between which the noise is drawn: from easy to hard."""


# ---- truth -------------------------------------------------------------------------------------------------------------


def _top1(answer: Tensor, targets: Tensor) -> dict[str, float]:
    return {"top-1 accuracy": float((answer.argmax(1) == targets).double().mean())}


def _yes(answer: Tensor, targets: Tensor) -> dict[str, float]:
    return {"accuracy": float(((answer.reshape(-1) > 0) == targets.bool()).double().mean())}


def _labels(answer: Tensor, targets: Tensor) -> dict[str, float]:
    said, there = answer > 0, targets.bool()
    f1 = 2 * float((said & there).sum()) / max(float(said.sum() + there.sum()), 1.0)
    return {"label-wise accuracy": float((said == there).double().mean()), "F1 (micro)": f1}


def _off(answer: Tensor, targets: Tensor) -> dict[str, float]:
    off = answer.double() - targets.double()
    return {"MAE": float(off.abs().mean()), "RMSE": float(off.square().mean().sqrt())}


def _pixels(answer: Tensor, targets: Tensor) -> dict[str, float]:
    said = answer.argmax(1)
    shares = []
    for kind in range(KINDS):
        both, either = ((said == kind) & (targets == kind)).sum(), ((said == kind) | (targets == kind)).sum()
        if int(either):
            shares.append(float(both) / float(either))
    return {"mIoU": sum(shares) / len(shares), "pixel accuracy": float((said == targets).double().mean())}


def _decibels(answer: Tensor, targets: Tensor) -> dict[str, float]:
    squares = (answer.double() - targets.double()).square().mean((1, 2, 3))
    return {"PSNR": float((-10 * squares.log10()).clamp(max=100).mean()), "RMSE": float(squares.mean().sqrt())}


_TRUTHS: dict[str, Callable[[Any, Any], dict[str, float]]] = {
    "classification": _top1,
    "binary": _yes,
    "multilabel": _labels,
    "regression": _off,
    "outputs": _off,
    "segmentation": _pixels,
    "restoration": _decibels,
    "detection": boxes.truth,
}


def _one_class(targets: Tensor) -> tuple[Tensor, Tensor]:
    return F.one_hot(torch.full_like(targets, int(targets.mode().values)), CLASSES).float(), targets


def _most(targets: Tensor) -> tuple[Tensor, Tensor]:
    said = (targets.float().mean(0, keepdim=True) > 0.5).float() - 0.5
    return said.expand(targets.shape), targets


def _middle(targets: Tensor) -> tuple[Tensor, Tensor]:
    return targets.median(0, keepdim=True).values.expand(targets.shape), targets


def _background(targets: Tensor) -> tuple[Tensor, Tensor]:
    return F.one_hot(torch.zeros_like(targets), KINDS).permute(0, 3, 1, 2).float(), targets


def _grey(targets: Tensor) -> tuple[Tensor, Tensor]:
    return targets.mean().expand(targets.shape), targets


_CONSTANTS: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "classification": _one_class,
    "binary": _most,
    "multilabel": _most,
    "regression": _middle,
    "outputs": _middle,
    "segmentation": _background,
    "restoration": _grey,
}


# ---- networks ----------------------------------------------------------------------------------------------------------


def _block(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


class Pooled(nn.Module):
    """Numbers for an image; a residual block in the middle."""

    def __init__(self, outputs: int, places: bool) -> None:
        super().__init__()
        self.first = nn.Sequential(*_block(1, 16), *_block(16, 24, 2))
        self.one, self.two = nn.Sequential(*_block(24, 24)), nn.Sequential(nn.Conv2d(24, 24, 3, 1, 1), nn.BatchNorm2d(24))
        self.pool: nn.Module = nn.Identity() if places else nn.AdaptiveAvgPool2d(1)
        self.last = nn.Linear(24 * (SIDE // 2) ** 2 if places else 24, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = F.relu(x + self.two(self.one(x)))
        return self.last(self.pool(x).flatten(1))


class Dense(nn.Module):
    """An image for an image: down, up, and a skip between."""

    def __init__(self, outputs: int, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.top, self.down = nn.Sequential(*_block(1, 16)), nn.Sequential(*_block(16, 24, 2), *_block(24, 24))
        self.up = nn.ConvTranspose2d(24, 16, 2, 2)
        self.join = nn.Sequential(*_block(32, 16))
        self.last = nn.Conv2d(16, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        top = self.top(x)
        found = self.last(self.join(torch.cat((top, self.up(self.down(top))), dim=1)))
        return x + found if self.residual else found


def trained(world: World, seed: int, steps: int = 150, batch: int = 64) -> nn.Module:
    """A network of the world, trained on fresh samples."""
    model: Any = world.network(seed)
    inputs, targets = world.samples(steps * batch // 4, seed + 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        chosen = torch.randint(len(inputs), (batch,), generator=draw)
        optimizer.zero_grad()
        wanted = [targets[i] for i in chosen.tolist()] if isinstance(targets, list) else targets[chosen]
        world.loss(model(inputs[chosen]), wanted).backward()
        optimizer.step()
        schedule.step()
    return model.eval()
