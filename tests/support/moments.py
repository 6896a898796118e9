"""Tiny networks whose code takes means, variances, norms and maxima over its channels, at any width.

What a cut network must compute needs no mask here: the same code, built narrow, with the tensors of the channels that stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from support.nets import Wired, block, conv, head
from torch import Tensor, nn


def affine(s: Any, y: Tensor) -> Tensor:
    return y * s.gain.view(1, -1, 1, 1) + s.shift.view(1, -1, 1, 1)


def centred(s: Any, y: Tensor) -> Tensor:
    """NAFNet's LayerNorm2d."""
    mu = y.mean(1, keepdim=True)
    variance = (y - mu).pow(2).mean(1, keepdim=True)
    return affine(s, (y - mu) / (variance + 1e-6).sqrt())


def by_var(s: Any, y: Tensor) -> Tensor:
    return affine(s, (y - y.mean(1, keepdim=True)) / torch.sqrt(torch.var(y, 1, unbiased=False, keepdim=True) + 1e-6))


def by_std(s: Any, y: Tensor) -> Tensor:
    """With Bessel's correction, which counts the channels."""
    return affine(s, (y - y.mean(1, keepdim=True)) / (y.std(1, keepdim=True) + 1e-3))


def by_var_mean(s: Any, y: Tensor) -> Tensor:
    variance, mean = torch.var_mean(y, dim=(1, 2, 3), keepdim=True)
    return affine(s, (y - mean) * torch.rsqrt(variance + 1e-5))


def permuted(s: Any, y: Tensor) -> Tensor:
    z = y.permute(0, 2, 3, 1)
    return F.layer_norm(z, z.shape[-1:], s.gain, s.shift).permute(0, 3, 1, 2)


def channels_last(s: Any, y: Tensor) -> Tensor:
    z = y.permute(0, 2, 3, 1)
    z = (z - z.mean(-1, keepdim=True)) * (z.var(-1, keepdim=True) + 1e-6).rsqrt()
    return (z * s.gain + s.shift).permute(0, 3, 1, 2)


def one_group(s: Any, y: Tensor) -> Tensor:
    """Group norm of one group, over the flattened image."""
    rows = y.flatten(1)
    rows = (rows - rows.mean(1, keepdim=True)) / rows.std(1, keepdim=True)
    return affine(s, rows.view_as(y))


def root_mean_square(s: Any, y: Tensor) -> Tensor:
    return affine(s, y * torch.rsqrt(y.square().mean(1, keepdim=True) + 1e-6))


def rms_norm(s: Any, y: Tensor) -> Tensor:
    z = y.permute(0, 2, 3, 1)
    return F.rms_norm(z, z.shape[-1:], s.gain).permute(0, 3, 1, 2) + s.shift.view(1, -1, 1, 1)


def unit_length(s: Any, y: Tensor) -> Tensor:
    return affine(s, F.normalize(y, dim=1))


def summed(s: Any, y: Tensor) -> Tensor:
    """A sum, divided by a number that does not follow the width: fewer channels, a smaller sum, cut and uncut alike."""
    return affine(s, y - y.sum(1, keepdim=True) / 8)


def soft(s: Any, y: Tensor) -> Tensor:
    return affine(s, y.softmax(1))


def looked_at(s: Any, y: Tensor) -> Tensor:
    """Spatial attention: one map over all channels."""
    seen = torch.cat([y.mean(1, keepdim=True), torch.max(y, 1)[0].unsqueeze(1), y.logsumexp(1, keepdim=True)], 1)
    return affine(s, y * torch.sigmoid(s.look(seen)))


def response(s: Any, y: Tensor) -> Tensor:
    """ConvNeXt V2's global response normalisation."""
    reach = y.norm(dim=(2, 3), keepdim=True)
    return y + affine(s, y * (reach / (reach.mean(1, keepdim=True) + 1e-6)))


def bare_group_norm(s: Any, y: Tensor) -> Tensor:
    return affine(s, F.group_norm(y, 1))


NORMS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    f.__name__: f
    for f in (
        centred, by_var, by_std, by_var_mean, permuted, channels_last, one_group, root_mean_square, rms_norm, unit_length,
        summed, soft, looked_at, response, bare_group_norm,
    )
}  # fmt: skip


def divided_by_width(s: Any, y: Tensor) -> Tensor:
    """Python divides by the width, which a network that keeps its shapes still has."""
    return affine(s, y - y.sum(1, keepdim=True) / y.shape[1])


def where_largest(s: Any, y: Tensor) -> Tensor:
    """The number of the largest channel is a value like any other."""
    return affine(s, y * y.max(1, keepdim=True)[1])


def each_with_its_half(s: Any, y: Tensor) -> Tensor:
    """No moment over all channels: what is summed are pairs."""
    return affine(s, y.view(len(y), 2, -1, *y.shape[2:]).sum(1).repeat(1, 2, 1, 1))


def network(norm: Callable[[Any, Tensor], Tensor], width: int = 8) -> nn.Module:
    """A residual stream of this width with a norm in it, read by two convolutions."""

    def forward(s: Any, x: Tensor) -> Tensor:
        y = s.a(x)
        y = y + s.b(norm(s, y))
        return s.head(s.c(norm(s, y)))

    gain, shift = torch.rand(width) + 0.5, torch.randn(width)
    return Wired(
        forward,
        a=block(3, width),
        b=conv(width, width),
        c=block(width, 6),
        look=conv(3, 1),
        head=head(6),
        gain=gain,
        shift=shift,
    )


def narrowed(norm: Callable[[Any, Tensor], Tensor], whole: nn.Module, keep: Sequence[int]) -> nn.Module:
    """The same code at the width of what is kept, with its tensors."""
    narrow = network(norm, len(keep))
    chosen = torch.tensor(keep)
    state = {}
    for key, small in narrow.state_dict().items():
        tensor = whole.state_dict()[key]
        for dim, (a, b) in enumerate(zip(small.shape, tensor.shape, strict=True)):
            tensor = tensor if a == b else tensor.index_select(dim, chosen)
        state[key] = tensor
    narrow.load_state_dict(state)
    return narrow
