"""Blocks of classifiers: shortcuts, concatenations, gates, shuffles, grouped and depthwise layers, norms of every kind."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from strange.parts import cba, conv
from torch import Tensor, nn


class Lambda(nn.Module):
    """Parts under names, and a function that wires them."""

    def __init__(self, forward: Callable[..., Tensor], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                self.add_module(name, part)
            else:
                self.register_parameter(name, nn.Parameter(part))
        self.wiring = forward

    def forward(self, *x: Tensor) -> Tensor:
        return self.wiring(self, *x)


class Residual(nn.Module):
    def __init__(self, w: int, inner: int, pre: bool = False, scale: bool = False) -> None:
        super().__init__()
        if pre:
            self.body = nn.Sequential(
                nn.BatchNorm2d(w), nn.ReLU(), conv(w, inner), nn.BatchNorm2d(inner), nn.ReLU(), conv(inner, w)
            )
        else:
            self.body = nn.Sequential(cba(w, inner), conv(inner, w), nn.BatchNorm2d(w))
        self.gamma = nn.Parameter(torch.rand(w, 1, 1)) if scale else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return x + (y if self.gamma is None else self.gamma * y)


class Dense(nn.Module):
    def __init__(self, i: int, growth: int, n: int, bottleneck: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for number in range(n):
            w = i + number * growth
            body = [nn.BatchNorm2d(w), nn.ReLU()]
            body += [conv(w, 2 * growth, 1), nn.BatchNorm2d(2 * growth), nn.ReLU()] if bottleneck else []
            self.layers.append(nn.Sequential(*body, conv(2 * growth if bottleneck else w, growth)))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat((x, layer(x)), 1)
        return x


class SE(nn.Module):
    def __init__(self, w: int, squeeze: int, hard: bool = False) -> None:
        super().__init__()
        self.fc1, self.fc2, self.gate = (
            nn.Conv2d(w, squeeze, 1),
            nn.Conv2d(squeeze, w, 1),
            nn.Hardsigmoid() if hard else nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


class Inverted(nn.Module):
    def __init__(
        self, w: int, expand: int, o: int | None = None, se: bool = False, act: Callable[[], nn.Module] = nn.ReLU6
    ) -> None:
        super().__init__()
        o, mid = o or w, w * expand
        gate = [SE(mid, max(4, mid // 4), True)] if se else []
        self.body = nn.Sequential(
            cba(w, mid, 1, act=act), cba(mid, mid, g=mid, act=act), *gate, conv(mid, o, 1), nn.BatchNorm2d(o)
        )
        self.add = o == w

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return x + y if self.add else y


def shuffle(x: Tensor, groups: int) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class ShuffleV1(nn.Module):
    def __init__(self, w: int, mid: int, groups: int) -> None:
        super().__init__()
        self.a, self.b, self.c, self.groups = cba(w, mid, 1, g=groups), cba(mid, mid, g=mid), conv(mid, w, 1, g=groups), groups

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.c(self.b(shuffle(self.a(x), self.groups))))


class ShuffleV2(nn.Module):
    def __init__(self, w: int) -> None:
        super().__init__()
        h = w // 2
        self.branch = nn.Sequential(cba(h, h, 1), conv(h, h, g=h), nn.BatchNorm2d(h), cba(h, h, 1))

    def forward(self, x: Tensor) -> Tensor:
        one, two = x.chunk(2, dim=1)
        return shuffle(torch.cat((one, self.branch(two)), 1), 2)


class Res2(nn.Module):
    """Res2Net: pieces one after another, split by an attribute."""

    def __init__(self, w: int, pieces: int = 4) -> None:
        super().__init__()
        self.width = w // pieces
        self.into, self.out = cba(w, w, 1), cba(w, w, 1)
        self.steps = nn.ModuleList(cba(self.width, self.width) for _ in range(pieces - 1))

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.split(self.into(x), self.width, 1)
        made = [parts[0]]
        for step, part in zip(self.steps, parts[1:], strict=True):
            made.append(step(part if len(made) == 1 else part + made[-1]))
        return self.out(torch.cat(made, 1))


class Mixed(nn.Module):
    """MixConv: unequal pieces, each with a kernel of its own, by a list that an attribute holds."""

    def __init__(self, splits: list[int]) -> None:
        super().__init__()
        self.splits = splits
        self.convs = nn.ModuleList(conv(s, s, 3 + 2 * i, g=s) for i, s in enumerate(splits))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([c(p) for c, p in zip(self.convs, x.split(self.splits, 1), strict=True)], 1)


class Ghost(nn.Module):
    def __init__(self, i: int, o: int, sliced: bool) -> None:
        super().__init__()
        self.oup, half = o, o // 2 if not sliced else (o + 2) // 2
        self.primary, self.cheap, self.sliced = cba(i, half, 1), cba(half, half, g=half), sliced

    def forward(self, x: Tensor) -> Tensor:
        one = self.primary(x)
        both = torch.cat((one, self.cheap(one)), 1)
        return both[:, : self.oup] if self.sliced else both


class SplitAttention(nn.Module):
    def __init__(self, w: int) -> None:
        super().__init__()
        self.conv, self.fc1, self.fc2 = cba(w, 2 * w, g=2), nn.Conv2d(w, 8, 1), nn.Conv2d(8, 2 * w, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        n, c, h, w = y.shape
        y = y.view(n, 2, c // 2, h, w)
        gate = self.fc2(F.relu(self.fc1(y.sum(1).mean((2, 3), keepdim=True)))).view(n, 2, c // 2, 1, 1).softmax(1)
        return (y * gate).sum(1)


class SK(nn.Module):
    def __init__(self, w: int) -> None:
        super().__init__()
        self.a, self.b, self.fc = cba(w, w), cba(w, w, 5), nn.Sequential(nn.Linear(w, 8), nn.ReLU())
        self.fa, self.fb = nn.Linear(8, w), nn.Linear(8, w)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x)
        z = self.fc((a + b).mean((2, 3)))
        gate = torch.stack((self.fa(z), self.fb(z)), 1).softmax(1)
        return a * gate[:, 0, :, None, None] + b * gate[:, 1, :, None, None]


class Coordinate(nn.Module):
    def __init__(self, w: int) -> None:
        super().__init__()
        self.squeeze, self.high, self.wide = cba(w, 8, 1), nn.Conv2d(8, w, 1), nn.Conv2d(8, w, 1)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        y = self.squeeze(torch.cat((x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)), 2))
        one, two = y.split((h, w), 2)
        return x * self.high(one).sigmoid() * self.wide(two.transpose(2, 3)).sigmoid()


class OverChannels(nn.Module):
    """A computation over channels, that the mask can run on some of them.

    Attributes:
        dim: where the channels of its input stand.
        channels_as: the tensor that has a row for each of them, as its parent names it.
    """

    def __init__(self, what: Callable[[Tensor], Tensor], dim: int, channels_as: str) -> None:
        super().__init__()
        self.what, self.dim, self.channels_as = what, dim, channels_as

    def forward(self, x: Tensor) -> Tensor:
        return self.what(x)


def mean_and_largest(x: Tensor) -> Tensor:
    return torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), 1)


def mean_of_last(x: Tensor) -> Tensor:
    return x.mean(-1, keepdim=True)


class CBAM(nn.Module):
    def __init__(self, w: int) -> None:
        super().__init__()
        self.seen = OverChannels(mean_and_largest, 1, "mlp.2.weight")
        self.mlp, self.look = nn.Sequential(nn.Linear(w, 6), nn.ReLU(), nn.Linear(6, w)), conv(2, 1, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = x * (self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3)))).sigmoid()[..., None, None]
        return x * self.look(self.seen(x)).sigmoid()


class Norm2d(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


class HandNorm2d(nn.Module):
    """NAFNet's: moments over the channels by hand."""

    def __init__(self, w: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(w)), nn.Parameter(torch.zeros(w))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        y = (x - mean) / (variance + 1e-6).sqrt()
        return self.weight.view(1, -1, 1, 1) * y + self.bias.view(1, -1, 1, 1)


