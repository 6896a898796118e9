"""Networks with tricky structure, cut at random and compared with an independent mask, evaluation and training, two sizes.

For every network of ``benchmarks/strange``: trace, random plans that halve every width or so, a real cut, and a comparison in
float64 with the uncut network whose readers see zeros where channels went. The mask is written here, with hooks, from the
plan alone: neither ``simulate`` nor the guard has a part in it. A network is *exact* if every plan agrees everywhere,
*frozen* if nothing of it may be cut, *refused* if the library says why; anything else is *wrong* or an *internal error*.

    python benchmarks/strange_networks.py             # all, results/strange_networks.json and a table
    python benchmarks/strange_networks.py c2f detector
    python benchmarks/strange_networks.py --half detector-c2f  # half of its MACs by the largest equal widths, every width shown

Needs no data. Exit status 1 where a network is wrong or ends in an internal error.
"""

from __future__ import annotations

import copy
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from strange import classifiers, detectors, others
from strange.blocks import HandNorm2d, OverChannels
from strange.parts import Case, randomised
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from compress.core import Cut, Plan, Role, Topology, widths, write_json
from compress.coupling import trace
from compress.errors import CompressError
from compress.evaluation import gather, importance
from compress.search import METHODS, ChannelStatistics, CostModel, Space, Target, make_stages
from compress.surgery import cut

CASES: tuple[Case, ...] = (*detectors.CASES, *classifiers.CASES, *others.CASES)
RESULTS = Path(__file__).parent / "results" / "strange_networks.json"
TOLERANCE = 1e-6
PLANS = 3
LOST = 0.3


@dataclass
class Outcome:
    """What became of one network.

    Attributes:
        name: its name.
        structure: what is strange about it.
        state: exact, frozen, refused, wrong, internal error.
        error: largest difference over the largest value of the same output channel, over all plans, modes and sizes.
        lost: share of its MACs that the plan at half of all widths removes, by torch's own counter.
        why: of what is not exact; of frozen layers, layer -> reason.
    """

    name: str
    structure: str
    state: str = "exact"
    error: float = 0.0
    lost: float = 0.0
    why: str = ""
    stays: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


class Called(nn.Module):
    """A network that takes a tree of inputs, called with its tensors one after another."""

    def __init__(self, net: nn.Module, named: Callable[[tuple[Tensor, ...]], Any]) -> None:
        super().__init__()
        self.net, self.named = net, named

    def forward(self, *tensors: Tensor) -> Any:
        args, kwargs = self.named(tensors)
        return self.net(*args, **kwargs)


def examine(case: Case) -> Outcome:
    found = Outcome(case.name, case.structure)
    start = time.process_time()
    try:
        _examine(case, found)
    except CompressError as error:
        found.state, found.why = ("refused" if not found.stays and found.lost == 0 else "wrong"), error.message
    except Exception as error:
        found.state, found.why = "internal error", f"{type(error).__name__}: {error}"
    found.seconds = round(time.process_time() - start, 2)
    return found


def _examine(case: Case, found: Outcome) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = randomised(case.make())
    if case.named is not None:
        model = Called(model, case.named)
    model = model.double().eval()
    examples = [torch.zeros(s, dtype=torch.float64) for s in case.shapes]
    topology = trace(model, examples)
    makers = {layer.name for g in topology.groups for layer in topology.writers(g.id)}
    found.stays = {str(n): why for n, why in topology.frozen.items() if n not in makers and "network's output" not in why}
    if not topology.groups:
        found.state, found.why = "frozen", "; ".join(sorted(set(topology.frozen.values())))
        return
    whole = macs(model, examples)
    for seed in range(PLANS):
        plan = halved(topology, np.random.default_rng(seed), exact=seed == 0)
        small = cut(model, topology, plan)
        if seed == 0:
            found.lost = round(1 - macs(small, examples) / whole, 3)
        for shapes in (case.shapes, case.other):
            for training in (False, True) if case.training else (False,):
                if shapes:
                    error = difference(model, small, topology, plan, shapes, training, seed)
                    found.error = max(found.error, error)
    if not found.error <= TOLERANCE:
        found.state, found.why = "wrong", f"differs by {found.error:.1e}"


