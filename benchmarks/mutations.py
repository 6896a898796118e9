"""Are the guard and the laws awake? Breaks the index table on purpose and looks who notices.

Every mutation below is a plausible mistake in tracing, planning or cutting. It is put in place of the right function, the
small networks of the tests are cut with it, and two are asked: the guard, through which every real cut passes, and the laws of
the tests (counted is measured, two cuts are one, a duplicated filter folds without loss). Only cuts whose tensors the mistake
changes count. A mutation that changes none is a mistake in this file and counts as missed; one that neither sees on a
network is listed as silent there.

The guard cannot see a wrong fold, for the masked network folds by the same table: the laws must. It runs in eval mode, so it
does not see a head that only training runs.

    python benchmarks/mutations.py            # prints a table, writes benchmarks/results/mutations.json
"""

from __future__ import annotations

import copy
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._pytree import tree_flatten

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support import structures  # noqa: F401  (its networks are among ALL)
from support.nets import ALL, any_plan, example, inputs, traced
from torch.utils.flop_counter import FlopCounterMode

from compress.core import ChannelGroup, Cost, Cut, Member, Plan, Role, Topology, compose, count, restrict
from compress.core import plan as planning
from compress.errors import CompressError
from compress.surgery import cutting, verify

SEEDS = (0, 1)
Change = Callable[[Member], Member | None]


@dataclass(frozen=True)
class Mutation:
    """One mistake: either in the topology or in a function."""

    name: str
    topology: Callable[[Topology], Topology] | None = None
    patches: tuple[tuple[Any, str, Callable[..., Any]], ...] = ()
    small: Callable[[nn.Module], nn.Module] | None = None
    fold: bool = False
    select: bool = False


def members(change: Change, *, which: Callable[[Topology, ChannelGroup, Member], bool]) -> Callable[[Topology], Topology]:
    """The topology with the chosen members of every group changed; None drops a member."""

    def mutate(topology: Topology) -> Topology:
        groups = []
        for group in topology.groups:
            changed = [change(m) if which(topology, group, m) else m for m in group.members]
            groups.append(replace(group, members=tuple(m for m in changed if m is not None)))
        return replace(topology, groups=tuple(groups))

    return mutate


def first_reader(_: Topology, group: ChannelGroup, member: Member) -> bool:
    return member == next(m for m in group.members if m.role is Role.READS)


def last_reader(_: Topology, group: ChannelGroup, member: Member) -> bool:
    return member == [m for m in group.members if m.role is Role.READS][-1]


def statistic(_: Topology, __: ChannelGroup, member: Member) -> bool:
    return member.key.endswith(("running_mean", "running_var"))


def bias(topology: Topology, group: ChannelGroup, member: Member) -> bool:
    return member.key.endswith("bias")


def block(_: Topology, __: ChannelGroup, member: Member) -> bool:
    """Several indices a channel: after a flatten, or in a grouped convolution."""
    return member.role is Role.READS and max(map(len, member.positions)) > 1


def behind_another(topology: Topology, group: ChannelGroup, member: Member) -> bool:
    """A member that stands behind another group's in a concatenation."""
    return (
        member.role is Role.READS
        and len(topology.slots[member.key, member.dim]) > 1
        and min((min(p) for p in member.positions if p), default=0) > 0
    )


def rolled(m: Member) -> Member:
    return replace(m, positions=m.positions[1:] + m.positions[:1])


def reversed_(m: Member) -> Member:
    return replace(m, positions=m.positions[::-1])


def off_by_one(m: Member) -> Member:
    """One index late; the last wraps."""
    taken = sorted(i for p in m.positions for i in p)
    following = dict(zip(taken, taken[1:] + taken[:1], strict=True))
    return replace(m, positions=tuple(tuple(sorted(following[i] for i in p)) for p in m.positions))


def swapped(m: Member) -> Member:
    return replace(m, positions=(m.positions[1], m.positions[0], *m.positions[2:]))


def other_layout(m: Member) -> Member:
    """NHWC order where it is NCHW, and the other way round."""
    size, each = len(m.positions), len(m.positions[0])
    if any(len(p) != each for p in m.positions):
        return m
    flat = sorted(i for p in m.positions for i in p)
    contiguous = list(m.positions[0]) == flat[:each]
    table = [[flat[c + size * i] if contiguous else flat[c * each + i] for i in range(each)] for c in range(size)]
    return replace(m, positions=tuple(tuple(row) for row in table))


