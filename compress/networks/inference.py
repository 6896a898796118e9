"""How a network is run: precision, placement, batches, randomness; and what its output is."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import TrainError
from compress.signature import first_tensor

_BATCH = 64
"""Images of one forward pass."""


def computes_bf16(device: torch.device) -> bool:
    """Whether the device multiplies in bf16; elsewhere it is emulated, hence slower than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


@contextmanager
def computing_with(threads: int | None) -> Iterator[None]:
    """Torch computes with so many threads while the block runs; None leaves its number."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def channels_last(model: nn.Module) -> nn.Module:
    """The network itself, its image kernels channels last, which is several times faster on narrow layers.

    Kernels of one pixel or one channel lie in both orders at once and keep their strides, where ``Module.to`` gives them
    others: torch then rounds otherwise, and a score is off by up to 1e-6 of its size from those that ``to`` gave.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return model


def placed(images: Tensor, device: torch.device) -> Tensor:
    """Images on a device, channels last; what is no image as it lies."""
    kept = torch.channels_last if images.dim() == 4 else torch.preserve_format
    return images.to(device, non_blocking=True, memory_format=kept)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which a network computes at a precision of :class:`~compress.recovery.Schedule`."""
    enabled = precision == "bf16" or (precision == "auto" and computes_bf16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def frozen_copy(model: nn.Module, device: torch.device) -> nn.Module:
    """A copy that is only asked: on a device, in single precision, channels last, eval mode, without gradients."""
    return channels_last(copy.deepcopy(model).float().to(device)).eval().requires_grad_(False)


def logits_of(output: Any) -> Tensor:
    """The classes' scores; auxiliary heads, which come after them, are not trained."""
    first = first_tensor(output)
    if first.ndim != 2:
        raise TrainError(f"the network returns {tuple(first.shape)}, but logits of shape (images, classes) are wanted")
    return first


def in_batches(images: Tensor) -> list[Tensor]:
    """Images in batches; a lone last one joins its neighbour, because a batch of one has no statistics."""
    parts = list(torch.split(images, _BATCH))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


@contextmanager
def seeded(seed: int) -> Iterator[Callable[[int], object]]:
    """Inside, torch's global generators start from ``seed``; afterwards they are what they were before.

    Yields:
        A function that seeds them again, so that a loop can make each step's noise depend on its position alone.
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield torch.manual_seed
