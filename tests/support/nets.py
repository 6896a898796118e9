"""Tiny networks, one for each way in which channels are coupled.

Batch-norm statistics and affine parameters are random, or masks look right by luck.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from compress_models.resnet import ZeroPadShortcut
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from compress.core.plan import Cut, Plan, selectable
from compress.core.topology import GroupId, LayerName, Topology
from compress.coupling.tracer import trace


def conv(i: int, o: int, k: int = 3, *, bias: bool = True, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, padding=k // 2, bias=bias, stride=stride, groups=groups)


def block(i: int, o: int, k: int = 3, **options: int) -> nn.Sequential:
    return nn.Sequential(conv(i, o, k, bias=False, **options), nn.BatchNorm2d(o), nn.ReLU())


def head(i: int, o: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(i, o))


class Wired(nn.Module):
    """Layers and parameters under given names, and how they are wired."""

    def __init__(self, forward: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                self.add_module(name, part)
            elif part.is_floating_point():
                self.register_parameter(name, nn.Parameter(part))
            else:
                self.register_buffer(name, part)
        self.wiring = forward

    def forward(self, *inputs: Tensor) -> Any:
        return self.wiring(self, *inputs)


def chain() -> nn.Module:
    return nn.Sequential(block(3, 8), block(8, 6), nn.MaxPool2d(2), block(6, 8), head(8))


def plain() -> nn.Module:
    return nn.Sequential(
        conv(3, 8, bias=False), nn.ReLU(), conv(8, 6, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(384, 4, bias=False)
    )


def flatten() -> nn.Module:
    return nn.Sequential(block(3, 6), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(24, 10), nn.ReLU(), nn.Linear(10, 4))


class Residual(nn.Module):
    def __init__(self, projection: bool = False, wide: int = 8) -> None:
        super().__init__()
        self.stem = block(3, 8)
        self.a, self.b = block(8, 6), nn.Sequential(conv(6, wide, bias=False), nn.BatchNorm2d(wide))
        self.short = nn.Sequential(conv(8, wide, 1), nn.BatchNorm2d(wide)) if projection else nn.Identity()
        self.head = head(wide)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(F.relu(self.b(self.a(x)) + self.short(x)))


class Concat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.head = block(3, 6), block(3, 5), block(11, 7), head(7)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.c(torch.cat([self.a(x), self.b(x)], 1)))


class Dense(nn.Module):
    """DenseNet's block: every layer reads everything before it, through its own batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 6)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(6 + 4 * n), nn.ReLU(), conv(6 + 4 * n, 4, bias=False)) for n in range(3)
        )
        self.norm, self.head = nn.BatchNorm2d(18), head(18)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.head(F.relu(self.norm(x)))


def depthwise(multiplier: int = 1) -> nn.Module:
    wide = 6 * multiplier
    return nn.Sequential(block(3, 6), block(6, wide, groups=6), block(wide, 8, 1), head(8))


class Shared(nn.Module):
    """One convolution called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.both, self.last, self.head = block(3, 6), conv(6, 6), block(6, 5), head(5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(F.relu(self.both(F.relu(self.both(self.stem(x)))))))


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.one, self.two = block(3, 8), block(8, 6), head(6), conv(8, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        return self.one(self.body(x)), self.two(x)


def grouped() -> nn.Module:
    return nn.Sequential(block(3, 8), block(8, 12, groups=2), block(12, 6), head(6))


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.squeeze, self.excite = block(3, 8), conv(8, 4, 1), conv(4, 8, 1)
        self.last, self.head = block(8, 6), head(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        gate = torch.sigmoid(self.excite(F.silu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))
        return self.head(self.last(x * gate))


class OptionA(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 6)
        self.a, self.b = block(6, 5, stride=2), nn.Sequential(conv(5, 10, bias=False), nn.BatchNorm2d(10))
        self.short = ZeroPadShortcut(6, 10, 2)
        self.c, self.d = block(10, 5), nn.Sequential(conv(5, 10, bias=False), nn.BatchNorm2d(10))
        self.head = head(10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(self.b(self.a(x)) + self.short(x))
        return self.head(F.relu(self.d(self.c(x)) + x))


class PadOptionA(OptionA):
    """The same with a constant in the code: the channels it touches must stay, or the result be exact."""

    def __init__(self) -> None:
        super().__init__()
        self.short = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(self.b(self.a(x)) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))
        return self.head(F.relu(self.d(self.c(x)) + x))


def groupnorm() -> nn.Module:
    return nn.Sequential(conv(3, 8), nn.GroupNorm(2, 8), nn.ReLU(), conv(8, 6), nn.GroupNorm(1, 6), nn.ReLU(), head(6))


class LayerNorm(nn.Module):
    """ConvNeXt's block: depthwise, NHWC layer norm, two linear layers, layer scale, residual."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise = conv(3, 8), conv(8, 8, groups=8)
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 12), nn.Linear(12, 8)
        self.scale = nn.Parameter(torch.rand(8) + 0.5)
        self.final, self.head = nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        x = x + (self.scale * self.down(F.gelu(self.up(y)))).permute(0, 3, 1, 2)
        return self.head(self.final(x.mean((2, 3))))


