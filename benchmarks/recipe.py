"""What each part of a fine-tuning recipe is worth: one part is changed, everything else stays.

    python benchmarks/recipe.py MODEL DATA --work DIR [--only ARM ...] [--seeds 0 1] [--images 6400] [--minutes M]

MODEL is a checkpoint of a CIFAR-10 ResNet, which is first trained for one pass over twice the ``--images`` of DATA, so that
it knows these images (``--known``: it does already). It is then pruned to a half and to a quarter of its MACs by equal shares
(l1, streams whole), its readers are solved by least squares, and the result is trained for one pass over ``--images`` training
images (``all`` of them), in a loop of this file's own: an arm that helps becomes part of ``compress.recovery``, one that does
not stays here. Training is on a GPU where there is one, everything before it on the CPU.

Judged are validation images, never the test split. Every run is kept in ``--results``; the same command goes on, and with
``--minutes`` begins none after that time. Several commands may run at a time, each with some arms or seeds and its own
``--results``; ``--merge FILE ...`` puts them together. Differences are paired by image against the arm ``as it is``, those of
arms at another learning rate against that rate alone.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from compress_models import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compress.core import derive, difference
from compress.coupling import trace
from compress.data import Data, open_data, preset_for
from compress.evaluation import gather, importance, logits
from compress.networks import in_batches, load, save, state_digest
from compress.recovery import reconstruct, reestimate
from compress.search import ChannelStatistics, CostModel, Space, Target, Uniform, make_stages, prunable
from compress.surgery import cut

try:
    from kept import Part, Results, bits, text_of
except ImportError:  # as a module of the repository
    from benchmarks.kept import Part, Results, bits, text_of

RESULT = Path(__file__).parent / "results" / "recipe.json"
BATCH, MOMENTUM, DECAY, TEMPERATURE, DISTILL = 128, 0.9, 5e-4, 4.0, 0.9
FULL_EPOCHS, FULL_LR = 160, 0.1
"""Of the training that a budget is a share of, and its highest learning rate."""


@dataclass(frozen=True)
class Recipe:
    """One arm.

    Attributes:
        lr: the highest learning rate; None goes by budget: the full training's, times what the start has lost of the
            unpruned network's accuracy or the share of the full training that is affordable, whichever is more.
        linear: down to zero on a line, not half a cosine.
        warmup: share of the training.
        features: share of the training, from its start, that imitates what the classifier reads instead.
        average: of weights, per step; 0 takes the last ones.
        settled: batch norms re-estimated at the end.
        pinned: share of the training, from its start, in which batch norms normalise by their statistics, not by the batch's.
        distill: weight of the unpruned network's outputs.
        solved: starts from the least squares; else from re-estimated batch norms.
        around: every convolution stands between two of 1 x 1, which are merged into it afterwards.
    """

    lr: float | None = 0.02
    linear: bool = False
    warmup: float = 0.5
    features: float = 0.0
    average: float = 0.0
    settled: bool = False
    pinned: float = 0.0
    distill: float = DISTILL
    solved: bool = True
    around: bool = False


PARTS: Mapping[str, dict[str, Any]] = {
    "linear to zero": {"linear": True},
    "warm-up a tenth": {"warmup": 0.1},
    "features first": {"features": 1 / 3},
    "weights averaged": {"average": 0.9, "settled": True},
    "weights averaged over more": {"average": 0.99, "settled": True},
    "batch norms re-estimated": {"settled": True},
    "batch norms pinned": {"pinned": 1.0},
    "batch norms pinned first": {"pinned": 1 / 3},
    "labels only": {"distill": 0.0},
    "outputs only": {"distill": 1.0},
    "no least squares": {"solved": False},
    "1 x 1 around, merged": {"around": True},
}
ARMS: Mapping[str, Recipe] = {
    "as it is": Recipe(),
    **{f"rate {rate:g}": Recipe(lr=rate) for rate in (0.002, 0.005, 0.01, 0.05)},
    "rate by budget": Recipe(lr=None),
    **{name: Recipe(**part) for name, part in PARTS.items()},
    **{f"rate {rate:g}, {name}": Recipe(lr=rate, **part) for rate in (0.005, 0.01) for name, part in PARTS.items()},
}
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SHARES = (0.5, 0.25)


def learning_rate(recipe: Recipe, highest: float, at: float) -> float:
    """After this share of the training."""
    if at < recipe.warmup:
        return highest * (0.1 + 0.9 * at / recipe.warmup)
    left = (1 - at) / (1 - recipe.warmup)
    return highest * (left if recipe.linear else 0.5 * (1 - math.cos(math.pi * left)))


def highest_rate(recipe: Recipe, lost: float, steps: int, whole: int) -> float:
    """The arm's own, or by budget; ``whole`` is the steps of an epoch of all training images."""
    if recipe.lr is not None:
        return recipe.lr
    return FULL_LR * min(1.0, max(lost, steps / (FULL_EPOCHS * whole)))


