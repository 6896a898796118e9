"""Whether a network's evaluation can be compared with anything: the same numbers twice, and numbers at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compress.signature import leaves

_SAME = 1e-5
"""Two runs may differ by this share of their largest number."""
_ROWS = 2


def unsteady(model: nn.Module, examples: Sequence[Tensor]) -> str:
    """Why nothing can be proven about a network, and where that begins; empty where its evaluation is steady.

    Args:
        model: in evaluation mode.
        examples: its inputs; only their shapes and types matter, normal noise is given.
    """
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(_ROWS, *x.shape[1:], generator=generator).to(x.device, x.dtype) for x in examples]
    first, second = _seen(model, inputs), _seen(model, inputs)
    for told, holds in (("gives NaN or infinity", _finite), ("is random: two runs on the same input differ", _alike)):
        if holds(first[""], second[""]):
            continue
        where = next((name for name in first if name and not holds(first[name], second.get(name, []))), "")
        return f"its evaluation {told}, first in {repr(where) if where else 'its own forward'}"
    return ""


def _seen(model: nn.Module, inputs: Sequence[Tensor]) -> dict[str, list[Tensor]]:
    """Module -> its floating-point outputs, in the order in which modules finish; the network itself is ``""``."""
    found: dict[str, list[Tensor]] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            tensors = [t for _, t in leaves(output) if isinstance(t, Tensor) and t.is_floating_point()]
            found.setdefault(name, [t.detach().clone() for t in tensors])

        return hook

    hooks = [m.register_forward_hook(note(n)) for n, m in model.named_modules() if not isinstance(m, torch.jit.ScriptModule)]
    try:
        with torch.no_grad():
            output = model(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    found[""] = [t for _, t in leaves(output) if isinstance(t, Tensor) and t.is_floating_point()]
    return found


def _finite(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(bool(torch.isfinite(t).all()) for t in one)


def _alike(one: list[Tensor], other: list[Tensor]) -> bool:
    if len(one) != len(other):
        return False
    return all(a.shape == b.shape and (not a.numel() or _close(a, b)) for a, b in zip(one, other, strict=True))


def _close(a: Tensor, b: Tensor) -> bool:
    return float((a - b).abs().max()) <= _SAME * float(a.abs().max())