def instancenorm() -> nn.Module:
    return nn.Sequential(
        conv(3, 8), nn.InstanceNorm2d(8, affine=True, track_running_stats=True), nn.ReLU(), conv(8, 6),
        nn.InstanceNorm2d(6, affine=True), nn.Sigmoid(), conv(6, 5, stride=2), nn.Sigmoid(), head(5),
    )  # fmt: skip


def transposed(groups: int = 1) -> nn.Module:
    return nn.Sequential(
        block(3, 8, stride=2), nn.ConvTranspose2d(8, 8, 2, stride=2, groups=groups), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 2)
    )


class Shuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.head = block(3, 8), block(8, 8, 1, groups=2), block(8, 6), head(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(x))
        n, c, h, w = x.shape
        return self.head(self.c(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)))


class Chunk(nn.Module):
    """Two halves, used apart and together; both are read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.head = block(3, 8), block(4, 6), block(4, 6), head(6)

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.a(x).chunk(2, 1)
        return self.head(self.b(one) + self.c(two) * self.b(two))


class Split(nn.Module):
    """CSP's way: one half goes through a layer, then all come together."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.head = block(3, 8), block(3, 4), block(12, 6), head(6)

    def forward(self, x: Tensor) -> Tensor:
        one, two = torch.split(self.a(x), [5, 3], 1)
        return self.head(self.c(torch.cat([two, self.b(two), one], 1)))


class Inplace(nn.Module):
    """A layer's result is added into a slice of another's, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.head = block(3, 8), block(3, 3), block(8, 6), head(6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).clone()
        y[:, 2:5] += self.b(x)
        return self.head(self.c(y))


class Strided(nn.Module):
    """Every second channel."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.head = block(3, 8), block(4, 5), block(4, 5), head(5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.head(self.b(x[:, ::2]) * self.c(x[:, 1::2]))


