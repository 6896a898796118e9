"""Blocks of detectors: YOLO's cross-stage blocks and their kin, necks, heads of several scales."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from strange.parts import Case, Shown, cba, conv
from torch import Tensor, nn


class Bottleneck(nn.Module):
    def __init__(self, w: int, inner: int, add: bool = True) -> None:
        super().__init__()
        self.a, self.b, self.add = cba(w, inner, act=nn.SiLU), cba(inner, w, act=nn.SiLU), add

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.a(x))
        return x + y if self.add else y


class C2f(nn.Module):
    def __init__(self, i: int, o: int, n: int = 1, add: bool = True, inner: int | None = None) -> None:
        super().__init__()
        self.c = o // 2
        self.cv1, self.cv2 = cba(i, 2 * self.c, 1, act=nn.SiLU), cba((2 + n) * self.c, o, 1, act=nn.SiLU)
        self.m = nn.ModuleList(Bottleneck(self.c, inner or self.c, add) for _ in range(n))

    def forward(self, x: Tensor) -> Tensor:
        y = list(self.cv1(x).chunk(2, 1))
        y.extend(m(y[-1]) for m in self.m)
        return self.cv2(torch.cat(y, 1))


class C2fSplit(C2f):
    """The same by the attribute that holds the width."""

    def forward(self, x: Tensor) -> Tensor:
        y = list(self.cv1(x).split((self.c, self.c), 1))
        y.extend(m(y[-1]) for m in self.m)
        return self.cv2(torch.cat(y, 1))


class C3(nn.Module):
    def __init__(self, i: int, o: int, n: int = 1) -> None:
        super().__init__()
        h = o // 2
        self.cv1, self.cv2, self.cv3 = cba(i, h, 1), cba(i, h, 1), cba(2 * h, o, 1)
        self.m = nn.Sequential(*(Bottleneck(h, h) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class C3k2(C2f):
    """C2f whose blocks are C3s."""

    def __init__(self, i: int, o: int, n: int = 1) -> None:
        super().__init__(i, o, n)
        self.m = nn.ModuleList(C3(self.c, self.c) for _ in range(n))


class Elan(nn.Module):
    """YOLOv7's: what every second convolution makes is joined."""

    def __init__(self, i: int, h: int, o: int) -> None:
        super().__init__()
        self.a, self.b = cba(i, h, 1), cba(i, h, 1)
        self.steps = nn.ModuleList(cba(h, h) for _ in range(4))
        self.out = cba(4 * h, o, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = [self.a(x), self.b(x)]
        z = y[-1]
        for number, step in enumerate(self.steps):
            z = step(z)
            if number % 2:
                y.append(z)
        return self.out(torch.cat(y, 1))


class Gelan(nn.Module):
    """YOLOv9's: a chunk, then blocks one after another, each with a convolution behind it."""

    def __init__(self, i: int, h: int, o: int) -> None:
        super().__init__()
        self.cv1, self.cv2, self.cv3 = cba(i, 2 * h, 1), nn.Sequential(C3(h, h), cba(h, h)), nn.Sequential(C3(h, h), cba(h, h))
        self.cv4 = cba(4 * h, o, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = list(self.cv1(x).chunk(2, 1))
        y.extend(m(y[-1]) for m in (self.cv2, self.cv3))
        return self.cv4(torch.cat(y, 1))


class ADown(nn.Module):
    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = cba(i // 2, o // 2, 3, 2), cba(i // 2, o // 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        one, two = F.avg_pool2d(x, 2, 1, 0, False, True).chunk(2, 1)
        return torch.cat((self.cv1(one), self.cv2(F.max_pool2d(two, 3, 2, 1))), 1)


class SPPF(nn.Module):
    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.cv1, self.cv2, self.pool = cba(i, i // 2, 1), cba(i * 2, o, 1), nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = [self.cv1(x)]
        y.extend(self.pool(y[-1]) for _ in range(3))
        return self.cv2(torch.cat(y, 1))


class Focus(nn.Module):
    """Space to depth by slices of the image, in front of everything."""

    def __init__(self, o: int) -> None:
        super().__init__()
        self.conv = cba(12, o)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1))


class PSA(nn.Module):
    """C2PSA of YOLO11: one half goes through attention, which stays whole."""

    def __init__(self, i: int) -> None:
        super().__init__()
        self.c = i // 2
        self.cv1, self.cv2, self.qkv, self.proj = (
            cba(i, i, 1),
            cba(i, i, 1),
            conv(self.c, 3 * self.c, 1),
            conv(self.c, self.c, 1),
        )

    def attend(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        q, k, v = self.qkv(x).view(n, 3, c, h * w).unbind(1)
        weights = (q.transpose(1, 2) @ k * c**-0.5).softmax(-1)
        return self.proj((v @ weights.transpose(1, 2)).view(n, c, h, w))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.cv1(x).split((self.c, self.c), 1)
        return self.cv2(torch.cat((a, b + self.attend(b)), 1))


class Backbone(nn.Module):
    """A small detector: three scales, a neck up and down again, boxes and classes at each scale, joined in one output."""

    def __init__(self, block: Any, w: int = 8, joined: bool = True, attention: bool = False) -> None:
        super().__init__()
        self.stem, self.d1, self.d2, self.d3 = cba(3, w), cba(w, 2 * w, 3, 2), cba(2 * w, 2 * w, 3, 2), cba(2 * w, 4 * w, 3, 2)
        self.b1, self.b2, self.b3 = block(2 * w, 2 * w), block(2 * w, 2 * w), block(4 * w, 4 * w)
        self.spp = nn.Sequential(SPPF(4 * w, 4 * w), *([PSA(4 * w)] if attention else []))
        self.up1, self.up2, self.down, self.down1 = (
            block(6 * w, 2 * w),
            block(4 * w, 2 * w),
            cba(2 * w, 2 * w, 3, 2),
            block(4 * w, 4 * w),
        )
        sizes = (2 * w, 2 * w, 4 * w)
        self.boxes = nn.ModuleList(nn.Sequential(cba(s, w), conv(w, 4, 1, bias=True)) for s in sizes)
        self.classes = nn.ModuleList(nn.Sequential(cba(s, s, g=s), cba(s, w, 1), conv(w, 3, 1, bias=True)) for s in sizes)
        self.joined = joined

    def forward(self, x: Tensor) -> Any:
        c1 = self.b1(self.d1(self.stem(x)))
        c2 = self.b2(self.d2(c1))
        c3 = self.spp(self.b3(self.d3(c2)))
        p2 = self.up1(torch.cat((F.interpolate(c3, size=c2.shape[2:]), c2), 1))
        p1 = self.up2(torch.cat((F.interpolate(p2, size=c1.shape[2:]), c1), 1))
        p2 = self.down1(torch.cat((self.down(p1), p2), 1))
        scales = (p1, self.down(p1), c3)
        found = [torch.cat((b(s), c(s)), 1) for b, c, s in zip(self.boxes, self.classes, scales, strict=True)]
        if self.joined:
            return torch.cat([f.flatten(2) for f in found], 2).transpose(1, 2), p2.mean((2, 3))
        return {"scales": found, "context": p2.mean((2, 3))}


CASES = [
    *(
        Case(
            "C2f", f"c2f-{n}-{'add' if add else 'plain'}-{w}", lambda n=n, add=add, w=w: Shown(w, C2f(w, 2 * w, n, add), 2 * w)
        )
        for n, add, w in ((1, True, 8), (2, True, 8), (3, True, 16), (1, False, 8), (2, False, 12))
    ),
    Case("C2f", "c2f-narrow-inside", lambda: Shown(16, C2f(16, 32, 2, True, 8), 32)),
    *(Case("C2f by attribute", f"c2f-split-{n}", lambda n=n: Shown(16, C2fSplit(16, 32, n), 32)) for n in (1, 2)),
    *(Case("C3", f"c3-{n}", lambda n=n: Shown(16, C3(16, 32, n), 32)) for n in (1, 3)),
    *(Case("C3k2", f"c3k2-{n}", lambda n=n: Shown(16, C3k2(16, 32, n), 32)) for n in (1, 2)),
    *(Case("ELAN", f"elan-{h}", lambda h=h: Shown(16, Elan(16, h, 24), 24)) for h in (8, 12)),
    *(Case("GELAN", f"gelan-{h}", lambda h=h: Shown(16, Gelan(16, h, 24), 24)) for h in (8, 16)),
    *(Case("ADown", f"adown-{w}", lambda w=w: Shown(w, ADown(w, 2 * w), 2 * w)) for w in (8, 16)),
    *(Case("SPPF", f"sppf-{w}", lambda w=w: Shown(w, SPPF(w, w), w)) for w in (16, 24)),
    *(
        Case(
            "Focus",
            f"focus-{w}",
            lambda w=w: nn.Sequential(Focus(w), cba(w, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)),
        )
        for w in (8, 16)
    ),
    *(Case("C3k2", f"c3k2-wide-{w}", lambda w=w: Shown(w, C3k2(w, w, 1), w)) for w in (20, 24)),
    *(Case("ELAN", f"elan-into-{o}", lambda o=o: Shown(12, Elan(12, 10, o), o)) for o in (16, 40)),
    Case("a block behind another", "c2f-gelan", lambda: Shown(16, nn.Sequential(C2f(16, 24, 1), Gelan(24, 12, 16)), 16)),
    Case("a block behind another", "adown-c2f", lambda: Shown(16, nn.Sequential(ADown(16, 24), C2f(24, 24, 2)), 24)),
    Case("attention in one half", "c2psa", lambda: Shown(16, nn.Sequential(PSA(16), cba(16, 24)), 24)),
    Case("detector", "detector-c2f", lambda: Backbone(C2f), ((1, 3, 32, 32),), ((1, 3, 48, 32),)),
    Case("detector", "detector-c3k2", lambda: Backbone(C3k2), ((1, 3, 32, 32),), ((1, 3, 32, 64),)),
    Case("detector", "detector-c3", lambda: Backbone(C3), ((1, 3, 32, 32),), ((1, 3, 64, 32),)),
    Case(
        "detector of dictionaries", "detector-dict", lambda: Backbone(C2f, joined=False), ((1, 3, 32, 32),), ((1, 3, 48, 48),)
    ),
    Case(
        "detector with attention", "detector-psa", lambda: Backbone(C2f, attention=True), ((1, 3, 32, 32),), ((1, 3, 48, 32),)
    ),
]
