"""A copy made at less cost is the copy that Python makes: the same parts, shared by the same parts, and none the original's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

import pytest
import torch
from support.nets import NETS, build
from torch import Tensor, nn

from compress.surgery import deep_copy


class Tangled(nn.Module):
    """Parts that refer to each other in every way."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)
        self.two.weight = self.one.weight
        self.again = self.one
        self.register_buffer("table", torch.arange(6.0))
        self.view = self.table[2:4]
        self.beside = [self.one, {"two": self.two}]
        self.others: list[Any] = []
        self.two.others = self.others
        self.one.above = (self,)
        self.one.register_forward_hook(self.count)
        self.calls = {"count": 0}

    def count(self, *_: Any) -> None:
        self.calls["count"] += 1

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.again(x))  # type: ignore[no-any-return]


class Saying(nn.Linear):
    def __deepcopy__(self, memo: dict[int, Any]) -> Saying:
        made = Saying(self.in_features, self.out_features)
        made.told = True
        return made


class Forgetful(nn.Linear):
    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "cache"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.cache = "made anew"


class Slotted(nn.Linear):
    __slots__ = ("beside",)


def with_parts(kind: Callable[..., nn.Module]) -> nn.Module:
    model = nn.Sequential(kind(3, 3), nn.BatchNorm1d(3), nn.Sequential(kind(3, 2)))
    for module in (model[0], model[2][0]):  # type: ignore[index]
        module.cache, module.beside = "old", [1]
    return model


MODELS: dict[str, Callable[[], nn.Module]] = {
    "tangled": Tangled,
    "says itself": lambda: with_parts(Saying),
    "forgets": lambda: with_parts(Forgetful),
    "slots": lambda: with_parts(Slotted),
    "frozen": lambda: nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)).requires_grad_(False).train(),
    **{name: lambda name=name: build(name) for name in NETS},
}


def parts(whole: Any, at: str = "", seen: dict[int, str] | None = None) -> Iterator[tuple[str, Any, Any]]:
    """Where, what, and the part itself; a part that was met before is told by where that was."""
    seen = {} if seen is None else seen
    if isinstance(whole, int | float | bool | str | bytes | type(None) | type | FunctionType | torch.dtype | torch.device):
        yield at, whole, None
        return
    if id(whole) in seen:
        yield at, seen[id(whole)], whole
        return
    seen[id(whole)] = at
    if isinstance(whole, Tensor):
        memory = seen.setdefault(-whole.untyped_storage()._cdata, at)
        what = type(whole), tuple(whole.shape), whole.stride(), whole.requires_grad, memory, whole.detach().flatten().tolist()
        yield at, what, whole
        return
    yield at, type(whole), whole
    if isinstance(whole, dict):
        for number, (key, value) in enumerate(whole.items()):
            yield from parts(key, f"{at}<{number}>", seen)
            yield from parts(value, f"{at}[{number}]", seen)
    elif isinstance(whole, list | tuple | set | frozenset):
        for number, value in enumerate(whole):
            yield from parts(value, f"{at}[{number}]", seen)
    elif hasattr(whole, "__self__"):
        yield from parts(whole.__self__, f"{at}.__self__", seen)
    else:
        for name, value in getattr(whole, "__dict__", {}).items():
            yield f"{at}.", name, None
            yield from parts(value, f"{at}.{name}", seen)
        for name in getattr(type(whole), "__slots__", ()):
            yield from parts(getattr(whole, name, None), f"{at}.{name}", seen)


@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_copy_that_python_makes(name: str) -> None:
    model = MODELS[name]()
    torch.manual_seed(0)
    wanted = copy.deepcopy(model)
    torch.manual_seed(0)
    got = deep_copy(model)
    assert [p[:2] for p in parts(got)] == [p[:2] for p in parts(wanted)]
    own = {id(part) for _, _, part in parts(model) if isinstance(part, nn.Module | Tensor | dict | list | set)}
    assert not own & {id(part) for _, _, part in parts(got)}


@pytest.mark.parametrize("name", MODELS)
def test_what_stands_for_a_part_stands_in_the_copy(name: str) -> None:
    model = MODELS[name]()
    shared = {id(tensor): tensor for tensor in model.state_dict(keep_vars=True).values()}
    torch.manual_seed(0)
    wanted = copy.deepcopy(model, dict(shared))
    torch.manual_seed(0)
    got = deep_copy(model, shared)
    assert [p[:2] for p in parts(got)] == [p[:2] for p in parts(wanted)]
    if name != "says itself":
        assert all(t is shared[id(t)] for t in got.state_dict(keep_vars=True).values())
