"""What the graph says decides how much is tried, never what a group is."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_pruning as tp
import torchvision
from support import structures
from support.comparing import assert_identical
from support.covering import in_turns
from support.nets import ALL, NETS, build, example, traced
from torch import nn

from compress.core import Cut, LayerName, Member, Plan, Topology
from compress.coupling import dependency_graph
from compress.coupling.agreement import Proposal, Proposed, compare
from compress.coupling.tracer import trace, trace_with_agreement
from compress.coupling.trial_cut import TrialNetworks, probe
from compress.surgery import cut, cuttable

assert set(structures.STRUCTURES) <= set(ALL)
BEFORE = json.loads((Path(__file__).parent / "topologies.json").read_text())
"""Topologies as they were traced before the graph was asked: digest, and what is frozen why."""


def told(topology: Topology) -> dict[str, object]:
    return {"digest": topology.digest, "frozen": {k: _masked(v) for k, v in topology.frozen.items()}}


def _masked(reason: str) -> str:
    return re.sub(r"error \S+", "error ...", reason)


@in_turns([name for name in ALL if name in BEFORE], of=4, turn=1)
def test_topologies_are_those_of_before(name: str) -> None:
    assert told(traced(name)[1]) == BEFORE[name]


@in_turns(ALL, of=6, turn=0)
def test_the_graph_changes_no_topology(name: str) -> None:
    assert trace_with_agreement(build(name), example(name), graph=False)[0] == traced(name)[1]


CLASSIFIERS = sorted(n for n in BEFORE if n.startswith("torchvision:"))


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_topologies_of_torchvisions_classifiers_are_those_of_before(name: str) -> None:
    plain = name.partition(":")[2]
    options = {"init_weights": False, "aux_logits": True} if plain in ("googlenet", "inception_v3") else {}
    model = cuttable(torchvision.models.get_model(plain, weights=None, **options).eval())
    size = 299 if plain == "inception_v3" else 64 if plain == "alexnet" else 32
    assert told(trace(model, torch.zeros(1, 3, size, size))) == BEFORE[name]


# ---- a graph that lies -----------------------------------------------------------------------------------------------

HONEST = dependency_graph.propose

Lie = Callable[[Proposal, tuple[str, int], Proposal], tuple[Proposal, ...]]
"""A proposal, one of its slots and another proposal -> what stands in their place."""


def _changed(change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]) -> Lie:
    return lambda p, slot, other: (replace(p, pairs={**p.pairs, slot: change(*p.pairs[slot])}), other)


def _renamed(name: Callable[[tuple[str, int], Proposal], tuple[str, int]]) -> Lie:
    def lie(p: Proposal, slot: tuple[str, int], other: Proposal) -> tuple[Proposal, ...]:
        pairs = {name(s, other) if s == slot else s: v for s, v in p.pairs.items()}
        return replace(p, pairs=pairs), other

    return lie


def _merged(p: Proposal, slot: tuple[str, int], other: Proposal) -> tuple[Proposal, ...]:
    most = len(p.pairs[p.root][0])
    return (replace(p, pairs={**p.pairs, **{s: (r % most, i) for s, (r, i) in other.pairs.items()}}),)


def _split(p: Proposal, slot: tuple[str, int], other: Proposal) -> tuple[Proposal, ...]:
    return replace(p, pairs={s: v for s, v in p.pairs.items() if s != slot}), other


LIES: dict[str, Lie] = {
    "shifted": _changed(lambda r, i: (r, i + 1)),
    "permuted": _changed(lambda r, i: (r, i[::-1].copy())),
    "dropped": _changed(lambda r, i: (r[1:], i[1:])),
    "duplicated": _changed(lambda r, i: (r, np.concatenate([i[:-1], i[:1]]))),
    "truncated": _changed(lambda r, i: (r[: len(r) // 2], i[: len(i) // 2])),
    "negative": _changed(lambda r, i: (r, i - len(i))),
    "roots shifted": _changed(lambda r, i: ((r + 1) % (r.max() + 1), i)),
    "offset after a concatenation": _changed(lambda r, i: (r, i + (i >= len(i) // 2))),
    "merged": _merged,
    "split": _split,
    "wrong dim": _renamed(lambda s, _: (s[0], 1 - s[1])),
    "wrong layer": _renamed(lambda s, other: other.root),
    "no such tensor": _renamed(lambda s, _: ("nowhere.weight", 0)),
}


@cache
def honest(name: str) -> tuple[tuple[Proposal, ...], dict[str, str]]:
    """What the graph says of a network, and how far it agrees."""
    model, topology = traced(name)
    groups = HONEST(copy.deepcopy(model), (example(name),), joins=0, layers=1).groups
    return groups, compare(topology, groups)


def lied(name: str, lie: str, seed: int) -> tuple[Proposed, str]:
    """A graph with one lie in it, and the group that it is about."""
    topology = traced(name)[1]
    groups, found = honest(name)
    rng = np.random.default_rng(seed)
    owner = {p.root: g for p in groups for g, _ in topology.slots.get(p.root, ()) if found[g] == ""}
    number = int(rng.choice([i for i, p in enumerate(groups) if p.root in owner]))
    victim = groups[number]
    other = next(p for p in groups if p.root != victim.root)
    slots = [s for s in victim.pairs if s != victim.root]
    if lie == "wrong dim":
        slots = [s for s in slots if len(topology.tensors[s[0]].shape) > 1]
    slot = slots[int(rng.integers(len(slots)))]
    rest = tuple(p for p in groups if p is not victim and p is not other)
    return Proposed((*rest, *LIES[lie](victim, slot, other))), owner[victim.root]


LIED_ABOUT = ("chain", "flatten", "residual", "concat", "dense", "depthwise", "se-gate", "transposed")
TOLD = [(name, lie, seed) for seed in range(3) for name in LIED_ABOUT for lie in LIES]
"""The 13 lies of a network are no multiple of five: every fifth case of a seed meets all lies and all networks."""


@pytest.mark.parametrize(
    ("name", "lie", "seed"),
    [t if i % 5 == 0 and t[2] == 0 else pytest.param(*t, marks=pytest.mark.slow) for i, t in enumerate(TOLD)],
)
def test_a_lie_of_the_graph_is_seen_and_changes_no_topology(
    name: str, lie: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    false, group = lied(name, lie, seed)
    monkeypatch.setattr(dependency_graph, "propose", lambda *_, **__: false)
    topology, agreement = trace_with_agreement(build(name), example(name))
    assert group in agreement.corrected and group not in agreement.confirmed
    assert topology == traced(name)[1] and agreement.trials == 2


@pytest.mark.parametrize("name", LIED_ABOUT)
def test_a_channel_at_another_s_index_is_told(name: str) -> None:
    """All that is right is proposed, and that one channel goes with the index of another one too."""
    groups, found = honest(name)
    for number, proposal in enumerate(groups):
        owner = next((g for g, _ in traced(name)[1].slots.get(proposal.root, ()) if found[g] == ""), None)
        for slot, (roots, indices) in proposal.pairs.items() if owner else ():
            more = replace(
                proposal, pairs={**proposal.pairs, slot: (np.append(roots, roots[0]), np.append(indices, indices[-1]))}
            )
            told = compare(traced(name)[1], [*groups[:number], more, *groups[number + 1 :]])
            assert told == {**found, owner: "it has other channels at its indices"}


def test_an_equal_proposal_in_another_order_is_equal() -> None:
    """The laws above would hold for a comparison that agrees to nothing."""
    topology = traced("flatten")[1]
    groups = dependency_graph.propose(build("flatten"), (example("flatten"),), joins=0, layers=1).groups
    turned = [replace(p, pairs={s: (r[::-1].copy(), i[::-1].copy()) for s, (r, i) in p.pairs.items()}) for p in groups]
    twice = [*turned, *groups]
    assert set(compare(topology, twice[::-1]).values()) == {""}


@pytest.mark.parametrize("name", ["chain", "flatten", "residual", "concat", "dense", "se-gate", "transposed"])
def test_where_both_witnesses_were_wrong_the_trial_cut_freezes(name: str) -> None:
    """Two indices of a reader change places in the topology itself, and the graph is made to confirm it."""
    model, topology = traced(name)
    victim = next(g for g in topology.groups if g.size > 3)
    reader = next(i for i, m in enumerate(victim.members) if m.role.value == "reads")
    member = victim.members[reader]
    turned = replace(member, positions=member.positions[1:] + member.positions[:1])
    members: tuple[Member, ...] = (*victim.members[:reader], turned, *victim.members[reader + 1 :])
    groups = tuple(replace(g, members=members) if g.id == victim.id else g for g in topology.groups)
    wrong = replace(topology, groups=groups)
    done = probe(TrialNetworks(copy.deepcopy(model)), wrong, (example(name),), confirmed=[g.id for g in groups])
    assert victim.id not in done.topology.by_id and "trial cut failed" in done.topology.frozen[LayerName(victim.id)]


# ---- the oracle ------------------------------------------------------------------------------------------------------


@in_turns(NETS, of=4, turn=1)
def test_a_confirmed_group_is_cut_as_torch_pruning_cuts_it(name: str) -> None:
    topology, agreement = trace_with_agreement(build(name), example(name))
    for group_id in agreement.confirmed:
        model, theirs = build(name).requires_grad_(True), build(name).requires_grad_(True)
        group, layer = topology.by_id[group_id], topology.by_layer[LayerName(group_id)]
        made = next(m.positions for m in group.members if (m.key, m.dim) == (layer.weight, layer.write_dim))
        gone = [c for c in range(group.size) if made[c] and c % 3 == 1]
        plan = Plan({group_id: Cut(tuple(c for c in range(group.size) if c not in gone))})
        graph = tp.DependencyGraph().build_dependency(theirs, example_inputs=_given(name), verbose=False)
        pruner = graph.get_pruner_of_module(theirs.get_submodule(layer.name))
        indices = sorted(i for c in gone for i in made[c])
        graph.get_pruning_group(theirs.get_submodule(layer.name), pruner.prune_out_channels, indices).prune()
        assert_identical(theirs, cut(model, topology, plan))


def _given(name: str) -> tuple[torch.Tensor, ...]:
    given = example(name)
    return given if isinstance(given, tuple) else (given,)


# ---- smaller images --------------------------------------------------------------------------------------------------


class ReadsItsSize(nn.Module):
    """Another way through the network for large images."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3, 4), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        if x.shape[-1] > 100:  # here the order of channels is written into the code
            y = torch.cat([y[:, 4:], y[:, :4]], 1)
        return self.c(self.b(y))  # type: ignore[no-any-return]


