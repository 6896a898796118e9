"""Numbers in modules that count channels follow every cut, and a file that is loaded has them too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support import structures  # noqa: F401  (its networks are among ALL)
from support.nets import any_plan, build, inputs, traced
from torch import nn

from compress.core import WIDTH_OF, Plan, compose, restrict
from compress.errors import PlanError
from compress.networks import Architecture, load, save
from compress.surgery import cut, shaped_to

NAMES = ("by-number", "by-list", "by-numbers", "by-border")
every_kind = pytest.mark.parametrize("name", NAMES)


def held(model: nn.Module) -> dict[str, int | tuple[int, ...]]:
    """What the module says of its pieces."""
    return {k: tuple(v) if isinstance(v := vars(model)[k], list) else v for k in ("width", "sizes", "one", "two")}


@every_kind
def test_they_count_what_is_left(name: str) -> None:
    model, topology = traced(name)
    small = cut(model, topology, any_plan(topology, 1, 0.5))
    assert held(model) != held(small), "the plan changed no piece"
    widths = [part[0].in_channels for part in small.parts]  # type: ignore[union-attr,index]
    told = held(small)
    expected = {"by-number": {told["width"]}, "by-list": set(told["sizes"]), "by-numbers": {told["one"], told["two"]}}  # type: ignore[arg-type]
    assert set(widths) == expected[name] if name in expected else widths[0] == told["one"]
    assert held(model) == held(build(name)), "the caller's network was changed"


@every_kind
@pytest.mark.parametrize("seed", range(4))
def test_a_cut_of_a_cut_is_the_composed_cut(name: str, seed: int) -> None:
    model, topology = traced(name)
    first = any_plan(topology, seed, 0.3)
    once, left = cut(model, topology, first), restrict(topology, first)
    second = any_plan(left, seed + 100, 0.3)
    twice, straight = cut(once, left, second), cut(model, topology, compose(topology, first, second))
    assert held(twice) == held(straight)
    x = inputs(name)
    with torch.no_grad():
        assert torch.equal(twice.double()(x), straight.double()(x))


@every_kind
def test_a_file_has_them(name: str, tmp_path: Path) -> None:
    model, topology = traced(name)
    plan = any_plan(topology, 2, 0.5)
    small = cut(model, topology, plan)
    save(tmp_path / "small.safetensors", small, architecture=Architecture("pieces", {}), plan=plan)
    again = load(tmp_path / "small.safetensors", zoo={"pieces": lambda: build(name)}).model
    assert held(again) == held(small)
    x = inputs(name)
    with torch.no_grad():
        assert torch.equal(again.double()(x), small.double()(x))


@pytest.mark.parametrize(
    ("key", "counts"),
    [
        ("width_of_forward", [1]), ("width_of_kind", [3]), ("width_of_width", [0]), ("width_of_width", [1, 2]),
        ("width_of_sizes", [1]), ("width_of_training", [1]), ("stem.width_of_width", [1]), ("width_of___class__", [1]),
    ],
)  # fmt: skip
def test_no_other_attribute_can_be_written(key: str, counts: list[int]) -> None:
    state = build("by-number").state_dict() | {key: torch.tensor(counts)}
    with pytest.raises(PlanError, match="holds no counts"):
        shaped_to(build("by-number"), state)


def test_no_buffer_where_nothing_was_cut() -> None:
    model, topology = traced("by-number")
    assert not [k for k in cut(model, topology, Plan()).state_dict() if WIDTH_OF in k]
    assert np.array([a.values for a in topology.attributes]).tolist() == [[4]]
