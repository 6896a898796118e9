"""Weights that are computed on every call (weight norm, spectral norm, other parametrizations, pruning masks) made plain.

A cut needs the weight itself: what a hook computes from other tensors has no rows and columns that could go.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm, remove_spectral_norm
from torch.nn.utils.weight_norm import WeightNorm, remove_weight_norm


def folded(model: nn.Module) -> nn.Module:
    """The same function with plain weights: a copy, or the model itself where nothing is computed.

    Modes, ``requires_grad`` and hooks of other kinds survive. Folded weights train as plain ones from here on.
    """
    if not any(True for _ in _computed(model)):
        return model
    memo: dict[int, Any] = {}
    for module in model.modules():  # a weight that a hook left behind is no leaf, and cannot be copied
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    result = copy.deepcopy(model, memo)
    training = {module: module.training for module in result.modules()}
    result.eval()  # in training mode, asking for a spectrally normed weight changes its statistics
    for module, name, remove in list(_computed(result)):
        learns = any(p.requires_grad for p in _sources(module, name))
        remove(module, name)
        getattr(module, name).requires_grad_(learns)
    for module in result.modules():
        module.training = training[module]
    return result


def _computed(model: nn.Module) -> Iterator[tuple[nn.Module, str, Callable[[Any, str], Any]]]:
    """(module, name of the tensor, what makes it plain)."""
    for module in model.modules():
        if parametrize.is_parametrized(module):
            yield from ((module, name, _remove_parametrization) for name in module.parametrizations)  # type: ignore[union-attr]
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, WeightNorm):
                yield module, hook.name, remove_weight_norm
            elif isinstance(hook, SpectralNorm):
                yield module, hook.name, remove_spectral_norm
            elif isinstance(hook, prune.BasePruningMethod):
                yield module, hook._tensor_name, prune.remove


def _sources(module: nn.Module, name: str) -> Iterator[nn.Parameter]:
    """The parameters that the tensor is computed from."""
    if parametrize.is_parametrized(module, name):
        yield from module.parametrizations[name].parameters()  # type: ignore[index,union-attr]
    else:
        yield from (p for n, p in module.named_parameters(recurse=False) if n.startswith(f"{name}_"))


def _remove_parametrization(module: nn.Module, name: str) -> None:
    """Torch's own removal takes the tensor from the class, which a copy shares with its original."""
    plain = getattr(module, name).detach()
    kind: Any = type(module)
    chain: Any = module.parametrizations
    if len(chain) == 1:
        module.__class__ = kind.__bases__[0]
        del module._modules["parametrizations"]
    else:
        rest = {n: v for n, v in vars(kind).items() if n not in (name, "__dict__", "__weakref__")}
        module.__class__ = type(kind.__name__, kind.__bases__, rest)
        del chain[name]
    module.register_parameter(name, nn.Parameter(plain))
