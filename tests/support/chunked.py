"""Tiny networks whose code divides channels by count: chunks, splits, slices, views, shuffles.

Cut are those whose code follows the width; those that hold a constant stay, with the reason.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from support.nets import Net, Wired, block, conv, head
from torch import Tensor, nn


class CrossStage(nn.Module):
    """C2f of YOLOv8: one half passes, the other goes through blocks one after another, and all that was made is joined."""

    def __init__(self, blocks: int = 1, shortcut: bool = True, width: int = 6, inner: int = 6) -> None:
        super().__init__()
        self.stem, self.into = block(3, 8), block(8, 2 * width, 1)
        self.steps = nn.ModuleList(nn.Sequential(block(width, inner), block(inner, width)) for _ in range(blocks))
        self.out, self.head, self.shortcut = block((2 + blocks) * width, 8, 1), head(8), shortcut

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.into(self.stem(x)).chunk(2, 1))
        for step in self.steps:
            made = step(parts[-1])
            parts.append(parts[-1] + made if self.shortcut else made)
        return self.head(self.out(torch.cat(parts, 1)))


class Aggregation(nn.Module):
    """GELAN's way, nested: a half of a block is chunked again by the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = block(3, 12), block(6, 8), block(4, 6)
        self.out, self.head = block(6 + 4 + 4 + 6, 8, 1), head(8)

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.stem(x).chunk(2, 1)
        three, four = self.a(two).chunk(2, 1)
        return self.head(self.out(torch.cat([one, three, four, self.b(four)], 1)))


