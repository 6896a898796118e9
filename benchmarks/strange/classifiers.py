"""Classifiers, one block of interest in each."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from strange.blocks import (
    CBAM,
    NAF,
    SE,
    SK,
    ConvNeXt,
    Coordinate,
    Dense,
    Ghost,
    HandNorm2d,
    Inverted,
    Lambda,
    Mixed,
    Norm2d,
    Octave,
    Partial,
    Pooled,
    RepVGG,
    Res2,
    Residual,
    ShuffleV1,
    ShuffleV2,
    SplitAttention,
)
from strange.parts import Case, Shown, cba, classify, conv
from torch import nn


def named(structure: str, *rows: tuple[str, Callable[[], nn.Module]]) -> list[Case]:
    return [Case(structure, name, make) for name, make in rows]


CASES = [
    *named(
        "residual",
        ("residual", lambda: Shown(16, nn.Sequential(Residual(16, 12), nn.ReLU(), Residual(16, 8)), 16)),
        ("residual-long", lambda: Shown(12, nn.Sequential(*(Residual(12, 8) for _ in range(5))), 12)),
    ),
    *named("pre-activation", ("preact", lambda: Shown(16, nn.Sequential(Residual(16, 12, True), Residual(16, 16, True)), 16))),
    *named("layer scale", ("layer-scale", lambda: Shown(16, Residual(16, 16, scale=True), 16))),
    *named(
        "dense",
        *(
            (f"dense-{n}-{b}", lambda n=n, b=b: Shown(12, Dense(12, 8, n, b), 12 + 8 * n))
            for n in (2, 4)
            for b in (True, False)
        ),
    ),
    *named(
        "squeeze and excite",
        ("se", lambda: Shown(16, SE(16, 8), 16)),
        ("se-hard", lambda: Shown(24, nn.Sequential(SE(24, 12, True), cba(24, 16)), 16)),
    ),
    *named(
        "inverted residual",
        ("mb-4", lambda: Shown(12, nn.Sequential(Inverted(12, 4), Inverted(12, 4)), 12)),
        ("mb-6-se", lambda: Shown(8, Inverted(8, 6, se=True, act=nn.Hardswish), 8)),
        ("mb-wider", lambda: Shown(8, Inverted(8, 4, 16), 16)),
    ),
    *named("shuffle of groups", *((f"shufflev1-{g}", lambda g=g: Shown(24, ShuffleV1(24, 24, g), 24)) for g in (2, 3, 4))),
    *named(
        "halves shuffled",
        ("shufflev2", lambda: Shown(16, ShuffleV2(16), 16)),
        ("shufflev2-twice", lambda: Shown(16, nn.Sequential(ShuffleV2(16), ShuffleV2(16)), 16)),
    ),
    *named("pieces one after another", *((f"res2net-{p}", lambda p=p: Shown(24, Res2(24, p), 24)) for p in (2, 4))),
    *named(
        "unequal pieces",
        ("mixconv", lambda: Shown(16, nn.Sequential(Mixed([10, 6]), cba(16, 24, 1)), 24)),
        ("mixconv-three", lambda: Shown(18, nn.Sequential(Mixed([8, 6, 4]), cba(18, 24, 1)), 24)),
    ),
    *named(
        "ghost",
        ("ghost", lambda: Shown(12, Ghost(12, 24, False), 24)),
        ("ghost-sliced", lambda: Shown(12, Ghost(12, 22, True), 22)),
    ),
    *named("split attention", ("resnest", lambda: Shown(16, SplitAttention(16), 16))),
    *named("selective kernels", ("sknet", lambda: Shown(16, SK(16), 16))),
    *named("coordinate attention", ("coordinate", lambda: Shown(16, nn.Sequential(Coordinate(16), cba(16, 24)), 24))),
    *named(
        "channel and spatial attention",
        ("cbam", lambda: Shown(16, nn.Sequential(cba(16, 16), CBAM(16), cba(16, 24), cba(24, 24)), 24)),
    ),
    *named(
        "ConvNeXt",
        ("convnext", lambda: Shown(12, ConvNeXt(12), 12)),
        ("convnext-grn", lambda: Shown(12, nn.Sequential(ConvNeXt(12, True), cba(12, 24)), 24)),
    ),
    *named("norm by a permuting module", ("norm2d", lambda: Shown(16, nn.Sequential(Norm2d(16), cba(16, 16), Norm2d(16)), 16))),
    *named(
        "NAFNet",
        ("naf-hand", lambda: Shown(12, NAF(12, HandNorm2d), 12)),
        ("naf-module", lambda: Shown(12, NAF(12, Norm2d), 12)),
        ("naf-deep", lambda: Shown(8, nn.Sequential(NAF(8, HandNorm2d), NAF(8, HandNorm2d)), 8)),
    ),
    *named("parallel branches added", ("repvgg", lambda: Shown(16, nn.Sequential(RepVGG(16), RepVGG(16)), 16))),
    *named(
        "partial convolution",
        ("partial-fixed", lambda: Shown(16, nn.Sequential(Partial(16, True), cba(16, 24), cba(24, 24)), 24)),
        ("partial-share", lambda: Shown(16, nn.Sequential(Partial(16, False), cba(16, 24), cba(24, 24)), 24)),
    ),
    *named("octave", ("octave", lambda: Shown(16, Octave(16), 16))),
    *named(
        "pyramid pooling",
        ("aspp", lambda: Shown(16, Pooled(16, (1,)), 16)),
        ("psp", lambda: Shown(16, Pooled(16, (1, 2, 3)), 32)),
    ),
    *named(
        "grouped",
        *(
            (f"resnext-{g}", lambda g=g: Shown(16, nn.Sequential(cba(16, 24, 1), cba(24, 24, g=g), cba(24, 16, 1)), 16))
            for g in (2, 4, 8)
        ),
    ),
    *named(
        "depthwise multiplier",
        ("multiplier-2", lambda: Shown(12, cba(12, 24, g=12), 24)),
        ("multiplier-3", lambda: Shown(8, cba(8, 24, g=8), 24)),
    ),
    *named(
        "group norm",
        *(
            (f"groupnorm-{g}", lambda g=g: Shown(16, nn.Sequential(conv(16, 24), nn.GroupNorm(g, 24), nn.ReLU()), 24))
            for g in (1, 4, 8)
        ),
    ),
    *named(
        "instance norm",
        ("instance", lambda: Shown(16, nn.Sequential(conv(16, 24), nn.InstanceNorm2d(24, affine=True), nn.ReLU()), 24)),
    ),
    *named(
        "activation with parameters",
        ("prelu", lambda: Shown(16, nn.Sequential(conv(16, 24), nn.BatchNorm2d(24), nn.PReLU(24)), 24)),
        ("prelu-one", lambda: Shown(16, nn.Sequential(conv(16, 24), nn.PReLU()), 24)),
    ),
    *named("gated linear unit", ("glu", lambda: Shown(16, nn.Sequential(cba(16, 32), nn.GLU(1)), 16))),
    *named(
        "maxout", ("maxout", lambda: Shown(16, Lambda(lambda s, x: s.a(x).unflatten(1, (-1, 2)).amax(2), a=cba(16, 32)), 16))
    ),
    *named(
        "tanh and sigmoid",
        (
            "gates",
            lambda: Shown(
                16, Lambda(lambda s, x: torch.tanh((y := s.a(x).chunk(2, 1))[0]) * y[1].sigmoid(), a=conv(16, 32)), 16
            ),
        ),
    ),
    *named("space to depth by view", ("spacedepth", lambda: Shown(8, nn.Sequential(nn.PixelUnshuffle(2), cba(32, 24)), 24))),
    *named(
        "shift of channels",
        (
            "tsm",
            lambda: Shown(
                16,
                nn.Sequential(
                    Lambda(lambda s, x: torch.cat((x[:, : x.shape[1] // 4].roll(1, 2), x[:, x.shape[1] // 4 :]), 1)),
                    cba(16, 24),
                    cba(24, 24),
                ),
                24,
            ),
        ),
    ),
    *named(
        "one layer twice",
        ("shared", lambda: Shown(16, Lambda(lambda s, x: s.a(s.a(x)) + s.b(x), a=cba(16, 16), b=cba(16, 16)), 16)),
    ),
    *named(
        "stacked and interleaved",
        (
            "stacked",
            lambda: Shown(
                16, Lambda(lambda s, x: torch.stack((s.a(x), s.b(x)), 2).flatten(1, 2), a=cba(16, 12), b=cba(16, 12)), 24
            ),
        ),
    ),
    *named(
        "weighted fusion",
        (
            "bifpn",
            lambda: Shown(
                16,
                Lambda(
                    lambda s, x: sum(
                        w * p for w, p in zip(s.w.relu() / (s.w.relu().sum() + 1e-4), (s.a(x), s.b(x), x), strict=True)
                    ),
                    a=cba(16, 16),
                    b=cba(16, 16),
                    w=torch.rand(3),
                ),
                16,
            ),
        ),
    ),
    *named(
        "modulated",
        (
            "film",
            lambda: Shown(
                16,
                Lambda(
                    lambda s, x: (p := s.f(x.mean((2, 3))).unsqueeze(-1).unsqueeze(-1).chunk(2, 1))[0] * s.a(x) + p[1],
                    a=cba(16, 24),
                    f=nn.Linear(16, 48),
                ),
                24,
            ),
        ),
    ),
    *named(
        "flattened",
        (
            "flat",
            lambda: nn.Sequential(
                cba(3, 12), nn.AdaptiveMaxPool2d(3), nn.Flatten(), nn.Linear(108, 32), nn.ReLU(), nn.Linear(32, 5)
            ),
        ),
        (
            "flat-deep",
            lambda: nn.Sequential(
                cba(3, 12),
                cba(12, 16),
                nn.AdaptiveAvgPool2d(2),
                nn.Flatten(),
                nn.Linear(64, 40),
                nn.BatchNorm1d(40),
                nn.ReLU(),
                nn.Linear(40, 5),
            ),
        ),
    ),
    *named(
        "joined trees",
        (
            "dla",
            lambda: Shown(
                12,
                Lambda(
                    lambda s, x: s.r2(torch.cat((s.d((c := s.r1(torch.cat((a := s.a(x), s.b(a)), 1)))), c, x), 1)),
                    a=cba(12, 12),
                    b=cba(12, 12),
                    r1=cba(24, 16, 1),
                    d=cba(16, 16),
                    r2=cba(44, 24, 1),
                ),
                24,
            ),
        ),
        (
            "vovnet",
            lambda: Shown(
                12,
                Lambda(
                    lambda s, x: s.o(torch.cat((x, a := s.a(x), b := s.b(a), s.c(b)), 1)),
                    a=cba(12, 8),
                    b=cba(8, 8),
                    c=cba(8, 8),
                    o=cba(36, 24, 1),
                ),
                24,
            ),
        ),
    ),
    *named(
        "option A",
        (
            "option-a",
            lambda: Shown(
                8,
                Lambda(
                    lambda s, x: F.relu(s.b(s.a(x)) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))),
                    a=cba(8, 16, s=2),
                    b=nn.Sequential(conv(16, 16), nn.BatchNorm2d(16)),
                ),
                16,
            ),
        ),
    ),
    *named(
        "shuffled and gated",
        ("shuffle-se", lambda: Shown(16, nn.Sequential(ShuffleV2(16), SE(16, 8), ShuffleV2(16)), 16)),
        ("shuffle-residual", lambda: Shown(16, nn.Sequential(ShuffleV2(16), Residual(16, 12)), 16)),
    ),
    *named(
        "selections of gates",
        ("sk-se", lambda: Shown(12, nn.Sequential(SK(12), SE(12, 6)), 12)),
        ("resnest-deep", lambda: Shown(12, nn.Sequential(SplitAttention(12), SplitAttention(12)), 12)),
    ),
    *named(
        "dense behind shortcuts",
        ("dual-path", lambda: Shown(12, nn.Sequential(Residual(12, 8), Dense(12, 6, 2, True)), 24)),
        ("dense-se", lambda: Shown(12, nn.Sequential(Dense(12, 6, 2, False), SE(24, 8)), 24)),
    ),
    *named(
        "ghost behind a shortcut",
        (
            "ghost-residual",
            lambda: Shown(16, Lambda(lambda s, x: x + s.b(s.a(x)), a=Ghost(16, 24, False), b=Ghost(24, 16, False)), 16),
        ),
    ),
    *named(
        "large kernels",
        (
            "unirep",
            lambda: Shown(
                12,
                nn.Sequential(
                    Lambda(
                        lambda s, x: x + s.p(s.a(x) + s.b(x)),
                        a=conv(12, 12, 7, g=12),
                        b=conv(12, 12, 3, g=12),
                        p=cba(12, 12, 1),
                    )
                ),
                12,
            ),
        ),
    ),
    *named(
        "inverted residual with norm of groups",
        (
            "mb-gn",
            lambda: Shown(
                12,
                Lambda(
                    lambda s, x: x + s.c(F.relu(s.n(s.b(s.a(x))))),
                    a=cba(12, 24, 1),
                    b=conv(24, 24, g=24),
                    n=nn.GroupNorm(4, 24),
                    c=conv(24, 12, 1),
                ),
                12,
            ),
        ),
    ),
    *named(
        "plain",
        *(
            (f"vgg-{d}", lambda d=d: nn.Sequential(cba(3, 16), *(cba(16, 16) for _ in range(d)), classify(16)))
            for d in (1, 2, 3, 4)
        ),
    ),
]
