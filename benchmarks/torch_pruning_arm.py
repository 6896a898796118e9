"""Torch-Pruning's own pruner as an arm of ``compress compare-methods``, run as its users run it, and in its favour.

    compress compare-methods MODEL --data D --methods obs,tp-group-norm \\
        --arm tp-group-norm=benchmarks.torch_pruning_arm:group_norm
    python benchmarks/torch_pruning_arm.py MODEL DATA     # which criterion is best without training

One ratio for all layers (the pruner's own default), found by bisection so that the MACs that are left are within 1 % of
the wanted share; where a step of that ratio moves too much at once, the last layers stay on the step before. Where a
network adds zero-padded shortcuts (option A), the pruner couples their channels with wrong offsets and is silently wrong;
there every layer that writes such a stream (the stem, every block's last convolution) is ignored, as a careful user would.
Layers that make the network's output are ignored too. No alignment of widths: it would cost this pruner accuracy at equal
MACs.
"""

from __future__ import annotations

import argparse
import copy
import json
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torch_pruning as tp
from compress_models import MODELS
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from compress.core import derive
from compress.coupling import trace
from compress.data import open_data
from compress.errors import ModelError
from compress.evaluation import accuracy
from compress.networks import in_batches, load, network_from
from compress.recovery import reestimate
from compress.search import is_stream

STEPS = 18
"""Bisections: finer than one channel of 2,048."""
NEAR = 0.01


def macs(model: nn.Module, example: Tensor) -> int:
    """Multiply-accumulates of convolutions and linear layers."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(example)
    return int(counter.get_total_flops() // 2)


def ignored(model: nn.Module, example: Tensor) -> list[str]:
    """Layers to leave alone: those whose channels are the output, and all writers of a zero-padded stream."""
    topology = trace(model, example)
    grouped = {x.name for g in topology.groups for x in topology.writers(g.id)}
    outputs = {topology.layers[-1].name} - grouped
    padded = {
        x.name
        for g in topology.groups
        if is_stream(topology, g.id) and any(not places for m in g.members for places in m.positions)
        for x in topology.writers(g.id)
    }
    return sorted(outputs | padded)


def _pruned(
    model: nn.Module,
    batches: Sequence[Tensor],
    ratio: float,
    gentler: dict[str, float],
    make: Callable[[], Any],
    pruner: Any,
    names: Sequence[str],
    **how: Any,
) -> nn.Module:
    """A copy at this ratio; at another in the layers named in ``gentler``."""
    small = copy.deepcopy(model).eval()
    example = batches[0][:1]
    modules = dict(small.named_modules())
    left, own = [modules[n] for n in names], {modules[n]: r for n, r in gentler.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = pruner(
            small, (example,), importance=make(), pruning_ratio=ratio, pruning_ratio_dict=own, ignored_layers=left, **how
        )
        if isinstance(made.importance, tp.importance.GroupTaylorImportance):
            _gradients(small, batches)
        made.step()
    for parameter in small.parameters():
        parameter.grad = None
    return small.eval().requires_grad_(True)


def _gradients(model: nn.Module, batches: Sequence[Tensor], most: int = 4) -> None:
    """Of the cross-entropy against the network's own answers: the same evidence that our ``taylor`` has, without labels."""
    for images in batches[:most]:
        logits = model(images)
        F.cross_entropy(logits, logits.detach().argmax(dim=1)).backward()