class Around(nn.Module):
    """A convolution between two of 1 x 1, at first the identity: the same linear maps, said with more parameters."""

    def __init__(self, middle: nn.Conv2d) -> None:
        super().__init__()
        assert middle.groups == 1 and middle.bias is None and middle.padding_mode == "zeros"
        self.middle = middle
        self.first, self.last = (nn.Conv2d(n, n, 1, bias=False) for n in (middle.in_channels, middle.out_channels))
        for conv in (self.first, self.last):
            nn.init.dirac_(conv.weight)
        self.to(middle.weight.device)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.middle(self.first(x)))
        return y

    def merged(self) -> nn.Conv2d:
        """The one convolution that computes the same."""
        first, last = (conv.weight.detach()[:, :, 0, 0] for conv in (self.first, self.last))
        result = copy.deepcopy(self.middle)
        result.weight.data = torch.einsum("po,oikl,ij->pjkl", last, result.weight.detach(), first)
        return result


def replaced(model: nn.Module, kind: type[Any], make: Callable[[Any], nn.Module]) -> nn.Module:
    """The network with all modules of a kind replaced, in place."""
    for name, child in list(model.named_children()):
        if isinstance(child, kind):
            setattr(model, name, make(child))
        else:
            replaced(child, kind, make)
    return model