def halved(topology: Topology, rng: np.random.Generator, *, exact: bool) -> Plan:
    """Half of every width, or a random share of it; which channels go is random."""
    cuts = {}
    for group in topology.groups:
        orbits, keep = group.orbits(), []
        for shared in group.widths():
            size = len(orbits[shared[0]])
            count = max(1, size // 2) if exact else int(rng.integers(1, size + 1))
            for number in shared:
                keep += rng.permutation(orbits[number])[:count].tolist()
        if len(keep) < group.size:
            cuts[group.id] = Cut(tuple(sorted(keep)))
    return Plan(cuts)


def macs(model: nn.Module, examples: Sequence[Tensor]) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        copy.deepcopy(model)(*examples)
    return counter.get_total_flops() // 2


def difference(
    model: nn.Module, small: nn.Module, topology: Topology, plan: Plan, shapes: Any, training: bool, seed: int
) -> float:
    """Largest difference between the masked and the cut network, channel by channel of every output."""
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randn((4, *s[1:]), generator=generator, dtype=torch.float64) for s in shapes]
    whole, small = copy.deepcopy(model).train(training), copy.deepcopy(small).train(training)
    with torch.no_grad(), masked(whole, topology, plan):
        wanted = [t for t in tree_leaves(whole(*inputs)) if isinstance(t, Tensor)]
    with torch.no_grad():
        got = [t for t in tree_leaves(small(*inputs)) if isinstance(t, Tensor)]
    if [t.shape for t in wanted] != [t.shape for t in got]:
        return float("inf")
    worst = 0.0
    for a, b in zip(wanted, got, strict=True):
        rows_a, rows_b = ((t.movedim(1, 0).flatten(1) if t.dim() > 1 else t[None]) for t in (a, b))
        scale = rows_a.abs().amax(1).clamp(min=1e-9 * float(rows_a.abs().max()) + 1e-300)
        error = ((rows_a - rows_b).abs().amax(1) / scale).max()
        worst = max(worst, float(error) if bool(torch.isfinite(error)) else float("inf"))
    return worst


