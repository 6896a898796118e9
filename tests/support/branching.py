"""Tiny networks whose code branches on the mode, on how many images there are, on their size, or on values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from support.nets import Wired, block, head
from torch import Tensor, nn


@dataclass(frozen=True)
class Branching:
    """A network in two or more forms.

    Attributes:
        make: the network.
        forms: (training, images, side) of each; a side is height and width where they differ.
        stay: layers that have to stay.
        go: layers of which channels go.
    """

    make: Callable[[], nn.Module]
    forms: tuple[tuple[bool, int, int | tuple[int, int]], ...]
    go: tuple[str, ...] = ("a.0",)
    stay: tuple[str, ...] = field(default=())


def trunk(act: Callable[[Any, Tensor, Tensor], Tensor], width: int = 8, **parts: Any) -> Callable[[], nn.Module]:
    """``act`` gets the input and 8 channels, and gives ``width`` of them."""
    return lambda: Wired(
        lambda s, x: s.head(s.c(act(s, x, s.a(x)))), a=block(3, 8), c=block(width, 6), head=head(6), **made(parts)
    )


def made(parts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part() if callable(part) and not isinstance(part, nn.Module) else part for name, part in parts.items()}


def swapped(y: Tensor) -> Tensor:
    """Its halves in the other order: channels half a width apart meet."""
    one, two = y.chunk(2, 1)
    return torch.cat([two, one], 1)


def flipped_in_training(s: Any, x: Tensor, y: Tensor) -> Tensor:
    return y + y.flip(1) if s.training else y


def swapped_in_training(s: Any, x: Tensor, y: Tensor) -> Tensor:
    return y + swapped(y) if s.training else y


def shuffled_in_training(s: Any, x: Tensor, y: Tensor) -> Tensor:
    return y * torch.sigmoid(F.channel_shuffle(y, 2)) if s.training else y


def flipped_in_evaluation(s: Any, x: Tensor, y: Tensor) -> Tensor:
    return y if s.training else y + y.flip(1)


def flipped_in_batches(s: Any, x: Tensor, y: Tensor) -> Tensor:
    return y + y.flip(1) if len(x) > 1 else y


def flipped_alone(s: Any, x: Tensor, y: Tensor) -> Tensor:
    return y + y.flip(1) if len(x) == 1 else y


def flipped_where_large(s: Any, x: Tensor, y: Tensor) -> Tensor:
    return y + y.flip(1) if x.shape[-1] > 20 else y


def swapped_where_small(s: Any, x: Tensor, y: Tensor) -> Tensor:
    return y * swapped(y) if x.shape[-1] < 6 else y


def flipped_where_wide(s: Any, x: Tensor, y: Tensor) -> Tensor:
    return y + y.flip(1) if x.shape[-1] > x.shape[-2] else y


def swapped_where_high(s: Any, x: Tensor, y: Tensor) -> Tensor:
    return y * swapped(y) if x.shape[-1] < x.shape[-2] else y


def flipped_where_odd(s: Any, x: Tensor, y: Tensor) -> Tensor:
    return y + y.flip(1) if x.shape[-1] % 2 else y


def rolled_in_batches(s: Any, x: Tensor, y: Tensor) -> Tensor:
    return y + y.roll(y.shape[1] // 2, 1) if x.shape[0] > 1 else y


def joined_in_training(s: Any, x: Tensor, y: Tensor) -> Tensor:
    """Two layers' channels meet in training only."""
    z = s.b(x)
    return torch.cat([y + z, z], 1) if s.training else torch.cat([y, z], 1)


def joined_in_batches(s: Any, x: Tensor, y: Tensor) -> Tensor:
    z = s.b(x)
    return torch.cat([y * z, z], 1) if len(x) > 1 else torch.cat([y, z], 1)


def joined_where_large(s: Any, x: Tensor, y: Tensor) -> Tensor:
    z = s.b(x)
    return torch.cat([y + z, z], 1) if x.shape[-1] > 20 else torch.cat([y, z], 1)


def normed_in_training(s: Any, x: Tensor, y: Tensor) -> Tensor:
    return y / (y.norm(dim=1, keepdim=True) + 1) if s.training else y


def noisy_of_eight(s: Any, x: Tensor, y: Tensor) -> Tensor:
    """A width in the code that training alone sees."""
    return y * torch.linspace(0.5, 1.5, 8, dtype=y.dtype).view(1, 8, 1, 1) if s.training else y


def averaged(s: Any, x: Tensor, y: Tensor) -> Tensor:
    """Statistics that training writes and nobody reads."""
    if s.training:
        s.seen.copy_(y.mean((0, 2, 3)))
    return y