class Reader:
    """What a network's classifier reads."""

    def __init__(self, model: nn.Module) -> None:
        self.seen = torch.empty(0)
        classifier = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
        self.hook = classifier.register_forward_pre_hook(self._keep)

    def _keep(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self.seen = args[0]


def batches(data: Data, images: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Some training images, in an order and varied as the seed says."""
    assert data.train is not None
    return data.train.batches(BATCH, shuffle_seed=derive(seed, "shuffle", 0), augment=True, limit=images)


def train(
    start: nn.Module, teacher: nn.Module | None, data: Data, recipe: Recipe, images: int, seed: int, lost: float = 1.0
) -> nn.Module:
    """A copy of the network after one pass over so many images; the teacher has to be on :data:`DEVICE`."""
    assert data.train is not None
    model = copy.deepcopy(start).to(DEVICE).train()
    if recipe.around:
        replaced(model, nn.Conv2d, Around)
    ours, theirs = Reader(model), Reader(teacher) if teacher is not None else None
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    sgd = torch.optim.SGD(groups, lr=0.1, momentum=MOMENTUM, nesterov=True)
    steps = images // BATCH
    highest = highest_rate(recipe, lost, steps, len(data.train) // BATCH)
    mean = {k: v.clone() for k, v in model.state_dict().items()}
    torch.manual_seed(seed)
    for step, (pictures, labels) in enumerate(batches(data, steps * BATCH, seed)):
        at = step / steps
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.train(at >= recipe.pinned)
        for group in sgd.param_groups:
            group["lr"] = learning_rate(recipe, highest, at)
        pictures, labels = pictures.to(DEVICE), labels.to(DEVICE)
        answers = model(pictures)
        with torch.no_grad():
            wanted = teacher(pictures) if teacher is not None and recipe.distill else None
        if wanted is not None and theirs is not None and at < recipe.features:
            loss = F.mse_loss(ours.seen, theirs.seen) / theirs.seen.var()
        else:
            loss = torch.zeros(()) if recipe.distill == 1 else (1 - recipe.distill) * F.cross_entropy(answers, labels)
            if wanted is not None:
                taught = F.kl_div(
                    F.log_softmax(answers / TEMPERATURE, 1),
                    F.log_softmax(wanted / TEMPERATURE, 1),
                    reduction="batchmean",
                    log_target=True,
                )
                loss = loss + recipe.distill * TEMPERATURE**2 * taught
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        if recipe.average:
            kept = min(recipe.average, (1 + step) / (10 + step))
            for key, value in model.state_dict().items():
                if value.is_floating_point():
                    mean[key].lerp_(value, 1 - kept)
    for reader in (ours, theirs):
        if reader is not None:
            reader.hook.remove()
    if recipe.average:
        model.load_state_dict(mean)
    replaced(model.eval(), Around, Around.merged)
    return reestimate(model, in_batches(data.calibration.images(1024))) if recipe.settled else model


def right(model: nn.Module, data: Data, images: int) -> list[bool]:
    """Which validation images get their label."""
    pairs, device = data.validation.batches(250, limit=images), next(model.parameters()).device
    found = [logits(model, pictures.to(device)).argmax(1).cpu() == labels for pictures, labels in pairs]
    return [bool(x) for x in torch.cat(found)]


def pruned(model: nn.Module, data: Data, share: float, solved: bool) -> nn.Module:
    """At a share of the MACs by equal shares of l1, streams whole, recovered without training."""
    topology = trace(model, data.calibration.images(2))
    groups, _ = prunable(topology, ())
    stages = make_stages(topology, groups, streams=False)
    scores = gather(model, in_batches(data.calibration.images(64)), seed=0)
    wanted = [g for s in stages for g in s.groups]
    statistics = ChannelStatistics(importance=importance(scores, topology, wanted))
    space = Space(CostModel(topology, Target("macs", share)), stages, statistics, budget=1000)
    plan = Uniform("l1").plan(space, share)
    small, images = cut(model, topology, plan), in_batches(data.calibration.images(512))
    return (reconstruct(model, small, topology, plan, images).model if solved else reestimate(small, images)).eval()


def base_of(given: argparse.Namespace, data: Data, model: nn.Module, architecture: Any) -> nn.Module:
    """The network, once it knows these images."""
    if given.known:
        return model.eval()
    path = given.work / "base.safetensors"
    if not path.exists():
        known = train(model, None, data, replace(Recipe(), lr=0.01, distill=0.0), 2 * given.images, seed=0)
        save(path, known.cpu(), architecture=architecture)
    return load(path, zoo=MODELS).model.eval()


def table(found: Mapping[str, Any]) -> str:
    """Starts and arms; means over the seeds, in %."""
    lines = ["| start | arm | seeds | before | after | difference (95 %) |", "|---|---|---|---|---|---|"]
    for share in SHARES:
        there = found.get(f"{share}", {})
        for name, runs in there.items():
            rate = name.partition(", ")[0]
            against = rate if rate != name and rate in ARMS else "as it is"
            plain = there.get(against, {})
            common = sorted(set(runs) & set(plain))
            before, after = (100 * float(np.mean([np.mean(bits(r[k])) for r in runs.values()])) for k in ("before", "after"))
            said = ""
            if common and name != against:
                gap = difference(*([bits(r[s]["after"]) for s in common] for r in (runs, plain)))
                said = f"{100 * gap.mean:+.2f} ({100 * gap.low:.2f} to {100 * gap.high:.2f})"
            lines.append(f"| {share:g} of the MACs | {name} | {len(runs)} | {before:.1f} | {after:.2f} | {said} |")
    return "\n".join(lines)


def run(base: nn.Module, data: Data, given: argparse.Namespace, results: Results) -> None:
    """Run by run.

    Raises:
        Part: the time is up.
    """
    teacher = copy.deepcopy(base).to(DEVICE)
    whole = results.part(("base",), lambda: float(np.mean(right(teacher, data, given.judged))))
    start = cache(lambda share, solved: pruned(base, data, share, solved))
    before = cache(lambda share, solved: right(copy.deepcopy(start(share, solved)).to(DEVICE), data, given.judged))

    def done(share: float, recipe: Recipe, seed: int) -> dict[str, str]:
        was = before(share, recipe.solved)
        lost = max(0.0, whole - float(np.mean(was))) / whole
        model = train(start(share, recipe.solved), teacher, data, recipe, given.images, seed, lost)
        now = right(model, data, given.judged)
        print(f"{np.mean(was):.4f} -> {np.mean(now):.4f}", flush=True)
        return {"before": text_of(was), "after": text_of(now)}

    for seed in given.seeds:
        for name in given.only:
            for share in SHARES:
                how = (share, ARMS[name], seed)
                results.part(("found", f"{share}", name, f"{seed}"), lambda how=how: done(*how))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=[*ARMS], default=[*ARMS], help="arms; none: only merge and print")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument(
        "--images", type=lambda text: None if text == "all" else int(text), default=6400, help="of a run, or all"
    )
    parser.add_argument("--judged", type=int, default=4000, help="validation images")
    parser.add_argument("--known", action="store_true", help="MODEL knows these images: it is not trained first")
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--results", type=Path, default=RESULT, help="file of the result")
    parser.add_argument("--merge", nargs="+", type=Path, default=[], help="results of the same command to take over first")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    given = parser.parse_args(arguments)
    if given.table:
        print(table(json.loads(given.results.read_text())["found"]))
        return 0
    end = time.monotonic() + 60 * given.minutes
    given.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    loaded = load(given.model, zoo=MODELS)
    data = open_data(given.data, preprocessing=loaded.preprocessing or preset_for(loaded.architecture.name))
    most = len(data.train or ())
    given.images = most if given.images is None else min(given.images, most)
    base = base_of(given, data, loaded.model, loaded.architecture)
    protocol = {"base": state_digest(base.state_dict()), "images": given.images, "judged": given.judged}
    results = Results(given.results, end, protocol)
    results.take(given.merge)
    try:
        if given.only:
            run(base, data, given, results)
    except Part:
        print("the time is up; the same command goes on", file=sys.stderr)
    print(table(results.held.get("found", {})))
    return 0


if __name__ == "__main__":
    sys.exit(main())
