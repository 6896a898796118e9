"""Tiny networks with identity shortcuts: one for each way in which people write them.

``without`` names what a network's own code leaves out: that is what a plan that names the same branches has to compute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from support.nets import ALL, Net, block, conv, head
from torch import Tensor, nn


class Shortcut(nn.Module):
    """Something that adds to shortcuts, unless it is told not to."""

    def __init__(self) -> None:
        super().__init__()
        self.without: frozenset[str] = frozenset()

    def plus(self, x: Tensor, branch: Tensor, name: str = "") -> Tensor:
        return x if name in self.without else x + branch


def leave_out(model: nn.Module, names: frozenset[str]) -> None:
    """Tells every part of a network which branches it shall not add: by its own name, or by that of a module in it."""
    for name, module in model.named_modules():
        if isinstance(module, Shortcut):
            inside = {n.removeprefix(f"{name}.") if name else n for n in names if n.startswith(name)}
            module.without = frozenset(inside | ({""} if name in names else set()))


def normed(i: int, o: int, k: int = 3, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(conv(i, o, k, bias=False, groups=groups), nn.BatchNorm2d(o))


class Basic(Shortcut):
    """ResNet's: one activation module for both places, in place."""

    def __init__(self, wide: int = 8, act: Callable[[], nn.Module] = lambda: nn.ReLU(inplace=True)) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(wide, 6, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = conv(6, wide, bias=False), nn.BatchNorm2d(wide)
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))
        if "" in self.without:
            out = torch.zeros_like(out)
        out += x
        return self.act(out)


class PreActivated(Shortcut):
    """ResNet v2's."""

    def __init__(self, wide: int = 8) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(wide), conv(wide, 6, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(6), conv(6, wide, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.plus(x, self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x)))))))