class ConvNeXt(nn.Module):
    def __init__(self, w: int, grn: bool = False) -> None:
        super().__init__()
        self.dw, self.norm, self.a, self.b = conv(w, w, 7, g=w), nn.LayerNorm(w), nn.Linear(w, 4 * w), nn.Linear(4 * w, w)
        self.gamma = nn.Parameter(torch.rand(w))
        self.scale, self.mean = nn.Parameter(torch.rand(4 * w)) if grn else None, OverChannels(mean_of_last, -1, "scale")

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.a(self.norm(self.dw(x).permute(0, 2, 3, 1))))
        if self.scale is not None:
            reach = y.norm(dim=(1, 2), keepdim=True)
            y = y + self.scale * y * (reach / (self.mean(reach) + 1e-6))
        return x + (self.gamma * self.b(y)).permute(0, 3, 1, 2)


class NAF(nn.Module):
    """SimpleGate and simplified channel attention, beta and gamma."""

    def __init__(self, w: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.n1, self.n2 = norm(w), norm(w)
        self.c1, self.c2, self.sca, self.c3 = conv(w, 2 * w, 1), conv(2 * w, 2 * w, g=2 * w), nn.Conv2d(w, w, 1), conv(w, w, 1)
        self.c4, self.c5 = conv(w, 2 * w, 1), conv(w, w, 1)
        self.beta, self.gamma = nn.Parameter(torch.rand(1, w, 1, 1)), nn.Parameter(torch.rand(1, w, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.c2(self.c1(self.n1(x))).chunk(2, 1)
        y = one * two
        x = x + self.c3(y * self.sca(y.mean((2, 3), keepdim=True))) * self.beta
        one, two = self.c4(self.n2(x)).chunk(2, 1)
        return x + self.c5(one * two) * self.gamma


class RepVGG(nn.Module):
    def __init__(self, w: int) -> None:
        super().__init__()
        self.a, self.b, self.same = conv(w, w), conv(w, w, 1), nn.BatchNorm2d(w)
        self.na, self.nb = nn.BatchNorm2d(w), nn.BatchNorm2d(w)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.na(self.a(x)) + self.nb(self.b(x)) + self.same(x))


class Partial(nn.Module):
    """FasterNet's: a quarter of the channels is convolved, the others pass; the share is of what arrives."""

    def __init__(self, w: int, fixed: bool) -> None:
        super().__init__()
        self.part, self.fixed = conv(w // 4, w // 4), w // 4 if fixed else 0
        self.out = cba(w, w, 1)

    def forward(self, x: Tensor) -> Tensor:
        k = self.fixed or x.shape[1] // 4
        return x + self.out(torch.cat((self.part(x[:, :k]), x[:, k:]), 1))


class Octave(nn.Module):
    def __init__(self, w: int) -> None:
        super().__init__()
        self.hh, self.hl, self.lh, self.ll = conv(w, w), conv(w, w), conv(w, w), conv(w, w)

    def forward(self, x: Tensor) -> Tensor:
        high, low = x, F.avg_pool2d(x, 2)
        h = self.hh(high) + F.interpolate(self.lh(low), size=high.shape[2:])
        return F.relu(h) + F.interpolate(F.relu(self.ll(low) + self.hl(F.avg_pool2d(high, 2))), size=high.shape[2:])


class Pooled(nn.Module):
    """ASPP and PSP: branches of other sizes, one of them a global pool, joined."""

    def __init__(self, w: int, pools: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(nn.AdaptiveAvgPool2d(p), nn.Conv2d(w, 8, 1), nn.ReLU()) for p in pools)
        self.dilated = nn.Sequential(nn.Conv2d(w, 8, 3, padding=2, dilation=2, bias=False), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        sizes = x.shape[2:]
        return torch.cat([self.dilated(x), *(F.interpolate(b(x), size=sizes, mode="bilinear") for b in self.branches)], 1)