class Deep(nn.Module):
    """A second head in training."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.head, self.aux = block(3, 8), block(3, 8), block(8, 6), head(6), head(8)

    def forward(self, x: Tensor) -> Any:
        y = self.a(x)
        if self.training:
            return self.head(self.c(y)), self.aux(y + self.b(x))
        return self.head(self.c(y))


TRAINING = ((False, 3, 8), (True, 3, 8))
BATCHES = ((False, 1, 8), (False, 3, 8), (True, 3, 8))
SIZES = ((False, 2, 8), (False, 2, 32), (False, 1, 4))
SHAPES = ((False, 2, 8), (False, 2, (8, 16)), (False, 2, (16, 8)), (False, 2, (9, 7)))
BRANCHING: dict[str, Branching] = {
    "flipped in training": Branching(trunk(flipped_in_training), TRAINING),
    "swapped in training": Branching(trunk(swapped_in_training), TRAINING),
    "shuffled in training": Branching(trunk(shuffled_in_training), TRAINING, ("c.0",), ("a.0",)),
    "flipped in evaluation": Branching(trunk(flipped_in_evaluation), TRAINING),
    "flipped in batches": Branching(trunk(flipped_in_batches), BATCHES),
    "flipped alone": Branching(trunk(flipped_alone), BATCHES),
    "rolled in batches": Branching(trunk(rolled_in_batches), BATCHES),
    "flipped where large": Branching(trunk(flipped_where_large), SIZES),
    "swapped where small": Branching(trunk(swapped_where_small), SIZES),
    "flipped where wide": Branching(trunk(flipped_where_wide), SHAPES),
    "swapped where high": Branching(trunk(swapped_where_high), SHAPES),
    "flipped where odd": Branching(trunk(flipped_where_odd), SHAPES),
    "joined in training": Branching(trunk(joined_in_training, 16, b=lambda: block(3, 8)), TRAINING, ("a.0", "b.0")),
    "joined in batches": Branching(trunk(joined_in_batches, 16, b=lambda: block(3, 8)), BATCHES, ("a.0", "b.0")),
    "joined where large": Branching(trunk(joined_where_large, 16, b=lambda: block(3, 8)), SIZES, ("a.0", "b.0")),
    "normed in training": Branching(trunk(normed_in_training), TRAINING, ("a.0", "c.0")),
    "noisy of eight": Branching(trunk(noisy_of_eight), TRAINING, ("c.0",), ("a.0",)),
    "averaged in training": Branching(trunk(averaged, seen=lambda: torch.arange(8)), TRAINING),
    "a second head": Branching(Deep, TRAINING, ("a.0", "b.0")),
}


# ---- values ----------------------------------------------------------------------------------------------------------


def asking(ask: Callable[[Tensor], object]) -> Callable[[], nn.Module]:
    """The network asks in one line, that of ``ask``."""
    return lambda: Wired(
        lambda s, x: s.head(s.c(s.a(x) * (2.0 if ask(s.a(x)) else 1.0))), a=block(3, 8), c=block(8, 6), head=head(6)
    )


def through_memory(y: Tensor) -> float:
    seen = torch.zeros(2, 2)
    seen[0] = y.mean()
    return float(seen.sum())


ASKING: dict[str, Callable[[Tensor], object]] = {
    "bool": lambda y: bool(y.max() > 20),
    "if": lambda y: 1 if y.max() > 20 else 0,
    "item": lambda y: y.mean().item() > 0,
    "float": lambda y: float(y.mean()) > 0,
    "int": lambda y: int(y.sum()) % 2,
    "index": lambda y: [0, 1][y.argmax() % 2],
    "numpy": lambda y: y.numpy().max() > 20,
    "asarray": lambda y: np.asarray(y).max() > 20,
    "norm of numpy": lambda y: np.linalg.norm(y.flatten()) > 20,
    "detached numpy": lambda y: y.detach().cpu().numpy().max() > 20,
    "tolist": lambda y: y.flatten().tolist()[0] > 0,
    "slice": lambda y: len(y.flatten()[: (y.sum() > 0).long()]),
    "equal": lambda y: torch.equal(y, y.abs()),
    "allclose": lambda y: torch.allclose(y, y.abs()),
    "any": lambda y: bool(y.isnan().any()),
    "comparison of items": lambda y: bool(max(y.flatten()[:3]) > 0),
    "membership": lambda y: 0 in y,
    "format": lambda y: f"{y.mean():.3f}".startswith("-"),
    "memory": through_memory,
    "is_nonzero": lambda y: torch.is_nonzero(y.mean()),
}
SILENT: dict[str, Callable[[Tensor], object]] = {
    "shape": lambda y: y.shape[1] > 4,
    "tensor of a shape": lambda y: bool(torch.tensor(y.shape).max() > 4),
    "zeros like": lambda y: float(torch.zeros_like(y).sum()) > 0,
    "constant": lambda y: float(torch.arange(5).sum()) > 3,
    "new": lambda y: bool(y.new_ones(3).any()),
    "where": lambda y: torch.where(y > 0, y, 0.0) is None,
    "clamped": lambda y: y.clamp(max=y.mean()) is None,
}