def without_offset(m: Member) -> Member:
    low = min(min(p) for p in m.positions if p)
    return replace(m, positions=tuple(tuple(i - low for i in p) for p in m.positions))


def half_of_them(m: Member) -> Member:
    return replace(m, positions=tuple(p[: max(1, len(p) // 2)] for p in m.positions))


def other_role(m: Member) -> Member:
    return replace(m, role=Role.WRITES if m.role is Role.READS else Role.READS)


def no_folds(topology: Topology, plan: Plan) -> dict[Any, Any]:
    return {}


_folds, _kept, _ordered, _fold = planning.folds, planning.kept_positions, planning._ordered, cutting._fold
_cut_map = cutting._cut_map


def folds_backwards(topology: Topology, plan: Plan) -> dict[Any, Any]:
    return {slot: [(b, a) for a, b in pairs] for slot, pairs in _folds(topology, plan).items()}


def fold_overwrites(tensor: Tensor, dim: int, pairs: list[tuple[int, int]]) -> Tensor:
    removed, heirs = (torch.tensor(x, dtype=torch.int64) for x in ([a for a, _ in pairs], [b for _, b in pairs]))
    return tensor.index_copy(dim, heirs, tensor.index_select(dim, removed))


def sorted_table(topology: Topology, plan: Plan) -> dict[Any, Any]:
    """Forgets the order in one kind of tensor: kernels."""
    return {slot: np.sort(v) if slot[1] == 1 else v for slot, v in _kept(topology, plan).items()}


def complement(topology: Topology, plan: Plan) -> dict[Any, Any]:
    """Removes what should stay, wherever half stays, in reading dimensions."""
    table = dict(_kept(topology, plan))
    for (key, dim), kept in table.items():
        size = topology.tensors[key].shape[dim]
        if dim == 1 and 2 * len(kept) == size:
            table[key, dim] = np.setdiff1d(np.arange(size), kept)
    return table


def inverse_order(member: Member, keep: Any) -> dict[int, int]:
    return {b: a for a, b in _ordered(member, keep).items()} if member.role is Role.READS else _ordered(member, keep)


def stale_reads(topology: Topology, plan: Plan, layer: Any) -> Tensor:
    """Selected inputs in the coordinates of before the cut."""
    kept = _kept(topology, plan)[layer.weight, layer.read_dim]
    arriving = _kept(topology, Plan(plan.cuts)).get((layer.weight, layer.read_dim))
    width = topology.tensors[layer.weight].shape[layer.read_dim] if arriving is None else len(arriving)
    return torch.from_numpy(np.minimum(kept, width - 1))


def map_in_old_coordinates(sources: Tensor, kept_out: Any, kept_in: Any) -> Tensor:
    left = sources if kept_out is None else sources[torch.from_numpy(kept_out)]
    width = len(sources) if kept_in is None else len(kept_in)
    return left.clamp(max=width - 1)


def map_in_another_order(sources: Tensor, kept_out: Any, kept_in: Any) -> Tensor:
    return _cut_map(sources, kept_out, kept_in).flip(0)


def stale_norms(small: nn.Module) -> nn.Module:
    wrong = copy.deepcopy(small)
    for norm in wrong.modules():
        if isinstance(norm, _NormBase) and norm.running_mean is not None:
            norm.running_mean.copy_(norm.running_mean.roll(1))
    return wrong


def wrong_attribute(small: nn.Module) -> nn.Module:
    wrong = copy.deepcopy(small)
    conv = next(m for m in wrong.modules() if isinstance(m, nn.modules.conv._ConvNd))
    conv.out_channels += 1
    return wrong


def everywhere(name: str, function: Callable[..., Any]) -> tuple[tuple[Any, str, Callable[..., Any]], ...]:
    """A function replaced in every module of the package that has it."""
    holders = [m for n, m in sorted(sys.modules.items()) if n.startswith("compress.") and hasattr(m, name)]
    return tuple((m, name, function) for m in holders)


MUTATIONS = (
    Mutation("a reader's channels one place off", members(rolled, which=first_reader)),
    Mutation("a reader's indices one late", members(off_by_one, which=last_reader)),
    Mutation("two channels of a reader swapped", members(swapped, which=first_reader)),
    Mutation("a reader's channels reversed", members(reversed_, which=last_reader)),
    Mutation("a reader missing", members(lambda m: None, which=last_reader)),
    Mutation("batch-norm statistics one place off", members(rolled, which=statistic)),
    Mutation("batch-norm statistics missing", members(lambda m: None, which=statistic)),
    Mutation("biases swapped", members(swapped, which=bias)),
    Mutation("biases missing", members(lambda m: None, which=bias)),
    Mutation("flatten in the other layout", members(other_layout, which=block)),
    Mutation("half of a channel's pixels forgotten", members(half_of_them, which=block)),
    Mutation("concatenation without its offset", members(without_offset, which=behind_another)),
    Mutation("a reader taken for a writer", members(other_role, which=first_reader), fold=True),
    Mutation("folds dropped when cutting", patches=((cutting, "folds", no_folds),), fold=True),
    Mutation("folds the wrong way round", patches=everywhere("folds", folds_backwards), fold=True),
    Mutation("a fold that overwrites", patches=((cutting, "_fold", fold_overwrites),), fold=True),
    Mutation("order forgotten in kernels", patches=((cutting, "kept_positions", sorted_table),)),
    Mutation("reordered the other way round", patches=((planning, "_ordered", inverse_order),)),
    Mutation("the removed kept", patches=((cutting, "kept_positions", complement),)),
    Mutation("selected inputs in old coordinates", patches=((cutting, "_reads", stale_reads),), select=True),
    Mutation("a channel map in old coordinates", patches=((cutting, "_cut_map", map_in_old_coordinates),)),
    Mutation("a channel map in another order", patches=((cutting, "_cut_map", map_in_another_order),)),
    Mutation("stale statistics after the cut", small=stale_norms),
    Mutation("an attribute that lies", small=wrong_attribute),
)


@contextmanager
def mutated(mutation: Mutation) -> Iterator[None]:
    patchers = [patch.object(*p) for p in mutation.patches]
    for p in patchers:
        p.start()
    try:
        yield
    finally:
        for p in patchers:
            p.stop()


def guard_is_red(name: str, topology: Topology, plan: Plan, mutation: Mutation) -> bool:
    """What happens in a real run: the table is checked, the network cut, and the guard asked."""
    model = traced(name)[0]
    try:
        planning.check(topology, plan)
        small = cutting.cut(model, topology, plan)
        if mutation.small is not None:
            small = mutation.small(small)
        verify(model, topology, plan, small, inputs(name))
    except (CompressError, RuntimeError, ValueError, IndexError, KeyError):
        return True
    return False


def several(given: Any) -> tuple[Tensor, ...]:
    return given if isinstance(given, tuple) else (given,)


def outputs(model: nn.Module, name: str) -> list[Tensor]:
    with torch.no_grad():
        return [
            t for t in tree_flatten(copy.deepcopy(model).double().eval()(*several(inputs(name))))[0] if isinstance(t, Tensor)
        ]


def duplicate_is_lossy(name: str, topology: Topology) -> bool:
    """The law of folding: a channel that is a copy of another goes without loss."""
    model, right = traced(name)
    if right.moments:  # a duplicate counts in the moments: compare the folded columns with their sum
        return any(not columns_are_summed(model, topology, right, group) for group in right.groups)
    for group in right.groups:
        orbit = next((o for o in group.orbits() if len(o) > 1), None)
        if orbit is None:
            continue
        twin = copy.deepcopy(model).double()
        state = twin.state_dict()
        with torch.no_grad():
            for m in group.members:
                if m.role is Role.WRITES and not cutting.is_channel_map(m.key, right):
                    a, b = (torch.tensor(m.positions[c], dtype=torch.int64) for c in orbit[:2])
                    state[m.key].index_copy_(m.dim, b, state[m.key].index_select(m.dim, a))
        keep = tuple(c for c in range(group.size) if c != orbit[1])
        folded = cutting.cut(twin, topology, Plan({group.id: Cut(keep, {orbit[1]: orbit[0]})}))
        if any(
            not torch.allclose(x, y, rtol=1e-9, atol=1e-11)
            for x, y in zip(outputs(twin, name), outputs(folded, name), strict=True)
        ):
            return True
    return False


def columns_are_summed(model: nn.Module, topology: Topology, right: Topology, group: ChannelGroup) -> bool:
    heir, gone = next((o for o in group.orbits() if len(o) > 1), (0, 0))[:2]
    if heir == gone:
        return True
    keep = tuple(c for c in range(group.size) if c != gone)
    state = model.state_dict()
    got = cutting.cut_state(state, topology, Plan({group.id: Cut(keep, {gone: heir})}))
    for m in group.members:
        if m.role is Role.READS:
            a, b = (torch.tensor(m.positions[c], dtype=torch.int64) for c in (heir, gone))
            left = [i for i in range(state[m.key].shape[m.dim]) if i not in set(m.positions[gone])]
            places = torch.tensor([left.index(i) for i in m.positions[heir]], dtype=torch.int64)
            expected = state[m.key].index_select(m.dim, a) + state[m.key].index_select(m.dim, b)
            if not torch.allclose(got[m.key].index_select(m.dim, places), expected):
                return False
    return True


def law_is_red(name: str, topology: Topology, plan: Plan) -> bool:
    """Counted is measured; two cuts are one; a duplicate folds without loss."""
    model = traced(name)[0]
    try:
        small = cutting.cut(model, topology, plan)
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), counter:
            small.eval()(*several(example(name)))
        if Cost(counter.get_total_flops() // 2, sum(p.numel() for p in small.parameters())) != count(topology, plan):
            return True
        smaller = restrict(topology, plan)
        more = any_plan(smaller, 1, 0.3, reorder=True)
        once = cutting.cut(model, topology, compose(topology, plan, more)).state_dict()
        twice = cutting.cut(small, smaller, more).state_dict()
        if any(
            k not in twice or once[k].shape != twice[k].shape or not torch.allclose(once[k], twice[k], atol=1e-5) for k in once
        ):
            return True
        return duplicate_is_lossy(name, topology)
    except (CompressError, RuntimeError, ValueError, IndexError, KeyError):
        return True


def touches(right: Mapping[str, Tensor], wrong: Mapping[str, Tensor]) -> bool:
    """Whether the mistake changes the cut tensors at all."""
    return right.keys() != wrong.keys() or any(
        right[k].shape != wrong[k].shape or not torch.equal(right[k], wrong[k]) for k in right
    )


def run(mutation: Mutation) -> dict[str, Any]:
    changed, guard, law, silent = 0, 0, 0, []
    for name in ALL:
        model, right = traced(name)
        for seed in SEEDS:
            plan = any_plan(right, seed, 0.4, reorder=True, fold=mutation.fold, select=mutation.select)
            expected = cutting.cut(model, right, plan).state_dict()
            with mutated(mutation):
                wrong = mutation.topology(right) if mutation.topology else right
                try:
                    got = cutting.cut(model, wrong, plan)
                    got = mutation.small(got) if mutation.small else got
                    state = got.state_dict()
                    matters = touches(expected, state) or mutation.small is wrong_attribute
                except (CompressError, RuntimeError, ValueError, IndexError, KeyError):
                    matters = True
                if not matters:
                    continue
                changed += 1
                by_guard = guard_is_red(name, wrong, plan, mutation)
                by_law = law_is_red(name, wrong, plan)
            guard += by_guard
            law += by_law
            if not (by_guard or by_law):
                silent.append(f"{name}:{seed}")
    return {"mutation": mutation.name, "changed": changed, "guard": guard, "laws": law, "silent": silent}


def main() -> int:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    print(f"{'mutation':42s} {'cuts changed':>12s} {'guard red':>10s} {'law red':>8s}  silent")
    for mutation in MUTATIONS:
        row = run(mutation)
        rows.append(row)
        print(
            f"{row['mutation']:42s} {row['changed']:12d} {row['guard']:10d} {row['laws']:8d}  {', '.join(row['silent'])}",
            flush=True,
        )
    missed = [r["mutation"] for r in rows if not r["changed"] or not (r["guard"] or r["laws"])]
    result = {"networks": len(ALL), "plans": len(SEEDS), "mutations": rows, "missed": missed}
    target = ROOT / "benchmarks" / "results" / "mutations.json"
    target.parent.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=target.parent, delete=False) as file:
        json.dump(result, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(target)
    target.chmod(0o644)
    print(f"{len(rows) - len(missed)} of {len(rows)} mistakes are seen" + (f"; missed: {missed}" if missed else ""))
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