def halve_by_search(case: Case) -> int:
    """Uniform widths at half of the MACs, by the l1 norms of random weights; widths, and the comparison with the mask."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = randomised(case.make()).double().eval()
    examples = [torch.zeros(s, dtype=torch.float64) for s in case.shapes]
    topology = trace(model, examples)
    found = importance(gather(model, []), topology, [g.id for g in topology.groups])
    stages = make_stages(topology, [g.id for g in topology.groups])
    cost = CostModel(topology, Target("macs", 0.5))
    space = Space(cost=cost, stages=stages, statistics=ChannelStatistics(importance=found), budget=1, round_to=1)
    plan = METHODS["uniform"].make().plan(space, 0.5)  # type: ignore[attr-defined]
    small = cut(model, topology, plan)
    for shapes in (case.shapes, case.other):
        for training in (False, True):
            error = difference(model, small, topology, plan, shapes, training, 0)
            print(f"{'training' if training else 'evaluation'} at {shapes[0][2:]}: differs by {error:.1e}")
    print(f"MACs {macs(model, examples):,} -> {macs(small, examples):,} ({macs(small, examples) / macs(model, examples):.1%})")
    for name, (before, after) in widths(topology, plan).items():
        print(f"{name:20} {before:4} -> {after}")
    return 0


# ---- the mask ---------------------------------------------------------------------------------------------------------


def removed(topology: Topology, plan: Plan) -> dict[tuple[str, int], set[int]]:
    """(state_dict key, dimension) -> indices that the plan takes away."""
    gone: dict[tuple[str, int], set[int]] = {}
    for group in topology.groups:
        if group.id in plan.cuts:
            lost = set(range(group.size)) - set(plan.cuts[group.id].keep)
            for member in group.members:
                gone.setdefault((member.key, member.dim), set()).update(i for c in lost for i in member.positions[c])
    return gone


@contextmanager
def masked(model: nn.Module, topology: Topology, plan: Plan) -> Iterator[None]:
    """Readers see zeros where channels went; norms over channels take their moments over those that stay."""
    gone, modules, hooks = removed(topology, plan), dict(model.named_modules()), []
    reading = {(m.key, m.dim) for g in topology.groups for m in g.members if m.role is Role.READS}
    for layer in topology.layers:
        slot = (layer.weight, layer.read_dim)
        lost = gone.get(slot, set()) if slot in reading else set()
        if not lost:
            continue
        module = modules.get(layer.name)
        if module is None or layer.name == layer.weight:
            parameter = dict(model.named_parameters())[layer.weight]
            parameter.index_fill_(layer.read_dim, torch.tensor(sorted(lost)), 0.0)
            continue
        hooks.append(module.register_forward_pre_hook(_silencer(module, lost)))
    for name, module in modules.items():
        lost = gone.get((f"{name}.weight", 0), set())
        if lost and isinstance(module, nn.LayerNorm | nn.GroupNorm):
            hooks.append(module.register_forward_hook(_norm_of_the_rest(module, lost)))
        elif lost and isinstance(module, HandNorm2d):
            hooks.append(module.register_forward_hook(_hand_norm_of_the_rest(module, lost)))
        elif isinstance(module, OverChannels):
            lost = gone.get((f"{name.rpartition('.')[0]}.{module.channels_as}".removeprefix("."), 0), set())
            hooks.append(module.register_forward_hook(_computed_over_the_rest(module, lost)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _silencer(module: nn.Module, lost: set[int]) -> Any:
    linear = isinstance(module, nn.Linear)
    width = module.in_features if linear else module.in_channels  # type: ignore[union-attr]
    keep = torch.ones(width, dtype=torch.float64)
    groups = getattr(module, "groups", 1)
    whole = groups == 1 or isinstance(module, nn.modules.conv._ConvTransposeNd)
    each = width if whole else width // groups
    for start in range(0, width, each):
        keep[[start + i for i in lost]] = 0

    def hook(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = args[0]
        shape = (1,) * (x.dim() - 1) + (-1,) if linear else (1, -1) + (1,) * (x.dim() - 2)
        return (x * keep.view(shape), *args[1:])

    return hook


def _norm_of_the_rest(module: Any, lost: set[int]) -> Any:
    stay = torch.tensor([i for i in range(module.weight.numel()) if i not in lost])
    weight, bias = module.weight[stay], module.bias[stay]

    def hook(_: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        x, result = args[0], torch.zeros_like(out)
        if isinstance(module, nn.GroupNorm):
            result[:, stay] = F.group_norm(x[:, stay], module.num_groups, weight, bias, module.eps)
        elif out.shape[-1] == module.weight.numel() and x.shape[-1] == module.weight.numel() and type(module) is nn.LayerNorm:
            result[..., stay] = F.layer_norm(x[..., stay], (len(stay),), weight, bias, module.eps)
        else:  # a module that permutes: its channels are the second dimension
            last = F.layer_norm(x[:, stay].movedim(1, -1), (len(stay),), weight, bias, module.eps)
            result[:, stay] = last.movedim(-1, 1)
        return result

    return hook


def _hand_norm_of_the_rest(module: HandNorm2d, lost: set[int]) -> Any:
    """The module's own code, with the parameters of the rest, on the rest."""
    stay = torch.tensor([i for i in range(module.weight.numel()) if i not in lost])
    narrow = HandNorm2d(len(stay)).double()
    narrow.load_state_dict({key: tensor[stay] for key, tensor in module.state_dict().items()})

    def hook(_: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        return torch.zeros_like(out).index_copy(1, stay, narrow(args[0][:, stay]))

    return hook


def _computed_over_the_rest(module: OverChannels, lost: set[int]) -> Any:
    def hook(_: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        stay = torch.tensor([i for i in range(args[0].shape[module.dim]) if i not in lost])
        return module.what(args[0].index_select(module.dim, stay))

    return hook


# ---- the whole --------------------------------------------------------------------------------------------------------


def summary(rows: Sequence[Outcome]) -> list[str]:
    """The table: one line a structure."""
    lines = ["| structure | networks | exact | least MACs lost | stays, and why |", "|---|---|---|---|---|"]
    for structure in dict.fromkeys(r.structure for r in rows):
        mine = [r for r in rows if r.structure == structure]
        states = ", ".join(f"{n} {s}" for s, n in Counter(r.state for r in mine).items())
        why = "; ".join(dict.fromkeys(w for r in mine for w in (r.stays.values() if r.state == "exact" else [r.why]) if w))
        lines.append(f"| {structure} | {len(mine)} | {states} | {100 * min(r.lost for r in mine):.0f} % | {why[:160]} |")
    return lines


def main(names: Sequence[str]) -> int:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if names[:1] == ["--half"]:
        return halve_by_search(next(c for c in CASES if c.name == names[1]))
    chosen = [c for c in CASES if not names or any(n in c.name for n in names)]
    rows = []
    for case in chosen:
        rows.append(examine(case))
        r = rows[-1]
        print(
            f"{r.name:24} {r.state:14} {r.error:8.1e} lost {100 * r.lost:5.1f} %  {r.seconds:6.2f} s  {r.why[:100]}", flush=True
        )
    counts = Counter(r.state for r in rows)
    much = sum(r.lost >= LOST for r in rows if r.state == "exact")
    structures = len({r.structure for r in rows})
    told = (
        f"{len(rows)} networks of {structures} structures: {dict(counts)}; {much} lose {100 * LOST:.0f} % of their MACs or more"
    )
    print("\n".join(summary(rows)))
    print(told)
    if not names:
        write_json(RESULTS, {"summary": told, "plans": PLANS, "tolerance": TOLERANCE, "networks": [asdict(r) for r in rows]})
    return 1 if counts["wrong"] + counts["internal error"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
