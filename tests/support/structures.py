"""More tiny networks: structures that users have and dependency graphs get wrong. Each is cut exactly, or left alone by name.

``why`` says for layers that stay what ``compress inspect`` must say of them; ``REFUSED`` are networks that are refused whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from support.chunked import CHUNKED
from support.nets import ALL, Net, Wired, block, conv, head
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torchvision.models import ShuffleNetV2
from torchvision.ops import deform_conv2d

from compress.surgery.parametrizations import folded
from compress.surgery.rewriting import cuttable


def used_twice(s: Any, x: Tensor) -> Tensor:
    one, two = s.a(x).split(4, 1)
    return s.head(s.b(one) + s.c(two) * s.b(two) + s.c(one))


def written_into(s: Any, x: Tensor) -> Tensor:
    y = s.a(x).clone()
    y[:, 4:] = s.b(x)
    return s.head(s.c(y))


def added_into(s: Any, x: Tensor) -> Tensor:
    y = s.a(x).clone()
    y[:, :4] += s.b(x)
    return s.head(s.c(y))


def every_second(s: Any, x: Tensor) -> Tensor:
    y = s.a(x).clone()
    y[:, ::2] *= 2
    return s.head(s.c(y))


def shifted(s: Any, x: Tensor) -> Tensor:
    """Temporal shift's way: some channels move one place, some the other way."""
    y = s.a(x)
    z = torch.zeros_like(y)
    z[:, :2], z[:, 2:4], z[:, 4:] = y[:, :2].roll(1, 2), y[:, 2:4].roll(-1, 2), y[:, 4:]
    return s.head(s.c(z))