class Twice(nn.Module):
    """The same tensor concatenated with itself."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.head = block(3, 6), block(3, 4), block(16, 6), head(6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.head(self.c(torch.cat([y, self.b(x), y], 1)))


class ConcatFlatten(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = block(3, 6), block(3, 5), nn.Linear(44, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.max_pool2d(torch.cat([self.a(x), self.b(x)], 1), 4).flatten(1))


class NhwcFlatten(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.hidden, self.head = block(3, 6), nn.Linear(24, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.a(x), 4).permute(0, 2, 3, 1).flatten(1)
        return self.head(F.relu(self.hidden(x)))


def pixel_shuffle() -> nn.Module:
    return nn.Sequential(block(3, 6), conv(6, 16), nn.PixelShuffle(2), nn.ReLU(), conv(4, 3))


def weight_norm() -> nn.Module:
    normed = nn.utils.parametrizations.weight_norm(conv(6, 8))
    return nn.Sequential(block(3, 6), normed, nn.ReLU(), block(8, 6), head(6))


class StdConv(nn.Conv2d):
    """Weight standardisation: every filter has mean 0 and variance 1."""

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.var((1, 2, 3), keepdim=True) + 1e-5).sqrt()
        return F.conv2d(x, w, self.bias, self.stride, self.padding, self.dilation, self.groups)


def weight_standardised() -> nn.Module:
    return nn.Sequential(StdConv(3, 6, 3), nn.ReLU(), StdConv(6, 8, 3), nn.ReLU(), block(8, 6), block(6, 5), head(5))


class BatchNormStdConv(nn.Conv2d):
    """The same through a batch norm of the weight, with a learned gain."""

    def __init__(self, *args: int) -> None:
        super().__init__(*args)
        self.gain = nn.Parameter(torch.rand(self.out_channels) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        flat = self.weight.reshape(1, self.out_channels, -1)
        w = F.batch_norm(flat, None, None, weight=self.gain, training=True, momentum=0.0).reshape_as(self.weight)
        return F.conv2d(x, w, self.bias)


def batch_norm_standardised() -> nn.Module:
    return nn.Sequential(BatchNormStdConv(3, 8, 3), nn.ReLU(), block(8, 6), BatchNormStdConv(6, 8, 3), nn.ReLU(), head(8))


class Functional(nn.Module):
    """A convolution whose weight is a bare parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last, self.head = block(3, 6), block(8, 6), head(6)
        self.kernel, self.offset = nn.Parameter(torch.randn(8, 6, 3, 3) / 5), nn.Parameter(torch.randn(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(F.relu(F.conv2d(self.stem(x), self.kernel, self.offset, padding=1))))


class Conv1d(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), nn.Conv1d(8, 6, 3)
        self.hidden, self.norm2, self.head = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.b(F.relu(self.norm(self.a(x)))))
        return self.head(F.relu(self.norm2(self.hidden(x.mean(2)))))


def conv3d() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(3, 6, 3, padding=1), nn.BatchNorm3d(6), nn.ReLU(), nn.Conv3d(6, 5, 3), nn.ReLU(),
        nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(5, 4),
    )  # fmt: skip


class Scalars(nn.Module):
    """A learned factor for all, one per channel, one per channel and position, PReLU of both kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.head = conv(3, 8), conv(8, 6), conv(6, 5), head(5)
        self.gain, self.scale = nn.Parameter(torch.tensor(0.7)), nn.Parameter(torch.rand(1, 8, 1, 1) + 0.5)
        self.place, self.act, self.each = nn.Parameter(torch.rand(6, 8, 8)), nn.PReLU(), nn.PReLU(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.a(x) * self.scale) * self.gain
        return self.head(F.relu(self.c(self.each(self.b(x)) * self.place)))


def frozen() -> nn.Module:
    model = chain()
    for parameter in model[1].parameters():  # type: ignore[index]
        parameter.requires_grad_(False)
    return model


def dropout() -> nn.Module:
    return nn.Sequential(block(3, 8), nn.Dropout2d(0.5), block(8, 6), head(6, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 4))


class ViewConstant(nn.Module):
    """The flattened width is written into the code: what feeds it must stay."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = block(3, 8), block(8, 8), nn.Linear(512, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.a(x)).view(-1, 512))


class Auxiliary(nn.Module):
    """A second head that only training runs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = block(3, 8), block(8, 6), head(6)
        self.extra, self.aux = block(8, 5), head(5)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.a(x)
        out: Tensor = self.head(self.b(x))
        return (out, self.aux(self.extra(x))) if self.training else out


class Tied(nn.Module):
    """Two layers, one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b, self.head = block(3, 6), conv(6, 6), conv(6, 6), head(6)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.b(F.relu(self.a(self.stem(x))))))


