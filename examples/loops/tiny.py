"""What the loops run on: 16 x 16 pictures of four patterns, made on the spot, and a network that learns them in seconds."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import compress

SIDE = 16
PATTERNS = ("rows", "columns", "squares", "blob")
PREPROCESSING = compress.Preprocessing((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), (SIDE, SIDE))


def pictures(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (count, 16, 16, 3) of 8 bits, and which pattern each shows."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    labels = rng.integers(len(PATTERNS), size=count)
    made = np.empty((count, SIDE, SIDE, 3))
    for i, label in enumerate(labels):
        shift, period = rng.integers(0, 4, size=2), rng.integers(3, 6)
        rows, columns = (y + shift[0]) // period % 2, (x + shift[1]) // period % 2
        blob = np.hypot(y - 5 - shift[0], x - 5 - shift[1]) < period + 1
        shown = (rows, columns, rows ^ columns, blob)[label]
        made[i] = 128 + rng.normal(0, 45, (SIDE, SIDE, 3)) + (shown[..., None] - 0.5) * rng.uniform(-120, 120, 3)
    return made.clip(0, 255).astype(np.uint8), labels.astype(np.int64)


def arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What ``open_data("tiny:arrays")`` and ``--data tiny:arrays`` read: pictures and labels to train on; to test."""
    return *pictures(1024, 0), *pictures(256, 1)


class Net(nn.Module):
    """Three convolutions with batch norm, and a linear layer."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        sizes = (3, width, 2 * width, 2 * width)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1, bias=False) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for b in sizes[1:])
        self.last = nn.Linear(sizes[-1], len(PATTERNS))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, 4)."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            images = norm(conv(images)).relu()
        return self.last(images.mean((2, 3)))


def make() -> nn.Module:
    """A factory for ``--arch tiny:make``."""
    return Net()


def data() -> compress.Data:
    """The pictures, divided."""
    return compress.open_data("tiny:arrays", preprocessing=PREPROCESSING)


def trained(model: nn.Module, images: compress.Data, epochs: int = 4) -> nn.Module:
    """The unpruned network, as it would come from elsewhere."""
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    model.train()
    for epoch in range(epochs):
        for batch, labels in images.train.batches(64, shuffle_seed=(0, epoch)):
            loss = F.cross_entropy(answer(model, batch), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def answer(model: nn.Module, batch: Tensor) -> Tensor:
    """Logits, whether a network gives them bare or, as transformers' do, in a structure."""
    found = model(batch)
    return found if isinstance(found, Tensor) else found["logits"]


def folder(name: str) -> Path:
    """Where a loop's run lies."""
    return Path("build/loops") / name


@torch.no_grad()
def right(model: nn.Module, images: compress.Data) -> float:
    """Accuracy on the test split."""
    model.eval()
    found = [(answer(model, batch).argmax(1) == labels).float() for batch, labels in images.test.batches(256)]
    return float(torch.cat(found).mean())


def run(train: Callable[..., nn.Module], name: str, base: nn.Module | None = None) -> compress.Result:
    """Prune with somebody's own loop, and say what came of it.

    Args:
        train: the loop.
        name: of the run's folder.
        base: the unpruned network; by default the small one of this file.
    """
    torch.manual_seed(0)
    images = data()
    network = compress.network_of(trained(base or make(), images), PREPROCESSING, name)
    flags = {"method": "smoea", "value": 0.3, "round_to": 4, "budget": 3000, "epochs": 3, "batch": 64, "latency_seconds": 0.0}
    result = compress.prune(network, images, compress.make_job(flags=flags), folder(name), train=train, fresh=True)
    sizes = [sum(p.numel() for p in model.parameters()) for model in (network.model, result.model)]
    found = [right(model, images) for model in (network.model, result.model)]
    print(f"{name}: {sizes[0]:,} -> {sizes[1]:,} parameters, right {found[0]:.3f} -> {found[1]:.3f}")
    return result
