"""Networks that are no classifiers of one picture: restoration, segmentation, sound, volumes, several inputs or outputs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from strange.blocks import NAF, HandNorm2d, Lambda
from strange.parts import Case, cba, classify, conv
from torch import Tensor, nn


class UNet(nn.Module):
    def __init__(self, w: int = 8, transposed: bool = True, nested: bool = False) -> None:
        super().__init__()
        self.d1, self.d2, self.d3 = cba(3, w), cba(w, 2 * w), cba(2 * w, 4 * w)
        self.u2 = (
            nn.ConvTranspose2d(4 * w, 2 * w, 2, 2)
            if transposed
            else nn.Sequential(nn.Upsample(scale_factor=2), conv(4 * w, 2 * w, 1))
        )
        self.u1 = (
            nn.ConvTranspose2d(2 * w, w, 2, 2) if transposed else nn.Sequential(nn.Upsample(scale_factor=2), conv(2 * w, w, 1))
        )
        self.b2, self.b1 = cba(4 * w, 2 * w), cba((3 if nested else 2) * w, w)
        self.mid = nn.Sequential(nn.Upsample(scale_factor=2), conv(2 * w, w, 1)) if nested else None
        self.out = nn.Conv2d(w, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.d1(x)
        b = self.d2(F.max_pool2d(a, 2))
        c = self.d3(F.max_pool2d(b, 2))
        y = self.b2(torch.cat((self.u2(c), b), 1))
        more = () if self.mid is None else (self.mid(b),)
        return self.out(self.b1(torch.cat((self.u1(y), a, *more), 1)))


class EDSR(nn.Module):
    def __init__(self, w: int = 16, blocks: int = 2, scale: int = 2, attention: bool = False) -> None:
        super().__init__()
        self.head, self.tail = (
            conv(3, w, bias=True),
            nn.Sequential(conv(w, w * scale**2, bias=True), nn.PixelShuffle(scale), conv(w, 3, bias=True)),
        )
        self.body = nn.ModuleList(nn.Sequential(conv(w, w, bias=True), nn.ReLU(), conv(w, w, bias=True)) for _ in range(blocks))
        self.gates = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(w, 4, 1), nn.ReLU(), nn.Conv2d(4, w, 1), nn.Sigmoid())
            for _ in range(blocks if attention else 0)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = first = self.head(x)
        for number, block in enumerate(self.body):
            z = block(y)
            y = y + 0.1 * (z * self.gates[number](z) if len(self.gates) else z)
        return self.tail(y + first)


class RRDB(nn.Module):
    def __init__(self, w: int = 12, growth: int = 8) -> None:
        super().__init__()
        self.first, self.last = conv(3, w, bias=True), conv(w, 3, bias=True)
        self.convs = nn.ModuleList(conv(w + i * growth, growth if i < 3 else w, bias=True) for i in range(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        made = [y]
        for c in self.convs[:-1]:
            made.append(F.leaky_relu(c(torch.cat(made, 1)), 0.2))
        return self.last(y + 0.2 * self.convs[-1](torch.cat(made, 1)))


class Generator(nn.Module):
    def __init__(self, w: int = 16) -> None:
        super().__init__()
        self.start = nn.Linear(8, 2 * w * 4)
        self.body = nn.Sequential(
            nn.BatchNorm2d(2 * w),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * w, w, 4, 2, 1, bias=False),
            nn.BatchNorm2d(w),
            nn.ReLU(),
            nn.ConvTranspose2d(w, 3, 4, 2, 1),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.body(self.start(z).view(len(z), -1, 2, 2)).tanh()


class Wave(nn.Module):
    """WaveNet: dilated, gated, with skips."""

    def __init__(self, w: int = 16, layers: int = 3) -> None:
        super().__init__()
        self.start = nn.Conv1d(1, w, 1)
        self.gated = nn.ModuleList(nn.Conv1d(w, 2 * w, 3, padding=2**i, dilation=2**i) for i in range(layers))
        self.skip, self.stay = (
            nn.ModuleList(nn.Conv1d(w, 12, 1) for _ in range(layers)),
            nn.ModuleList(nn.Conv1d(w, w, 1) for _ in range(layers)),
        )
        self.out = nn.Conv1d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y, told = self.start(x), 0
        for gated, skip, stay in zip(self.gated, self.skip, self.stay, strict=True):
            one, two = gated(y).chunk(2, 1)
            z = one.tanh() * two.sigmoid()
            told, y = told + skip(z), y + stay(z)
        return self.out(F.relu(told))


class Siamese(nn.Module):
    def __init__(self, w: int = 12) -> None:
        super().__init__()
        self.trunk, self.head = nn.Sequential(cba(3, w), cba(w, 2 * w, 3, 2), cba(2 * w, 16)), classify(16)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        return self.head((self.trunk(before) - self.trunk(after)).abs())


class Fusion(nn.Module):
    def __init__(self, joined: bool = True) -> None:
        super().__init__()
        self.image, self.depth, self.joined = (
            nn.Sequential(cba(3, 12), cba(12, 12)),
            nn.Sequential(cba(1, 8), cba(8, 12)),
            joined,
        )
        self.tail, self.head = cba(24 if joined else 12, 16), classify(16)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        a, b = self.image(inputs["image"]), self.depth(inputs["depth"])
        y = self.tail(torch.cat((a, b), 1) if self.joined else a + b)
        return {"logits": self.head(y), "features": y.mean((2, 3))}


class Auxiliary(nn.Module):
    """An auxiliary head in training mode only, as Inception's."""

    def __init__(self, w: int = 12) -> None:
        super().__init__()
        self.a, self.b, self.head = cba(3, w), cba(w, 16), classify(16)
        self.extra = nn.Sequential(cba(w, 12), classify(12))

    def forward(self, x: Tensor) -> Any:
        y = self.a(x)
        out = self.head(self.b(y))
        return (out, self.extra(y)) if self.training else out