def split_attention(s: Any, x: Tensor) -> Tensor:
    """ResNeSt's: two halves, weighted by a softmax over them."""
    y = s.a(x)
    n, c, h, w = y.shape
    y = y.view(n, 2, c // 2, h, w)
    gate = s.excite(F.relu(s.squeeze(y.sum(1).mean((2, 3), keepdim=True))))
    return s.head(s.c((y * gate.view(n, 2, c // 2, 1, 1).softmax(1)).sum(1)))


def largest_of_two(s: Any, x: Tensor) -> Tensor:
    y = s.a(x)
    return s.head(s.c(y.view(len(y), y.shape[1] // 2, 2, *y.shape[2:]).amax(2)))


def weighted(s: Any, x: Tensor) -> Tensor:
    """BiFPN's: learned factors, normalised among themselves."""
    share = F.relu(s.share)
    share = share / (share.sum() + 1e-4)
    return s.head(s.c(s.a(x) * share[0] + s.b(x) * share[1]))


def spatial_attention(s: Any, x: Tensor) -> Tensor:
    y = s.a(x)
    seen = torch.cat([y.mean(1, keepdim=True), y.amax(1, keepdim=True)], 1)
    return s.head(s.c(y * torch.sigmoid(s.look(seen))))


def recurrent(s: Any, x: Tensor) -> Tensor:
    return s.last(s.lstm(s.a(x).mean(2).transpose(1, 2))[0][:, -1])


def unet(s: Any, x: Tensor) -> Tensor:
    y, z = s.a(x), s.b(s.a(x))
    return s.head(s.c(torch.cat([F.interpolate(z, size=y.shape[2:], mode="bilinear"), y], 1)))


def two_inputs(s: Any, x: Tensor, y: Tensor) -> Tensor:
    return s.head(s.c(torch.cat([s.a(x), s.b(y)], 1) * s.gate(x.mean((2, 3)))[:, :, None, None]))


def folded_masks() -> nn.Module:
    layer = conv(6, 8)
    prune.random_unstructured(layer, "weight", 0.3)
    return folded(nn.Sequential(block(3, 6), layer, nn.ReLU(), head(8)))


STRUCTURES: dict[str, Net] = {
    "used-twice": Net(
        lambda: Wired(used_twice, a=block(3, 8), b=block(4, 6), c=block(4, 6), head=head(6)), free=["b.0"],
        why={"a.0": "constant in the code"},
    ),
    "written-into": Net(
        lambda: Wired(written_into, a=block(3, 8), b=block(3, 4), c=block(8, 6), head=head(6)), free=["c.0"],
        why={"b.0": "constant in the code"},
    ),
    "added-into": Net(
        lambda: Wired(added_into, a=block(3, 8), b=block(3, 4), c=block(8, 6), head=head(6)), free=["c.0"],
        why={"a.0": "constant in the code", "b.0": "constant in the code"},
    ),
    "every-second": Net(lambda: Wired(every_second, a=block(3, 8), c=block(8, 6), head=head(6)), free=["c.0"]),
    "shifted": Net(
        lambda: Wired(shifted, a=block(3, 8), c=block(8, 6), head=head(6)), free=["c.0"], why={"a.0": "trial cut failed"}
    ),
    "split-attention": Net(
        lambda: Wired(
            split_attention, a=block(3, 8), squeeze=conv(4, 4, 1), excite=conv(4, 8, 1), c=block(4, 6), head=head(6)
        ),
        free=["a.0", "squeeze", "c.0"],
    ),
    "maxout": Net(lambda: Wired(largest_of_two, a=block(3, 8), c=block(4, 6), head=head(6)), free=["a.0", "c.0"]),
    "glu": Net(
        lambda: Wired(lambda s, x: s.head(s.c(F.glu(s.a(x), 1))), a=block(3, 8), c=block(4, 6), head=head(6)),
        free=["a.0", "c.0"],
    ),
    "weighted": Net(
        lambda: Wired(weighted, a=block(3, 8), b=block(3, 8), c=block(8, 6), head=head(6), share=torch.rand(2)),
        free=["a.0", "c.0"],
    ),
    "gain-mean": Net(
        lambda: Wired(
            lambda s, x: s.head(s.c(s.a(x) * s.gain / s.gain.mean())), a=block(3, 8), c=block(8, 6), head=head(6),
            gain=torch.rand(8, 1, 1) + 0.5,
        ),
        free=["c.0"], why={"a.0": "something is computed from gain by mean"},
    ),
    "spatial-attention": Net(
        lambda: Wired(spatial_attention, a=block(3, 8), look=conv(2, 1), c=block(8, 6), head=head(6)),
        free=["a.0", "c.0"], why={"look": "its one channel is combined with several"},
    ),
    "recurrent": Net(
        lambda: Wired(recurrent, stem=block(3, 6), a=block(3, 8), lstm=nn.LSTM(8, 6, batch_first=True), last=nn.Linear(6, 4)),
        why={"a.0": "may mix channels .in lstm."},
    ),
    "unet": Net(
        lambda: Wired(unet, a=block(3, 6), b=block(6, 5, stride=2), c=block(11, 6), head=head(6)), free=["a.0", "b.0", "c.0"]
    ),
    "two-inputs": Net(
        lambda: Wired(two_inputs, a=block(3, 6), b=block(2, 5), gate=nn.Linear(3, 11), c=block(11, 6), head=head(6)),
        free=["a.0", "c.0"], more=((1, 2, 8, 8),),
    ),
    "pools": Net(
        lambda: Wired(
            lambda s, x: s.last(torch.cat([(y := s.a(x)).mean((2, 3)), F.adaptive_max_pool2d(y, 2).flatten(1)], 1)),
            a=block(3, 8), last=nn.Linear(40, 4),
        ),
        free=["a.0"],
    ),
    "unshuffle": Net(lambda: nn.Sequential(block(3, 6), nn.PixelUnshuffle(2), block(24, 6), head(6)), free=["0.0", "2.0"]),
    "hard-swish": Net(
        lambda: nn.Sequential(conv(3, 8), nn.Hardswish(), conv(8, 16, groups=8), nn.ReLU6(), block(16, 6), head(6)),
        free=["0", "4.0"],
    ),
    "padded": Net(
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"), nn.ReLU(),
            nn.Conv2d(8, 6, 3, padding=1, padding_mode="circular"), nn.ReLU(), nn.ZeroPad2d(1), head(6),
        ),
        free=["0", "2"],
    ),
    "instancenorm-statistics": Net(
        lambda: nn.Sequential(
            conv(3, 8), nn.InstanceNorm2d(8, track_running_stats=True), nn.ReLU(), conv(8, 6),
            nn.InstanceNorm2d(6, affine=True, track_running_stats=True), nn.ReLU(), block(6, 5), head(5),
        ),
        free=["0", "3", "6.0"],
    ),
    "bare-norms": Net(
        lambda: nn.Sequential(
            conv(3, 8), nn.BatchNorm2d(8, affine=False), nn.ReLU(), conv(8, 6), nn.GroupNorm(2, 6, affine=False), nn.ReLU(),
            block(6, 5), head(5),
        ),
        free=["0", "3", "6.0"],
    ),
    "rms-norm": Net(
        lambda: Wired(
            lambda s, x: s.last(F.relu(s.b(s.norm(s.a(x).mean((2, 3)))))), a=conv(3, 8), norm=nn.RMSNorm(8),
            b=nn.Linear(8, 6), last=nn.Linear(6, 4),
        ),
        free=["a", "b"],
    ),
    "local-response": Net(
        lambda: nn.Sequential(block(3, 8), nn.LocalResponseNorm(3), block(8, 6), head(6)), free=["2.0"],
        why={"0.0": "its channels are one"},
    ),
    "transposed-1d": Net(
        lambda: nn.Sequential(
            nn.Conv1d(3, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU(), nn.ConvTranspose1d(8, 6, 2, stride=2, groups=2),
            nn.ReLU(), nn.Conv1d(6, 2, 1),
        ),
        (1, 3, 8), free=["0", "3"], stuck=["5"],
    ),
    "transposed-3d": Net(
        lambda: nn.Sequential(
            nn.Conv3d(3, 8, 3, padding=1), nn.ReLU(), nn.ConvTranspose3d(8, 6, 2, stride=2), nn.ReLU(), nn.Conv3d(6, 2, 1)
        ),
        (1, 3, 3, 4, 4), free=["0", "2"], stuck=["4"],
    ),
    "matrix": Net(
        lambda: Wired(
            lambda s, x: s.last((s.a(x).permute(0, 2, 3, 1) @ s.matrix).mean((1, 2))), stem=block(3, 8), a=block(3, 8),
            matrix=torch.randn(8, 6), last=nn.Linear(6, 4),
        ),
        why={"a.0": "no linear layer's"},
    ),
    "gram": Net(
        lambda: Wired(
            lambda s, x: s.last(torch.einsum("bcs,bds->bcd", *[s.a(x).flatten(2)] * 2).flatten(1)), a=block(3, 6),
            last=nn.Linear(36, 4),
        ),
        why={"a.0": "bmm may mix channels"},
    ),
    "reordered": Net(
        lambda: Wired(
            lambda s, x: s.head(s.c(s.a(x)[:, s.order])), a=block(3, 8), c=block(8, 6), head=head(6), order=torch.randperm(8)
        ),
        free=["c.0"], why={"a.0": "index of parameters and activations"},
    ),
    "token": Net(
        lambda: Wired(
            lambda s, x: s.last(torch.cat([s.token.expand(len(x), -1, -1), s.a(x).flatten(2)], 2).mean(2)), a=block(3, 8),
            last=nn.Linear(8, 4), token=torch.randn(1, 8, 1),
        ),
        why={"a.0": "cat of parameters and activations"},
    ),
    "deformable": Net(
        lambda: Wired(
            lambda s, x: s.head(s.c(deform_conv2d(y := s.a(x), s.offset(y), s.kernel, padding=1))), a=block(3, 8),
            offset=conv(8, 18), kernel=torch.randn(6, 8, 3, 3), c=block(6, 6), head=head(6),
        ),
        free=["c.0"], why={"a.0": "deform_conv2d may mix channels", "offset": "deform_conv2d may mix channels"},
    ),
    "channels-last-pool": Net(
        lambda: Wired(
            lambda s, x: s.last(F.adaptive_avg_pool2d(s.a(x).contiguous(memory_format=torch.channels_last), 1).flatten(1)),
            a=block(3, 8), last=nn.Linear(8, 4),
        ),
        free=["a.0"],
    ),
    "shuffle-units": Net(
        lambda: cuttable(ShuffleNetV2([1, 2, 1], [8, 12, 16, 24, 32], num_classes=4)), (1, 3, 32, 32),
        free=["conv1.0", "stage2.0.branch1.2", "stage2.0.branch2.5", "stage3.1.branch2.5"],
    ),
    "folded-weight-norm": Net(
        lambda: folded(
            nn.Sequential(block(3, 6), parametrizations.weight_norm(conv(6, 8)), nn.ReLU(), block(8, 6), head(6))
        ),
        free=["0.0", "1", "3.0"], oracle=True,
    ),
    "folded-spectral-norm": Net(
        lambda: folded(nn.Sequential(block(3, 6), parametrizations.spectral_norm(conv(6, 8)), nn.ReLU(), head(8))),
        free=["0.0", "1"], oracle=True,
    ),
    "attention-behind": Net(
        lambda: Wired(
            lambda s, x: s.last(s.mix(y := s.b(s.a(x)).flatten(2).transpose(1, 2), y, y)[0].mean(1)), a=block(3, 8),
            b=block(8, 8), mix=nn.MultiheadAttention(8, 2, batch_first=True), last=nn.Linear(8, 4),
        ),
        free=["a.0"],
    ),
    "folded-masks": Net(folded_masks, free=["0.0", "1"], oracle=True),
}  # fmt: skip

STRUCTURES |= CHUNKED
ALL.update(STRUCTURES)


class Answer:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "object": (
        lambda: Wired(lambda s, x: Answer(s.head(s.a(x))), a=block(3, 8), head=head(8)),
        "Wired returns Answer; tensors, or tuples, lists and dictionaries",
    ),
    "number": (lambda: Wired(lambda s, x: s.a(x).mean().item(), a=block(3, 8)), "Wired returns no tensor"),
    "attention": (
        lambda: Wired(
            lambda s, x: s.last(s.mix(y := s.token + s.a(x).flatten(2).transpose(1, 2).cumsum(2), y, y)[0].mean(1)),
            a=conv(3, 8, 1), mix=nn.MultiheadAttention(8, 2, batch_first=True), last=nn.Linear(8, 4), token=torch.rand(8),
        ),
        "Wired contains attention .mix.",
    ),
    "attention by hand": (
        lambda: Wired(
            lambda s, x: s.last((y := s.a(x).flatten(2)) @ (y.transpose(1, 2) @ y / 8).softmax(-1)).mean(2), a=block(3, 8),
            last=nn.Linear(64, 4),
        ),
        "Wired contains attention",
    ),
    "old weight norm": (
        lambda: _with_old_weight_norm(), "Sequential cannot be copied"
    ),
}  # fmt: skip


def _with_old_weight_norm() -> nn.Module:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(block(3, 8), nn.utils.weight_norm(conv(8, 6)), nn.ReLU(), head(6))
