"""Channels followed through a network's own run: by hand where small, by what the numbers do elsewhere."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support import structures
from support.covering import in_turns
from support.nets import ALL, NETS, build, example, inputs, traced
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from compress.core.topology import Role
from compress.coupling.channel_labels import Provenance
from compress.coupling.provenance import _followed, follow
from compress.surgery.cutting import is_channel_map

assert set(structures.STRUCTURES) <= set(ALL)


class Between(nn.Module):
    """Two layers and something between them."""

    def __init__(self, between: Callable[[Tensor], Tensor], wide: int, last: nn.Module | None = None) -> None:
        super().__init__()
        self.a, self.between = nn.Conv2d(3, 8, 1, bias=False), between
        self.b = nn.Conv2d(wide, 2, 1, bias=False) if last is None else last

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.between(self.a(x)))  # type: ignore[no-any-return]


def read(between: Callable[[Tensor], Tensor], wide: int = 8, last: nn.Module | None = None) -> list[int | None]:
    """For each input of the second layer, which channel of the first it is; None where it is none of them."""
    run = following(Between(between, wide, last))
    made = {int(v): c for c, v in reversed(list(enumerate(run.labels["a.weight", 0])))}
    return [made.get(int(v)) for v in run.labels["b.weight", 1]]


def following(model: nn.Module, size: int = 4) -> Provenance:
    keys = {id(t): k for k, t in model.state_dict(keep_vars=True).items()}
    return follow(model.eval(), [torch.zeros(1, 3, size, size)], keys)


EIGHT: list[int | None] = list(range(8))


@pytest.mark.parametrize(
    "between",
    [
        lambda x: x, F.relu, lambda x: F.max_pool2d(x, 2), lambda x: F.avg_pool2d(x, 2), lambda x: F.interpolate(x, 8),
        lambda x: x * 2 + 1, lambda x: F.pad(x, (1, 1, 1, 1)), lambda x: F.adaptive_avg_pool2d(x, 2),
        lambda x: x[:, :, ::2, 1:],
        lambda x: x.permute(0, 2, 3, 1).permute(0, 3, 1, 2), lambda x: x.clone().mul_(2), lambda x: x.contiguous(),
        lambda x: torch.where(x > 0, x, 0.1 * x), lambda x: x / (1 + x.abs()), lambda x: x.flip(2), lambda x: F.softmax(x, 3),
        lambda x: torch.cat([x, x], 2), lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"), lambda x: x.roll(1, 3),
        lambda x: torch.stack(list(x.unbind(1)), 1), lambda x: x.reshape(1, 2, 4, 16).flatten(1, 2).view(1, 8, 4, 4),
    ],
)  # fmt: skip
def test_what_leaves_channels_where_they_are(between: Callable[[Tensor], Tensor]) -> None:
    assert read(between) == EIGHT


@pytest.mark.parametrize(
    ("between", "expected"),
    [
        (lambda x: x.flip(1), EIGHT[::-1]),
        (lambda x: x.roll(3, 1), [5, 6, 7, 0, 1, 2, 3, 4]),
        (lambda x: x[:, 2:5], [2, 3, 4]),
        (lambda x: x[:, 1::3], [1, 4, 7]),
        (lambda x: x[:, [6, 0, 3]], [6, 0, 3]),
        (lambda x: x.chunk(2, 1)[1], [4, 5, 6, 7]),
        (lambda x: x.narrow(1, 3, 2), [3, 4]),
        (lambda x: torch.cat([x, x], 1), EIGHT * 2),
        (lambda x: torch.cat([x[:, 5:], x[:, :2]], 1), [5, 6, 7, 0, 1]),
        (lambda x: F.channel_shuffle(x, 2), [0, 4, 1, 5, 2, 6, 3, 7]),
        (lambda x: x.view(1, 2, 4, 4, 4).transpose(1, 2).reshape(1, 8, 4, 4), [0, 4, 1, 5, 2, 6, 3, 7]),
        (lambda x: x.repeat_interleave(2, 1), [c for c in range(8) for _ in range(2)]),
        (lambda x: x.repeat(1, 2, 1, 1), EIGHT * 2),
        (lambda x: F.pad(x, (0, 0, 0, 0, 1, 2)), [None, *EIGHT, None, None]),
        (lambda x: F.pixel_unshuffle(x, 2), [c for c in range(8) for _ in range(4)]),
        (lambda x: torch.cat([torch.zeros_like(x[:, :2]), x], 1), [None, None, *EIGHT]),
    ],
)
def test_what_moves_channels(between: Callable[[Tensor], Tensor], expected: list[int | None]) -> None:
    assert read(between, len(expected)) == expected


@pytest.mark.parametrize(
    ("between", "expected"),
    [
        (lambda x: x[:, :4] + x[:, 4:], [0, 1, 2, 3]),  # c and c + 4 are one now, under the first one's name
        (lambda x: F.pixel_shuffle(x, 2), [0, 4]),
        (lambda x: x.view(1, 4, 2, 4, 4).sum(2), [0, 2, 4, 6]),
        (lambda x: x.sort(1)[0], [0] * 8),
        (lambda x: x.cumsum(1), [0] * 8),
    ],
)
def test_what_joins_channels(between: Callable[[Tensor], Tensor], expected: list[int]) -> None:
    assert read(between, len(expected)) == expected


@pytest.mark.parametrize(
    ("between", "expected", "over"),
    [
        (lambda x: x.sum(1, keepdim=True), [None], True),
        (lambda x: F.softmax(x, 1), EIGHT, True),
        (lambda x: F.softmax(x, 2), EIGHT, False),
        (lambda x: x - x.mean((1, 2, 3), keepdim=True), EIGHT, True),
        (lambda x: x.view(1, 4, 2, 4, 4).sum(2), [0, 2, 4, 6], False),
        (lambda x: x * x.mean((2, 3), keepdim=True), EIGHT, False),
    ],
)
def test_moments_over_channels_hold_none_and_are_known(
    between: Callable[[Tensor], Tensor], expected: list[int | None], over: bool
) -> None:
    assert read(between, len(expected)) == expected
    assert bool(following(Between(between, len(expected))).moments) == over


def test_flattening_in_both_layouts() -> None:
    last = nn.Linear(8 * 16, 2, bias=False)
    assert read(lambda x: x.flatten(1), last=last) == [c for c in range(8) for _ in range(16)]
    assert read(lambda x: x.permute(0, 2, 3, 1).flatten(1), last=last) == EIGHT * 16
    memory = Between(lambda x: x.permute(0, 2, 3, 1).flatten(1), 0, last).to(memory_format=torch.channels_last)
    assert len(set(following(memory).labels["b.weight", 1].tolist())) == 8


@pytest.mark.parametrize(
    "between",
    [lambda x: torch.fft.fft(x, dim=1).real, lambda x: x @ x.transpose(2, 3), lambda x: x.cumsum(1).flip(1).sort(1)[0]],
)
def test_what_mixes_channels_leaves_none_to_cut(between: Callable[[Tensor], Tensor]) -> None:
    run = following(Between(between, 8))
    classes = set(run.labels["a.weight", 0].tolist())
    assert len(classes) == 1 or classes <= set(run.frozen)


@pytest.mark.parametrize("name", ALL)
def test_labels_that_share_their_memory_tell_what_labels_of_their_own_tell(name: str) -> None:
    """Where the network writes into activations the first ones say so; nowhere else are the others needed."""
    model, given = build(name), example(name)
    keys = {id(t): k for k, t in model.state_dict(keep_vars=True).items()}
    examples = list(given) if isinstance(given, tuple) else [given]
    shared, owned = (_followed(model, examples, keys, writable=w) for w in (False, True))
    assert owned is not None
    if shared is None:
        assert name in {"inplace", "written-into", "added-into", "shifted", "every-second", "padded", "overwritten"}
        return
    assert shared.labels.keys() == owned.labels.keys()
    for slot, values in shared.labels.items():
        same = {(a, b) for a, b in zip(values.tolist(), owned.labels[slot].tolist(), strict=True)}
        assert len({a for a, _ in same}) == len({b for _, b in same}) == len(same), slot
    for field in ("reads", "layers", "sites", "attention", "fixed_macs", "operations"):
        assert getattr(shared, field) == getattr(owned, field), field
    assert sorted(shared.frozen.values()) == sorted(owned.frozen.values())
    assert sorted(shared.by_number.values()) == sorted(owned.by_number.values())


@pytest.mark.parametrize(
    ("between", "wide", "picked"),
    [
        (lambda x: x[:, :4], 4, True), (lambda x: x.chunk(2, 1)[0], 4, True), (lambda x: x[:, [1, 3]], 2, True),
        (lambda x: x.flip(1), 8, True), (lambda x: F.channel_shuffle(x, 2), 8, True),
        (lambda x: F.pixel_shuffle(x, 2), 2, True),
        (lambda x: x.view(1, 2, 4, 4, 4).transpose(1, 2).reshape(1, 8, 4, 4), 8, True),
        (lambda x: x * torch.arange(8.0).view(1, 8, 1, 1), 8, True), (lambda x: x.select(1, 3).unsqueeze(1), 1, True),
        (F.relu, 8, False), (lambda x: x[:, :, ::2, 1:], 8, False), (lambda x: x.flip(2), 8, False),
        (lambda x: x * 2, 8, False),
        (lambda x: torch.cat([x, x], 1), 16, False), (lambda x: F.pad(x, (1, 1, 1, 1)), 8, False),
        (lambda x: x.permute(0, 2, 3, 1).permute(0, 3, 1, 2), 8, False), (lambda x: x * torch.rand(4, 4), 8, False),
    ],
)  # fmt: skip
def test_operations_that_pick_channels_by_number_are_known(
    between: Callable[[Tensor], Tensor], wide: int, picked: bool
) -> None:
    assert bool(following(Between(between, wide)).by_number) == picked


def test_input_and_output_are_frozen() -> None:
    run = following(Between(F.relu, 8))
    assert set(run.labels["a.weight", 1].tolist()) <= set(run.frozen) and set(run.labels["b.weight", 0].tolist()) <= set(
        run.frozen
    )
    assert not set(run.labels["a.weight", 0].tolist()) & set(run.frozen)
    assert run.sites == {"a.weight": 16, "b.weight": 16} and run.reads == {("a.weight", 1), ("b.weight", 1)}


def test_a_computed_weight_is_counted_and_frozen() -> None:
    class Computed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(4, 2, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(self.a(x), self.b.weight / self.b.weight.norm())

    run = following(Computed())
    assert set(run.labels["a.weight", 0].tolist()) <= set(run.frozen)


@in_turns(NETS, of=3, turn=1)
@given(data=st.data())
@settings(max_examples=2)
def test_a_channel_that_nobody_reads_may_hold_anything(name: str, data: st.DataObject) -> None:
    """Neither ``simulate`` nor ``cut`` is asked: readers are silenced by hand, then writers are filled with noise."""
    model, topology = traced(name)
    x = inputs(name)
    for group in topology.groups:
        if topology.moments:
            continue  # moments read every channel
        channel = data.draw(st.sampled_from([c for o in group.orbits() if len(o) > 1 for c in o]))
        silent, noisy = copy.deepcopy(model).double(), copy.deepcopy(model).double()
        generator = torch.Generator().manual_seed(channel)
        with torch.no_grad():
            for m in group.members:
                where = torch.tensor(m.positions[channel], dtype=torch.int64)
                if m.role is Role.WRITES and not is_channel_map(m.key, topology):
                    tensor = noisy.state_dict()[m.key]
                    shape = tensor.index_select(m.dim, where).shape
                    tensor.index_copy_(m.dim, where, torch.rand(shape, generator=generator, dtype=tensor.dtype) + 0.5)
            for m in group.members:
                where = torch.tensor(m.positions[channel], dtype=torch.int64)
                if m.role is Role.READS:
                    for network in (silent, noisy):
                        network.state_dict()[m.key].index_fill_(m.dim, where, 0.0)
            for a, b in zip(tree_flatten(silent(x))[0], tree_flatten(noisy(x))[0], strict=True):
                torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