class ChannelAttention(nn.Module):
    """ECA: a convolution along the channels. What it touches must stay."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.along, self.b, self.head = block(3, 8), nn.Conv1d(1, 1, 3, padding=1), block(8, 6), head(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        gate = self.along(x.mean((2, 3)).unsqueeze(1)).squeeze(1)
        return self.head(self.b(x * torch.sigmoid(gate)[:, :, None, None]))


@dataclass(frozen=True)
class Net:
    """How to make a network.

    Attributes:
        make: without arguments.
        shape: of one input, batch dimension included.
        free: layers whose groups must be found; None: some group must be.
        stuck: layers that must not be cut.
        oracle: Torch-Pruning cuts it rightly, so its own result is compared.
        more: shapes of further inputs.
        why: layer that must not be cut -> a pattern of what is said of it.
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = (1, 3, 8, 8)
    free: Sequence[str] = ()
    stuck: Sequence[str] = ()
    oracle: bool = False
    more: tuple[tuple[int, ...], ...] = ()
    why: Mapping[str, str] = field(default_factory=dict)


NETS: dict[str, Net] = {
    "chain": Net(chain, free=["0.0", "1.0", "3.0"], stuck=["4.2"], oracle=True),
    "plain": Net(plain, free=["0", "2"], stuck=["5"], oracle=True),
    "flatten": Net(flatten, free=["0.0", "3"], stuck=["5"], oracle=True),
    "residual": Net(Residual, free=["stem.0", "a.0"], stuck=["head.2"], oracle=True),
    "projection": Net(lambda: Residual(True, 10), free=["stem.0", "a.0", "b.0"], stuck=["head.2"], oracle=True),
    "concat": Net(Concat, free=["a.0", "b.0", "c.0"], oracle=True),
    "dense": Net(Dense, free=["stem", "layers.0.2", "layers.1.2", "layers.2.2"], oracle=True),
    "depthwise": Net(depthwise, free=["0.0", "2.0"], oracle=True),
    "depthwise-2": Net(lambda: depthwise(2), free=["0.0", "2.0"]),
    "shared": Net(Shared, free=["stem.0", "last.0"]),
    "tied": Net(Tied, free=["stem.0"]),
    "two-heads": Net(TwoHeads, free=["stem.0", "body.0"], stuck=["one.2", "two"], oracle=True),
    "grouped": Net(grouped, free=["0.0", "1.0", "2.0"]),
    "se-gate": Net(Gate, free=["stem.0", "squeeze", "last.0"], oracle=True),
    "option-a": Net(OptionA, free=["stem.0", "a.0", "c.0"]),
    "pad-option-a": Net(PadOptionA, free=["a.0", "c.0"]),
    "groupnorm": Net(groupnorm, free=["0", "3"]),
    "layernorm": Net(LayerNorm, free=["stem", "up"], stuck=["head"]),
    "instancenorm": Net(instancenorm, free=["0", "3", "6"]),
    "transposed": Net(transposed, free=["0.0", "1"], stuck=["4"], oracle=True),
    "transposed-grouped": Net(lambda: transposed(2), free=["0.0", "1"], stuck=["4"]),
    "transposed-depthwise": Net(lambda: transposed(8), free=["0.0"], stuck=["4"]),
    "shuffle": Net(Shuffle, free=["a.0", "c.0"]),
    "chunk": Net(Chunk, free=["b.0"]),
    "split": Net(Split, free=["b.0", "c.0"]),
    "inplace": Net(Inplace, free=["c.0"]),
    "strided": Net(Strided, free=["b.0"]),
    "twice": Net(Twice, free=["a.0", "b.0", "c.0"]),
    "concat-flatten": Net(ConcatFlatten, free=["a.0", "b.0"], stuck=["head"]),
    "nhwc-flatten": Net(NhwcFlatten, free=["a.0", "hidden"], stuck=["head"]),
    "pixel-shuffle": Net(pixel_shuffle, free=["0.0"], stuck=["4"]),
    "weight-norm": Net(weight_norm, free=["3.0"]),
    "weight-std": Net(weight_standardised, free=["4.0", "5.0"]),
    "weight-std-bn": Net(batch_norm_standardised, free=["0", "3"], stuck=["1.0"]),
    "functional": Net(Functional, free=["stem.0", "kernel", "last.0"]),
    "conv1d": Net(Conv1d, (1, 3, 12), free=["a", "b", "hidden"], stuck=["head"]),
    "conv3d": Net(conv3d, (1, 3, 4, 5, 6), free=["0", "3"], stuck=["7"]),
    "scalars": Net(Scalars, free=["a", "b", "c"]),
    "frozen": Net(frozen, free=["0.0", "1.0", "3.0"]),
    "dropout": Net(dropout, free=["0.0", "2.0", "3.2"], stuck=["6"]),
    "view-constant": Net(ViewConstant, free=["a.0"], stuck=["b.0", "head"]),
    "auxiliary": Net(Auxiliary, free=["a.0", "b.0", "extra.0"], stuck=["head.2", "aux.2"]),
    "channel-attention": Net(ChannelAttention, free=["b.0"], stuck=["a.0"]),
}