class Largest(nn.Module):
    """Light CNN's max-feature-map, whose module holds the width: the halves go in pairs, and the number follows."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head, self.out = block(3, 10), block(5, 6), head(6), 5

    def forward(self, x: Tensor) -> Tensor:
        one, two = torch.split(self.a(x), self.out, 1)
        return self.head(self.b(torch.max(one, two)))


class Overwritten(nn.Module):
    """FasterNet's partial convolution at inference: the first channels are replaced where they stand."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.part, self.width = block(3, 8), conv(4, 4), 4
        self.c, self.head = block(8, 6), head(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = x.clone()
        y[:, : self.width] = self.part(x[:, : self.width])
        return self.head(self.c(y))


class ByAttribute(nn.Module):
    """Pieces whose sizes the module holds: a number, a list, or two numbers."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.stem, self.a = kind, block(3, 8), block(8, 12)
        self.width, self.sizes, self.one, self.two = 4, [3, 4, 5], 7, 5
        pieces = {"number": (4, 4, 4), "list": (3, 4, 5), "numbers": (7, 5), "border": (7, 5)}[kind]
        self.parts = nn.ModuleList(block(p, 4) for p in pieces)
        self.c, self.head = block(4 * len(pieces) + (12 if kind == "border" else 0), 6), head(6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(self.stem(x))
        if self.kind == "number":
            pieces = y.split(self.width, 1)
        elif self.kind == "list":
            pieces = y.split(self.sizes, 1)
        elif self.kind == "numbers":
            pieces = y.split((self.one, self.two), 1)
        else:
            pieces = (y[:, : self.one], y[:, self.one :])
        made = [part(piece) for part, piece in zip(self.parts, pieces, strict=True)]
        return self.head(self.c(torch.cat([*made, *([y] if self.kind == "border" else [])], 1)))


def quarters(s: Any, x: Tensor) -> Tensor:
    """Each half is halved again: one number for all four."""
    one, two = s.a(x).chunk(2, 1)
    three, four = two.chunk(2, 1)
    return s.head(s.c(torch.cat([s.b(one), three, s.d(four)], 1)))


def swapped(s: Any, x: Tensor) -> Tensor:
    one, two = s.a(x).chunk(2, 1)
    return s.head(s.c(torch.cat([two, one], 1)))


def thirds(s: Any, x: Tensor) -> Tensor:
    one, two, three = s.a(x).chunk(3, 1)
    return s.head(s.c(torch.cat([one * torch.sigmoid(two), three], 1)))


def halves_by_slices(s: Any, x: Tensor) -> Tensor:
    y = s.a(x)
    half = y.shape[1] // 2
    return s.head(s.b(y[:, :half]) + s.c(y[:, half:]))


def shuffled(s: Any, x: Tensor) -> Tensor:
    """Channel shuffle that reads the width off the activation."""
    y = s.a(x)
    n, c, h, w = y.shape
    return s.head(s.c(y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)))


def joined_then_split(s: Any, x: Tensor) -> Tensor:
    """The pieces are not the layers that are joined: what stands at the same place of each piece goes together."""
    one, two, three = torch.cat([s.a(x), s.b(x)], 1).chunk(3, 1)
    return s.head(s.c(one) + s.d(two) + s.e(three))


def gated(s: Any, x: Tensor) -> Tensor:
    """SimpleGate: the halves multiply each other, so they go in pairs without more."""
    one, two = s.a(x).chunk(2, 1)
    return s.head(s.c(one * two))


def literal_split(s: Any, x: Tensor) -> Tensor:
    one, two = s.a(x).split([4, 4], 1)
    return s.head(s.b(one) + s.c(two))


def uneven_split(s: Any, x: Tensor) -> Tensor:
    one, two = s.a(x).split([3, 5], 1)
    return s.head(s.b(one) + s.c(two))


def shuffled_by_constant(s: Any, x: Tensor) -> Tensor:
    y = s.a(x)
    n, _, h, w = y.shape
    return s.head(s.c(y.view(n, 2, 4, h, w).transpose(1, 2).reshape(n, 8, h, w)))


def partial(s: Any, x: Tensor) -> Tensor:
    """PartialConv with a constant: the first three channels are convolved, the others pass."""
    y = s.a(x)
    return s.head(s.c(torch.cat([s.b(y[:, :3]), y[:, 3:]], 1)))


def stacked(s: Any, x: Tensor) -> Tensor:
    """Two layers interleaved: of each pair both go."""
    return s.head(s.c(torch.stack([s.a(x), s.b(x)], 2).flatten(1, 2)))


def beside_each_other(s: Any, x: Tensor) -> Tensor:
    """Joined along the image's width, and then every place is a feature of its own."""
    return s.last(torch.cat([s.a(x), s.b(x)], 3).flatten(1))


def beside_attention(s: Any, x: Tensor) -> Tensor:
    """One half makes the output too, so neither may lose a channel."""
    one, two = s.a(x).chunk(2, 1)
    return s.head(s.c(one)), two


CHUNKED: dict[str, Net] = {
    "cross-stage": Net(CrossStage, free=["stem.0", "into.0", "steps.0.0.0", "out.0"]),
    "cross-stage-deep": Net(lambda: CrossStage(3), free=["into.0", "steps.2.0.0", "out.0"]),
    "cross-stage-plain": Net(lambda: CrossStage(2, False), free=["into.0", "steps.0.0.0", "steps.1.1.0", "out.0"]),
    "aggregation": Net(Aggregation, free=["stem.0", "a.0", "b.0", "out.0"]),
    "quarters": Net(
        lambda: Wired(quarters, a=block(3, 12), b=block(6, 4), d=block(3, 4), c=block(4 + 3 + 4, 6), head=head(6)),
        free=["a.0", "b.0", "d.0", "c.0"],
    ),
    "swapped": Net(lambda: Wired(swapped, a=block(3, 8), c=block(8, 6), head=head(6)), free=["a.0", "c.0"]),
    "thirds": Net(lambda: Wired(thirds, a=block(3, 12), c=block(8, 6), head=head(6)), free=["a.0", "c.0"]),
    "slices": Net(
        lambda: Wired(halves_by_slices, a=block(3, 8), b=block(4, 6), c=block(4, 6), head=head(6)), free=["a.0", "b.0"]
    ),
    "shuffled": Net(lambda: Wired(shuffled, a=block(3, 8), c=block(8, 6), head=head(6)), free=["a.0", "c.0"]),
    "joined-then-split": Net(
        lambda: Wired(
            joined_then_split, a=block(3, 8), b=block(3, 4), c=block(4, 6), d=block(4, 6), e=block(4, 6), head=head(6)
        ),
        free=["a.0", "c.0"],
    ),
    "gated": Net(lambda: Wired(gated, a=block(3, 8), c=block(4, 6), head=head(6)), free=["a.0", "c.0"]),
    "stacked": Net(lambda: Wired(stacked, a=block(3, 4), b=block(3, 4), c=block(8, 6), head=head(6)), free=["a.0", "c.0"]),
    "side-by-side": Net(
        lambda: Wired(beside_each_other, a=block(3, 4), b=block(3, 4), last=nn.Linear(4 * 8 * 16, 4)), free=["a.0"]
    ),
    "pixel-shuffle-flat": Net(
        lambda: nn.Sequential(block(3, 8), nn.PixelShuffle(2), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(32, 4)),
        free=["0.0"],
    ),
    "by-number": Net(lambda: ByAttribute("number"), free=["stem.0", "a.0", "parts.0.0", "c.0"]),
    "by-list": Net(lambda: ByAttribute("list"), free=["stem.0", "a.0", "parts.2.0", "c.0"]),
    "by-numbers": Net(lambda: ByAttribute("numbers"), free=["stem.0", "a.0", "parts.1.0", "c.0"]),
    "by-border": Net(lambda: ByAttribute("border"), free=["stem.0", "a.0", "parts.0.0", "c.0"]),
    "largest-by-number": Net(Largest, free=["a.0", "b.0"]),
    "overwritten": Net(Overwritten, free=["stem.0", "c.0"]),
    "literal-split": Net(
        lambda: Wired(literal_split, a=block(3, 8), b=block(4, 6), c=block(4, 6), head=head(6)), free=["b.0"],
        why={"a.0": "constant in the code"},
    ),
    "uneven-split": Net(
        lambda: Wired(uneven_split, a=block(3, 8), b=block(3, 6), c=block(5, 6), head=head(6)), free=["b.0"],
        why={"a.0": "into pieces of 3, 5 channels"},
    ),
    "shuffled-by-constant": Net(
        lambda: Wired(shuffled_by_constant, a=block(3, 8), c=block(8, 6), head=head(6)), free=["c.0"],
        why={"a.0": "constant in the code"},
    ),
    "partial": Net(lambda: Wired(partial, a=block(3, 8), b=block(3, 3), c=block(8, 6), head=head(6)), free=["a.0", "c.0"]),
    "beside-what-stays": Net(
        lambda: Wired(beside_attention, a=block(3, 8), c=block(4, 6), head=head(6)), free=["c.0"],
        why={"a.0": "it makes the network's output"},
    ),
    "gated-by-glu": Net(
        lambda: Wired(
            lambda s, x: s.head(s.c(F.glu(s.a(x), 1) + s.b(x))), a=block(3, 8), b=conv(3, 4), c=block(4, 6), head=head(6)
        ),
        free=["a.0", "c.0"],
    ),
}  # fmt: skip