def keyword(tensors: tuple[Tensor, ...]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (), {"before": tensors[0], "after": tensors[1]}


def mapping(tensors: tuple[Tensor, ...]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return ({"image": tensors[0], "depth": tensors[1]},), {}


PAIR, PAIR2 = ((1, 3, 16, 16),) * 2, ((1, 3, 20, 24),) * 2
BOTH, BOTH2 = ((1, 3, 16, 16), (1, 1, 16, 16)), ((1, 3, 24, 16), (1, 1, 24, 16))


def sound(structure: str, name: str, make: Any, channels: int = 1) -> Case:
    return Case(structure, name, make, ((1, channels, 48),), ((1, channels, 64),))


def volume(structure: str, name: str, make: Any) -> Case:
    return Case(structure, name, make, ((1, 2, 4, 8, 8),), ((1, 2, 6, 8, 10),))


def c1(i: int, o: int, k: int = 3, s: int = 1, g: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(i, o, k, s, k // 2, groups=g, bias=False), nn.BatchNorm1d(o), nn.ReLU())


def c3(i: int, o: int, k: Any = 3, p: Any = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(i, o, k, padding=p, bias=False), nn.BatchNorm3d(o), nn.ReLU())


CASES = [
    *(Case("U-Net", f"unet-{w}-{'t' if t else 'u'}", lambda w=w, t=t: UNet(w, t)) for w in (8, 12) for t in (True, False)),
    Case(
        "U-Net with a gate",
        "unet-gated",
        lambda: Lambda(
            lambda s, x: s.o(torch.cat((s.u(b := s.b(F.max_pool2d(a := s.a(x), 2))), a * s.g(s.u(b)).sigmoid()), 1)),
            a=cba(3, 12),
            b=cba(12, 16),
            u=nn.ConvTranspose2d(16, 12, 2, 2),
            g=conv(12, 12, 1, bias=True),
            o=nn.Conv2d(24, 3, 1),
        ),
    ),
    Case(
        "segmentation by unshuffling",
        "icnet",
        lambda: nn.Sequential(nn.PixelUnshuffle(2), cba(12, 16), cba(16, 24), conv(24, 16), nn.PixelShuffle(2), conv(4, 3)),
    ),
    Case("U-Net, nested", "unet-nested", lambda: UNet(8, True, True)),
    *(Case("super-resolution", f"edsr-{s}-{b}", lambda s=s, b=b: EDSR(16, b, s)) for s, b in ((2, 1), (2, 3), (3, 2))),
    Case("super-resolution with attention", "rcan", lambda: EDSR(16, 2, 2, True)),
    Case("residual in residual dense", "rrdb", RRDB),
    Case("residual in residual dense", "rrdb-wide", lambda: RRDB(16, 12)),
    Case("restoration", "nafnet", lambda: nn.Sequential(conv(3, 12, bias=True), NAF(12, HandNorm2d), conv(12, 3, bias=True))),
    Case("generator", "dcgan", Generator, ((1, 8),), ()),
    Case("generator", "dcgan-wide", lambda: Generator(24), ((1, 8),), ()),
    Case(
        "autoencoder",
        "autoencoder",
        lambda: nn.Sequential(
            cba(3, 12, 3, 2), cba(12, 24, 3, 2), nn.ConvTranspose2d(24, 12, 2, 2), nn.ReLU(), nn.ConvTranspose2d(12, 3, 2, 2)
        ),
    ),
    Case(
        "grouped transposed",
        "transposed-groups",
        lambda: nn.Sequential(cba(3, 12), nn.ConvTranspose2d(12, 12, 2, 2, groups=3), nn.ReLU(), conv(12, 3)),
    ),
    Case(
        "depthwise transposed",
        "transposed-depthwise",
        lambda: nn.Sequential(cba(3, 12), nn.ConvTranspose2d(12, 12, 2, 2, groups=12), nn.ReLU(), conv(12, 3)),
    ),
    sound("gated dilated sound", "wavenet", Wave),
    sound("gated dilated sound", "wavenet-deep", lambda: Wave(12, 5)),
    sound(
        "sound",
        "m5",
        lambda: nn.Sequential(c1(1, 16, 9, 2), c1(16, 24), c1(24, 24), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(24, 5)),
    ),
    sound(
        "separable sound",
        "tasnet",
        lambda: nn.Sequential(
            nn.Conv1d(1, 12, 1),
            *(
                Lambda(lambda s, x: x + s.c(s.b(s.a(x))), a=c1(12, 24, 1), b=c1(24, 24, 3, 1, 24), c=nn.Conv1d(24, 12, 1))
                for _ in range(2)
            ),
            nn.Conv1d(12, 3, 1),
        ),
    ),
    sound(
        "many bands",
        "eeg",
        lambda: nn.Sequential(
            c1(6, 16, 5), c1(16, 16, 3, 1, 4), c1(16, 24), nn.AdaptiveAvgPool1d(2), nn.Flatten(), nn.Linear(48, 4)
        ),
        6,
    ),
    volume(
        "volumes", "c3d", lambda: nn.Sequential(c3(2, 12), c3(12, 16), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(16, 4))
    ),
    volume(
        "space and time apart",
        "r2plus1d",
        lambda: nn.Sequential(
            c3(2, 12, (1, 3, 3), (0, 1, 1)),
            c3(12, 16, (3, 1, 1), (1, 0, 0)),
            c3(16, 12, (1, 3, 3), (0, 1, 1)),
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
            nn.Linear(12, 4),
        ),
    ),
    volume(
        "volumes, added",
        "v-net",
        lambda: nn.Sequential(c3(2, 12), Lambda(lambda s, x: x + s.b(s.a(x)), a=c3(12, 8), b=c3(8, 12)), nn.Conv3d(12, 3, 1)),
    ),
    Case(
        "bands of a satellite",
        "bands",
        lambda: nn.Sequential(cba(6, 16), cba(16, 24), classify(24)),
        ((1, 6, 16, 16),),
        ((1, 6, 20, 20),),
    ),
    Case("two inputs, one trunk", "siamese", Siamese, PAIR, PAIR2),
    Case("two inputs, one trunk", "siamese-keyword", lambda: Siamese(8), PAIR, PAIR2, keyword),
    Case("inputs in a dictionary", "fusion", Fusion, BOTH, BOTH2, mapping),
    Case("inputs in a dictionary", "fusion-added", lambda: Fusion(False), BOTH, BOTH2, mapping),
    Case("auxiliary head", "auxiliary", Auxiliary),
    Case("auxiliary head", "auxiliary-wide", lambda: Auxiliary(24)),
    Case(
        "recurrent behind",
        "crnn",
        lambda: Lambda(
            lambda s, x: s.o(s.r(s.b(s.a(x)).mean(2).transpose(1, 2))[0][:, -1]),
            a=cba(3, 12),
            b=cba(12, 16),
            r=nn.LSTM(16, 8, batch_first=True),
            o=nn.Linear(8, 4),
        ),
    ),
    Case(
        "several outputs",
        "two-heads",
        lambda: Lambda(
            lambda s, x: (s.c(y := s.a(x)), s.d(s.b(y))), a=cba(3, 16), b=cba(16, 16), c=classify(16), d=nn.Conv2d(16, 2, 1)
        ),
    ),
    Case(
        "places as inputs",
        "coordconv",
        lambda: Lambda(
            lambda s, x: s.h(
                s.b(torch.cat((s.a(x), torch.linspace(-1, 1, x.shape[3], dtype=x.dtype).expand(len(x), 1, *x.shape[2:])), 1))
            ),
            a=cba(3, 16),
            b=cba(17, 24),
            h=classify(24),
        ),
    ),
    Case(
        "feature pyramid",
        "fpn",
        lambda: Lambda(
            lambda s, x: [s.s1((p := s.l2(s.b(a := s.a(x)))) + 0), s.s2(s.l1(a) + F.interpolate(p, size=a.shape[2:]))],
            a=cba(3, 12),
            b=cba(12, 24, 3, 2),
            l1=conv(12, 16, 1),
            l2=conv(24, 16, 1),
            s1=conv(16, 4),
            s2=conv(16, 4),
        ),
    ),
    Case(
        "high and low resolution side by side",
        "hrnet",
        lambda: Lambda(
            lambda s, x: s.o(
                torch.cat(
                    (
                        h := F.relu(s.hh(a := s.a(x)) + F.interpolate(s.lh(low := s.low(a)), size=a.shape[2:])),
                        F.interpolate(F.relu(s.ll(low) + s.hl(h)), size=a.shape[2:]),
                    ),
                    1,
                )
            ),
            a=cba(3, 12),
            low=cba(12, 16, 3, 2),
            hh=conv(12, 12),
            lh=conv(16, 12, 1),
            ll=conv(16, 16),
            hl=conv(12, 16, 3, 2),
            o=nn.Conv2d(28, 3, 1),
        ),
    ),
]
