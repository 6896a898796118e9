"""A deep copy of a network at less cost: modules that Python would take apart and put together by rote are filled at once."""

from __future__ import annotations

import copy
import copyreg
from collections import OrderedDict
from functools import cache
from types import FunctionType, NoneType
from typing import Any

from torch import nn

_ATOMS = frozenset({int, float, bool, str, bytes, NoneType, type, FunctionType})
_TABLES = frozenset({OrderedDict, dict, list, set})
_PROTOCOL = 4
"""Of what ``copy`` asks an object for."""


def deep_copy(model: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """What ``copy.deepcopy`` gives: a module has some thirty attributes, most of them numbers and empty tables of hooks.

    Args:
        model: any module; where a part of it says itself how it is copied, Python's own way is gone.
        memo: ``id`` of a part -> what stands for it in the copy.
    """
    known: dict[int, Any] = dict(memo or {})
    modules = list(model.modules())
    if id(model) in known or not all(map(_plain, map(type, modules))):
        return copy.deepcopy(model, known)
    modules = [module for module in modules if id(module) not in known]
    for module in modules:  # all of them first, for they refer to each other
        known[id(module)] = type(module).__new__(type(module))
    for module in modules:
        state: dict[str, Any] = module.__reduce_ex__(_PROTOCOL)[2]  # type: ignore[assignment]
        known[id(module)].__setstate__({key: _copied(value, known) for key, value in state.items()})
    return known[id(model)]  # type: ignore[no-any-return]


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in _ATOMS or (kind is tuple and all(type(part) in _ATOMS for part in value)):
        return value
    if kind in _TABLES and not value:
        return memo.setdefault(id(value), kind())
    return copy.deepcopy(value, memo)


@cache
def _plain(kind: Any) -> bool:
    """Whether modules of a class are copied by rote: a new one, and its attributes; no code but torch's has a say in it."""
    usual = kind.__reduce_ex__ is object.__reduce_ex__ and kind.__reduce__ is object.__reduce__
    states = getattr(kind, "__getstate__", None) is getattr(nn.Module, "__getstate__", None)
    asks = any(hasattr(kind, name) for name in ("__deepcopy__", "__getnewargs__", "__getnewargs_ex__"))
    known = kind not in copyreg.dispatch_table and kind.__new__ is object.__new__ and type(kind) is type
    return (
        usual
        and states
        and known
        and not asks
        and not copyreg._slotnames(kind)  # type: ignore[attr-defined]
        and kind.__setstate__.__module__.startswith("torch.nn.modules.")
    )