ALL = dict(NETS)
"""Every network that can be built by name: ``structures`` adds its own."""


def build(name: str, seed: int = 0) -> nn.Module:
    """The network with random statistics, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = ALL[name].make()
        for module in model.modules():
            if isinstance(module, _NormBase | nn.GroupNorm | nn.LayerNorm) and module.weight is not None:
                nn.init.uniform_(module.weight, 0.5, 2)
                nn.init.normal_(module.bias, 0.3)  # few channels are dead behind a ReLU
            if isinstance(module, _NormBase) and module.running_mean is not None:
                module.running_mean.normal_(0, 0.3)
                assert module.running_var is not None
                module.running_var.uniform_(0.1, 0.5)
    return model.eval()


@cache
def traced(name: str) -> tuple[nn.Module, Topology]:
    """A network and its topology, made once; nobody may change them."""
    model = build(name)
    return model, trace(model, example(name))


def example(name: str) -> Any:
    """One input; a tuple where the network takes several."""
    made = tuple(torch.zeros(shape) for shape in (ALL[name].shape, *ALL[name].more))
    return made if len(made) > 1 else made[0]


def inputs(name: str, count: int = 3, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    shapes = (ALL[name].shape, *ALL[name].more)
    made = tuple(torch.randn((count, *s[1:]), generator=generator, dtype=torch.float64) for s in shapes)
    return made if len(made) > 1 else made[0]


def any_plan(
    topology: Topology, seed: int, ratio: float = 0.4, *, reorder: bool = False, fold: bool = False, select: bool = False
) -> Plan:
    """A random plan: some groups are cut, channels change places in their orbit, removed ones are folded, inputs ignored."""
    rng = np.random.default_rng(seed)
    cuts: dict[GroupId, Cut] = {}
    for group in topology.groups:
        keep: dict[int, int] = {}  # place -> channel that stands there
        folded: dict[int, int] = {}
        orbits = group.orbits()
        for shared in group.widths():
            size = len(orbits[shared[0]])
            drop = min(int(rng.binomial(size, ratio)), size - 1)
            for number in shared:
                shuffled = rng.permutation(orbits[number]).tolist()
                gone, stays = shuffled[:drop], shuffled[drop:]
                keep |= zip(sorted(stays), stays if reorder else sorted(stays), strict=True)
                if fold:
                    folded |= {c: int(rng.choice(stays)) for c in gone if rng.random() < 0.7}
        if keep and rng.random() < 0.8:
            cuts[group.id] = Cut(tuple(keep[place] for place in sorted(keep)), folded)
    chosen: dict[LayerName, tuple[int, ...]] = {}
    for layer in topology.layers if select else ():
        width = topology.tensors[layer.weight].shape[layer.read_dim]
        cut_here = _left(topology, Plan(cuts), layer.weight, layer.read_dim)
        if selectable(topology, layer) and rng.random() < 0.5 and width > 1:
            some = {i for i in range(width) if rng.random() < 0.7} | {int(rng.choice(cut_here))}
            chosen[layer.name] = tuple(sorted(some))
    return Plan(cuts, chosen)


def _left(topology: Topology, plan: Plan, key: str, dim: int) -> list[int]:
    gone = {
        index
        for group_id, member in topology.slots.get((key, dim), ())
        if group_id in plan.cuts
        for channel in set(range(len(member.positions))) - set(plan.cuts[group_id].keep)
        for index in member.positions[channel]
    }
    return [i for i in range(topology.tensors[key].shape[dim]) if i not in gone]