def test_what_smaller_images_do_not_run_is_tried_on_the_examples_own_size() -> None:
    large, small = (trace(ReadsItsSize(), torch.zeros(1, 3, n, n)) for n in (256, 96))
    assert "a" not in large.by_id and "trial cut failed" in large.frozen[LayerName("a")]
    assert "a" in small.by_id


@pytest.mark.slow
def test_smaller_images_tell_the_same_of_a_real_network() -> None:
    model = torchvision.models.resnet18(weights=None).eval()
    large, small = (trace_with_agreement(model, torch.zeros(1, 3, n, n)) for n in (224, 64))
    assert large[0].digest == small[0].digest and asdict(large[1]) == asdict(small[1])
    assert large[1].trials == 1


class TrainedOtherwise(nn.Module):
    """An auxiliary head, so that the run is a training one, and a dropout, which multiplies every channel there."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1), nn.Conv2d(8, 2, 1)
        self.drop = nn.Dropout2d()

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        x = self.drop(self.a(x))
        return (self.b(x), self.c(x)) if self.training else self.b(x)


def test_masks_that_only_training_draws_pick_no_channels() -> None:
    topology, agreement = trace_with_agreement(TrainedOtherwise(), torch.zeros(1, 3, 8, 8))
    assert "a" in topology.by_id and agreement.tried == {}
    assert agreement.corrected == {"a": "the graph leaves out c.weight"}
