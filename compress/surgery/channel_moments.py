"""Moments over channels: a network that keeps its shapes takes them over the channels that stay, as a cut network does.

Code that takes a mean, a variance, a norm or a maximum over channels sees all of them, silenced ones too. So what makes a
removed channel is set to NaN, and the values say themselves, wherever the code moves them, which channels are gone: a
reduction leaves them out and runs as it is on the rest, and what reads channels takes them for zero. Nobody has to know which
line of the code stands where.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compress.surgery.dispatching import DispatchMode

MOMENTS = frozenset("mean sum prod amax amin max min var std var_mean logsumexp linalg_vector_norm norm".split())
"""Reductions whose result over the channels holds no channel any more."""
_SECOND = frozenset("linalg_vector_norm norm topk".split())
"""Operations whose second argument is no dimension; it is the third."""
_READS = {"convolution": 0, "linear": 0, "mm": 0, "addmm": 1}
"""Operations that read channels, and which argument holds them."""


def reduced_dims(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], dims: int) -> list[int]:
    """The dimensions that an operation reduces, ascending.

    Args:
        name: the operation's in the dispatcher.
        args: its arguments.
        kwargs: those by name.
        dims: how many dimensions its input has.
    """
    where = 2 if name in _SECOND else 1
    given = kwargs.get("dim", args[where] if len(args) > where else (-1 if name in ("topk", "sort") else None))
    if given is None or isinstance(given, Tensor | float) or given == []:
        return list(range(dims))
    return sorted({d % dims for d in ([given] if isinstance(given, int) else given)} if dims else set())


def over_kept_channels(model: nn.Module) -> None:
    """From now on the network, whose removed channels are NaN, reduces over the others only."""
    mode = _KeptOnly()  # type: ignore[no-untyped-call]
    model.register_forward_pre_hook(mode.begin, prepend=True)
    model.register_forward_hook(mode.end, always_call=True)


class _KeptOnly(DispatchMode):
    def begin(self, *_: Any) -> None:
        self.__enter__()  # type: ignore[no-untyped-call]

    def end(self, *_: Any) -> None:
        self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func._schema.name.removeprefix("aten::"), kwargs or {}
        if name in _READS:
            args = (*args[: _READS[name]], _silent(args[_READS[name]]), *args[_READS[name] + 1 :])
        elif name in MOMENTS and args[0].is_floating_point():
            args = (_kept(args[0], reduced_dims(name, args, kwargs, args[0].dim())), *args[1:])
        elif name in ("_softmax", "_log_softmax"):
            return _softmax(func, *args)
        elif name == "native_layer_norm" and len(args[1]) == 1:
            return _layer_norm(func, *args)
        elif name == "native_group_norm":
            return _group_norm(func, *args)
        return func(*args, **kwargs)


def _silent(x: Tensor) -> Tensor:
    return torch.where(x.isnan(), 0.0, x) if x.is_floating_point() else x


def _staying(x: Tensor, dim: int) -> Tensor | None:
    """The indices along a dimension at which something is left; None where that is everywhere, or nowhere."""
    stays = ~x.isnan().movedim(dim, 0).flatten(1).all(1)
    return stays.nonzero()[:, 0] if x.numel() and bool(stays.any()) and not bool(stays.all()) else None


def _kept(x: Tensor, dims: Sequence[int]) -> Tensor:
    for dim in dims:
        stays = _staying(x, dim)
        if stays is not None:
            x = x.index_select(dim, stays)
    return x


def _softmax(func: Any, x: Tensor, dim: int, half: bool) -> Tensor:
    stays = _staying(x, dim)
    if stays is None:
        return func(x, dim, half)  # type: ignore[no-any-return]
    return _back(func(x.index_select(dim, stays), dim, half), x, dim, stays)


def _layer_norm(func: Any, x: Tensor, shape: Any, weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
    stays = _staying(x, -1)
    if stays is None:
        return func(x, shape, weight, bias, eps)
    affine = [t if t is None else t[stays] for t in (weight, bias)]
    out, *moments = func(x.index_select(-1, stays), [len(stays)], *affine, eps)
    return _back(out, x, -1, stays), *moments


def _group_norm(
    func: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, images: int, channels: int, sites: int, *rest: Any
) -> Any:
    stays = _staying(x, 1)
    if stays is None:
        return func(x, weight, bias, images, channels, sites, *rest)
    affine = [t if t is None else t[stays] for t in (weight, bias)]
    out, *moments = func(x.index_select(1, stays), *affine, images, len(stays), sites, *rest)
    return _back(out, x, 1, stays), *moments


def _back(out: Tensor, x: Tensor, dim: int, stays: Tensor) -> Tensor:
    """The result at the places of what stays; what is gone is gone from it, too."""
    return torch.full_like(x, torch.nan, dtype=out.dtype).index_copy(dim, stays, out)
