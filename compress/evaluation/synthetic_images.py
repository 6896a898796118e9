"""Inputs for a network whose data is not there: images that its batch norms recognise."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from compress.core import derive
from compress.errors import ModelError
from compress.networks import autocast, channels_last, seeded
from compress.signature import signature_of

_SMALLEST = 32
"""Half a side must not be smaller, in pixels: the last layers would have too few positions to match."""
_LR = 0.1
_VARIATION, _NORM = 1e-3, 1e-4
"""Weights of total variation and squared pixel norm: enough to break ties, not to compete with the statistics."""


@dataclass(frozen=True, slots=True)
class Synthetic:
    """Inputs made without data.

    Attributes:
        images: normalised float32 images, shape (count, c, h, w), on the CPU.
        matched: they were fitted to the network's statistics; otherwise they are plain noise.
        reason: what they are and why, for a report.
        mismatch: distance of the batch-norm statistics of plain noise, and of these images, from the running ones;
            see :func:`matched_inputs`. None where there is nothing to compare with.
    """

    images: Tensor
    matched: bool
    reason: str
    mismatch: tuple[float, float] | None = None


def matched_inputs(
    model: nn.Module, shape: tuple[int, ...], count: int, *, seed: int = 0, steps: int = 60, fine_steps: int = 6
) -> Synthetic:
    """Images on which every batch norm sees the mean and variance that it saw in training.

    Starting from noise, Adam moves the pixels until each layer's batch statistics meet the running ones, with a little
    total variation and pixel norm (DeepInversion: Yin et al., CVPR 2020, without the class loss; ZeroQ: Cai et al.,
    CVPR 2020). No label and no image is needed. Where the images are large, most steps are taken at half the
    resolution, a quarter of the work, and only the last ones at full size.

    A layer's mismatch is the mean over its channels of ((m - mu) / sigma)² + (s / sigma - 1)², with m, s of the batch
    and mu, sigma the running ones; the network's is the mean over its batch norms.

    Args:
        model: the network; it is left as it is.
        shape: of one input, (c, h, w) of an image; a row's, where the network takes rows.
        count: images; at least 2, or there is no variance to match.
        seed: of the noise.
        steps: of the descent; at half resolution where that is used.
        fine_steps: at full size, after those at half.

    Raises:
        ModelError: the network does not take images of this shape.
    """
    with seeded(derive(seed, "synthetic")):
        signature = signature_of(model)
        noise = torch.randn(count, *shape) if signature is None else signature.rows(count, seed)
        obstacle = "one image has no variance to match" if count < 2 else _obstacle(model)
        if obstacle:
            return Synthetic(noise, False, f"seeded normal noise: {obstacle}")
        return _match(model, noise, steps, fine_steps)


def _norms(model: nn.Module) -> list[_BatchNorm]:
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_var is not None]


def _obstacle(model: nn.Module) -> str:
    """Why there is nothing to match; empty where there is."""
    statistics = [(n.running_mean, n.running_var) for n in _norms(model)]
    known = [(mean, var) for mean, var in statistics if mean is not None and var is not None]
    if not known:
        return "the network has no batch norm with running statistics"
    if all(bool((mean == 0).all() and (var == 1).all()) for mean, var in known):
        return "the batch norms hold no trained statistics (mean 0 and variance 1 everywhere)"
    if not all(bool(mean.isfinite().all() and var.isfinite().all()) for mean, var in known):
        return "the running statistics are not finite"
    return ""


def _match(model: nn.Module, noise: Tensor, steps: int, fine_steps: int) -> Synthetic:
    network = channels_last(copy.deepcopy(model).float()).eval().requires_grad_(False)
    noise = noise.to(_norms(network)[0].running_mean.device)  # type: ignore[union-attr]
    terms: list[Tensor] = []
    for norm in _norms(network):
        norm.register_forward_pre_hook(_watch(norm, terms))
    try:
        before = _mismatch(network, noise, terms)
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"the network does not take images of shape {tuple(noise.shape[1:])}: {error}", hint="check the input size"
        ) from error

    size = noise.shape[2:]
    coarse = F.interpolate(noise, scale_factor=0.5, mode="nearest") if noise.dim() == 4 else noise
    if noise.dim() == 4 and min(coarse.shape[2:]) >= _SMALLEST and _takes(network, coarse):
        images = _descend(network, coarse, terms, steps, _LR)
        images = F.interpolate(images, size, mode="bilinear", align_corners=False)
        images = _descend(network, images, terms, fine_steps, _LR / 2)
    else:
        images = _descend(network, noise, terms, steps, _LR)
    after = _mismatch(network, images, terms)
    reason = f"images fitted to the batch-norm statistics: mismatch {after:.2g}, plain noise has {before:.2g}"
    return Synthetic(images.cpu().contiguous(), True, reason, (before, after))


def _watch(norm: _BatchNorm, terms: list[Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    assert norm.running_mean is not None and norm.running_var is not None
    mean, deviation = norm.running_mean, norm.running_var.clamp_min(0).sqrt()
    # A dead channel has no scale of its own: a tenth of the layer's.
    scale = deviation + 0.1 * deviation.mean() + 1e-6

    def add(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = args[0].float()
        var, m = torch.var_mean(x, [0, *range(2, x.ndim)], correction=0)
        terms.append((((m - mean) / scale).square() + (((var + 1e-8).sqrt() - deviation) / scale).square()).mean())

    return add


def _takes(network: nn.Module, images: Tensor) -> bool:
    try:
        with torch.no_grad():
            network(images[:2])
    except (RuntimeError, ValueError):
        return False
    return True


def _statistics_loss(network: nn.Module, images: Tensor, terms: list[Tensor]) -> Tensor:
    terms.clear()
    with autocast(images.device, "auto"):
        network(images.contiguous(memory_format=_format(images)))
    return torch.stack(terms).mean()


def _format(images: Tensor) -> torch.memory_format:
    return torch.channels_last if images.dim() == 4 else torch.contiguous_format


def _mismatch(network: nn.Module, images: Tensor, terms: list[Tensor]) -> float:
    with torch.no_grad():
        return float(_statistics_loss(network, images, terms))


def _descend(network: nn.Module, images: Tensor, terms: list[Tensor], steps: int, lr: float) -> Tensor:
    images = images.detach().clone(memory_format=_format(images)).requires_grad_(True)
    adam = torch.optim.Adam([images], lr=lr, betas=(0.5, 0.9))
    for _ in range(steps):
        steep = sum(images.diff(dim=dim).square().mean() for dim in range(2, images.dim()))
        prior = _VARIATION * steep + _NORM * images.square().mean()
        loss = _statistics_loss(network, images, terms) + prior
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
    return images.detach()