def arm(
    model: nn.Module,
    batches: Sequence[Tensor],
    share: float,
    seed: int,
    *,
    importance: Callable[[], Any],
    pruner: Any = tp.pruner.BasePruner,
    left: Sequence[str] | None = None,
    **how: Any,
) -> nn.Module:
    """The network pruned to a share of its MACs.

    Args:
        model: unpruned.
        batches: calibration images, for Taylor's gradients.
        share: of the MACs that is kept.
        seed: for random importance.
        importance: makes Torch-Pruning's criterion.
        pruner: its pruner.
        left: layers to leave alone, where they are known; else :func:`ignored`.
        how: further options of the pruner.
    """
    example = batches[0][:1]
    names, whole = ignored(model, example) if left is None else left, macs(model, example)
    layers = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and n not in names]

    def at(ratio: float, gentler: dict[str, float]) -> tuple[nn.Module, float]:
        torch.manual_seed(derive(seed, "torch-pruning"))
        small = _pruned(model, batches, ratio, gentler, importance, pruner, names, **how)
        return small, macs(small, example) / whole

    with torch.random.fork_rng():
        gentle, harsh = 0.0, 1.0
        best: nn.Module | None = None
        for _ in range(STEPS):
            middle = (gentle + harsh) / 2
            small, kept = at(middle, {})
            if kept > share:
                gentle = middle
                continue
            harsh, best = middle, small
            if kept >= share * (1 - NEAR):
                return small
        if best is None:
            raise ModelError(f"Torch-Pruning cannot reach {share:g} of the MACs with {', '.join(names)} left alone")
        # A stair of the ratio moves every layer at once: some layers stay on the step before, as many as fit.
        most = 0.0
        for order in (layers, layers[::-1]):
            few, many = 0, len(layers)
            while many - few > 1:
                count = (few + many) // 2
                small, kept = at(harsh, dict.fromkeys(order[-count:], gentle))
                few, many = (count, many) if kept <= share else (few, count)
                if most < kept <= share:
                    most, best = kept, small
            if most >= share * (1 - NEAR):
                break
        return best


_imp = tp.importance
group_norm = partial(arm, importance=partial(_imp.GroupMagnitudeImportance, p=2), pruner=tp.pruner.GroupNormPruner)
l1 = partial(arm, importance=partial(_imp.GroupMagnitudeImportance, p=1))
l2 = partial(arm, importance=partial(_imp.GroupMagnitudeImportance, p=2))
taylor = partial(arm, importance=_imp.GroupTaylorImportance)
fpgm = partial(arm, importance=_imp.FPGMImportance)
bn_scale = partial(arm, importance=_imp.BNScaleImportance)
lamp = partial(arm, importance=_imp.LAMPImportance)
random = partial(arm, importance=_imp.RandomImportance)
global_group_norm = partial(group_norm, global_pruning=True)
global_l2 = partial(l2, global_pruning=True)
global_taylor = partial(taylor, global_pruning=True)

ARMS: dict[str, Callable[..., nn.Module]] = {
    "tp-group-norm": group_norm,
    "tp-l1": l1,
    "tp-l2": l2,
    "tp-taylor": taylor,
    "tp-fpgm": fpgm,
    "tp-bn-scale": bn_scale,
    "tp-lamp": lamp,
    "tp-random": random,
    "tp-global-group-norm": global_group_norm,
    "tp-global-l2": global_l2,
    "tp-global-taylor": global_taylor,
}
"""All of them by the names that ``compare-methods`` uses."""


def main() -> None:
    """Which of the criteria is best without training: every arm at one share, accuracy after batch-norm re-estimation."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--macs", type=float, default=0.5)
    parser.add_argument("--images", type=int, default=2000, help="validation images")
    parser.add_argument("--name", default="torch-pruning-criteria")
    given = parser.parse_args()
    network = network_from(load(given.model, zoo=MODELS))
    data = open_data(given.data, preprocessing=network.preprocessing)
    batches = in_batches(data.calibration.images(512))
    base = accuracy(network.model, data.validation, limit=given.images)
    whole, rows = macs(network.model, batches[0][:1]), {}
    for name, prune in ARMS.items():
        small = prune(network.model, batches, given.macs, 0)
        cut, settled = (accuracy(m, data.validation, limit=given.images).top1 for m in (small, reestimate(small, batches)))
        rows[name] = {"macs": macs(small, batches[0][:1]) / whole, "cut": cut, "batch norm": settled}
        print(f"{name:22} {100 * rows[name]['macs']:.2f} % of the MACs: {100 * cut:.2f} -> {100 * settled:.2f} %", flush=True)
    out = Path(__file__).parent / "results" / f"{given.name}.json"
    found = {"network": network.digest, "data": data.digests, "base": base.top1, "validation_images": base.total, "arms": rows}
    out.write_text(json.dumps({**found, "macs": given.macs, "calibration_images": 512, "seed": 0}, indent=1) + "\n")


if __name__ == "__main__":
    main()