class Inverted(Shortcut):
    """MobileNet's and EfficientNet's: expansion, depthwise, a gate, no activation at the end."""

    def __init__(self, wide: int = 8, inner: int = 12) -> None:
        super().__init__()
        self.expand, self.depth = block(wide, inner, 1), block(inner, inner, groups=inner)
        self.squeeze, self.excite = conv(inner, 4, 1), conv(4, inner, 1)
        self.project, self.drop = normed(inner, wide, 1), nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.depth(self.expand(x))
        y = y * torch.sigmoid(self.excite(F.silu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        return self.plus(x, self.drop(self.project(y)))


class Next(Shortcut):
    """ConvNeXt's: NHWC inside, a scale for each channel that is the block's own parameter."""

    def __init__(self, wide: int = 8) -> None:
        super().__init__()
        self.depth, self.norm = conv(wide, wide, groups=wide), nn.LayerNorm(wide)
        self.up, self.down = nn.Linear(wide, 12), nn.Linear(12, wide)
        self.gamma = nn.Parameter(torch.rand(wide) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(F.gelu(self.up(self.norm(self.depth(x).permute(0, 2, 3, 1)))))
        return self.plus(x, (self.gamma * y).permute(0, 3, 1, 2))


class Grouped(Shortcut):
    """RegNet's: grouped, and the activation functional."""

    def __init__(self, wide: int = 8) -> None:
        super().__init__()
        self.f = nn.Sequential(block(wide, 8, 1), block(8, 8, groups=2), normed(8, wide, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.plus(x, self.f(x)))


class TwoInOne(Shortcut):
    """Two branches of one module, the second one an activation's at other than torch's own settings."""

    def __init__(self, wide: int = 8) -> None:
        super().__init__()
        self.mix, self.feed = normed(wide, wide), nn.Sequential(block(wide, 6, 1), normed(6, wide, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.plus(x, self.mix(x), "mix"), 0.2)
        return self.plus(x, self.feed(x), "feed")


class CrossStageBlocks(nn.Module):
    """C2f's: the shortcut is a piece of a chunk, and what each step makes is read again at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.m = block(8, 8, 1), nn.ModuleList(Bottleneck(4) for _ in range(2))
        self.last = block(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = list(self.first(x).chunk(2, 1))
        for step in self.m:
            y.append(step(y[-1]))
        return self.last(torch.cat(y, 1))


class Bottleneck(Shortcut):
    def __init__(self, wide: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = block(wide, 4), block(4, wide)

    def forward(self, x: Tensor) -> Tensor:
        return self.plus(x, self.cv2(self.cv1(x)))


class Nested(Shortcut):
    """Residual blocks inside a residual group (RCAN's, EDSR's)."""

    def __init__(self, wide: int = 8) -> None:
        super().__init__()
        self.blocks, self.end = nn.Sequential(PreActivated(wide), Basic(wide)), conv(wide, wide)

    def forward(self, x: Tensor) -> Tensor:
        return self.plus(x, self.end(self.blocks(x)))


class InRoot(Shortcut):
    """All wired in the network's own forward."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = block(3, 8), block(8, 6), normed(6, 8)
        self.read, self.head = block(8, 6), head(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.read(F.silu(self.plus(x, self.b(self.a(x)), "b"))))


class Leaky(nn.Module):
    """What the branch computes on its way is read by somebody else as well."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = block(8, 6), normed(6, 8), block(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return (x + self.b(y)) * torch.sigmoid(self.c(y))


class TiedBlocks(nn.Module):
    """Two blocks, one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = PreActivated(), PreActivated()
        self.two.conv1.weight = self.one.conv1.weight

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.two(self.one(x))
        return result


class Recurrent(nn.Module):
    """One block, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.block = PreActivated()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.block(self.block(x))
        return result


class Bare(nn.Module):
    """The convolution of the branch is no module, nor is the addition's."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.kernel = block(8, 6), nn.Parameter(torch.randn(8, 6, 3, 3) / 5)

    def forward(self, x: Tensor) -> Tensor:
        return (x + F.conv2d(self.a(x), self.kernel, padding=1)) * 0.5


class LooksInside(nn.Module):
    """Its code looks into a module of the branch, and multiplies what is left: it does not run without."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(8, 6), normed(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.b(self.a(x) * (1.0 / self.a.out_channels))) * 0.5


def with_parts(*parts: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """A stem, these parts, a layer that reads them, a head."""
    return lambda: nn.Sequential(block(3, 8), *(part() for part in parts), block(8, 6), head(6))


@dataclass(frozen=True)
class Case:
    """A network with shortcuts.

    Attributes:
        make: the network.
        branches: its branches' names.
        inner: branches inside others.
        kept: branch -> a pattern of why it stays.
    """

    make: Callable[[], nn.Module]
    branches: tuple[str, ...]
    inner: tuple[str, ...] = ()
    kept: Mapping[str, str] = field(default_factory=dict)


SHORTCUTS: dict[str, Case] = {
    "resnet": Case(with_parts(Basic, Basic), ("1", "2")),
    "resnet-v2": Case(with_parts(PreActivated, PreActivated), ("1", "2")),
    "mobilenet": Case(with_parts(Inverted, Inverted), ("1", "2")),
    "convnext": Case(with_parts(Next, Next), ("1", "2")),
    "regnet": Case(with_parts(Grouped, Grouped), ("1", "2")),
    "c2f": Case(with_parts(CrossStageBlocks), ("1.m.0", "1.m.1")),
    "two-in-one": Case(with_parts(TwoInOne), ("1.mix", "1.feed")),
    "nested": Case(with_parts(Nested), ("1.blocks.0", "1.blocks.1", "1"), inner=("1.blocks.0", "1.blocks.1")),
    "in-root": Case(InRoot, ("b",)),
    "odd-activation": Case(with_parts(lambda: Basic(8, lambda: nn.LeakyReLU(0.3))), ("1",)),
    "prelu": Case(with_parts(lambda: Basic(8, lambda: nn.PReLU())), ("1",)),
    "leaky": Case(with_parts(Leaky), (), kept={"1": "used elsewhere"}),
    "tied-blocks": Case(with_parts(TiedBlocks), (), kept={"1.one": "one tensor", "1.two": "one tensor"}),
    "run twice": Case(with_parts(Recurrent), (), kept={"1.block": "runs once"}),
    "bare": Case(with_parts(Bare), (), kept={"1": "not the output of a module"}),
    "looks-inside": Case(with_parts(LooksInside), (), kept={"1": "no attribute"}),
}

WITH_BRANCHES = tuple(name for name, case in SHORTCUTS.items() if case.branches)

assert not ALL.keys() & SHORTCUTS.keys(), "a name is one network's"
ALL |= {name: Net(case.make) for name, case in SHORTCUTS.items()}
