"""What each part of a fine-tuning recipe is worth: one part is changed, everything else stays.

    python benchmarks/recipe.py MODEL DATA --work DIR [--only ARM ...] [--seeds 0 1] [--images 6400] [--minutes M]

MODEL is a checkpoint of a CIFAR-10 ResNet, which is first trained for one pass over twice the ``--images`` of DATA, so that
it knows these images. It is then pruned to a half and to a quarter of its MACs by equal shares (l1, streams whole), its
readers are solved by least squares, and the result is trained for one pass over ``--images`` training images, in a loop of
this file's own: an arm that helps becomes part of ``compress.recovery``, one that does not stays here.

Judged are validation images, never the test split. Every run is kept in ``results/recipe.json``; the same command goes on,
and with ``--minutes`` begins none after that time. Differences are paired by image against the arm ``as it is``.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from compress_models import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compress.core import derive, difference, write_json
from compress.coupling import trace
from compress.data import Data, open_data, preset_for
from compress.evaluation import gather, importance, logits
from compress.networks import in_batches, load, save, state_digest
from compress.recovery import reconstruct, reestimate
from compress.search import ChannelStatistics, CostModel, Space, Target, Uniform, make_stages, prunable
from compress.surgery import cut

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
    """

    lr: float | None = 0.02
    linear: bool = False
    warmup: float = 0.5
    features: float = 0.0
    average: float = 0.0
    settled: bool = False
    pinned: float = 0.0
    distill: float = DISTILL


ARMS: Mapping[str, Recipe] = {
    "as it is": Recipe(),
    "linear to zero": Recipe(linear=True),
    "warm-up a tenth": Recipe(warmup=0.1),
    "rate 0.002": Recipe(lr=0.002),
    "rate 0.005": Recipe(lr=0.005),
    "rate 0.01": Recipe(lr=0.01),
    "rate 0.05": Recipe(lr=0.05),
    "rate by budget": Recipe(lr=None),
    "features first": Recipe(features=1 / 3),
    "weights averaged": Recipe(average=0.9, settled=True),
    "batch norms re-estimated": Recipe(settled=True),
    "batch norms pinned": Recipe(pinned=1.0),
    "batch norms pinned first": Recipe(pinned=1 / 3),
    "labels only": Recipe(distill=0.0),
    "outputs only": Recipe(distill=1.0),
    "rate 0.005, linear to zero": Recipe(lr=0.005, linear=True),
    "rate 0.005, features first": Recipe(lr=0.005, features=1 / 3),
    "rate 0.005, weights averaged": Recipe(lr=0.005, average=0.9, settled=True),
    "rate 0.005, batch norms re-estimated": Recipe(lr=0.005, settled=True),
}
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
    """A copy of the network after one pass over so many images."""
    assert data.train is not None
    model = copy.deepcopy(start).train()
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
    model.eval()
    return reestimate(model, in_batches(data.calibration.images(1024))) if recipe.settled else model


def right(model: nn.Module, data: Data, images: int) -> list[bool]:
    """Which validation images get their label."""
    pairs = list(data.validation.batches(250, limit=images))
    return [bool(x) for pictures, labels in pairs for x in logits(model, pictures).argmax(1) == labels]


def pruned(model: nn.Module, data: Data, share: float) -> nn.Module:
    """At a share of the MACs by equal shares of l1, streams whole, recovered without training."""
    topology = trace(model, data.calibration.images(2))
    groups, _ = prunable(topology, ())
    stages = make_stages(topology, groups, streams=False)
    scores = gather(model, in_batches(data.calibration.images(64)), seed=0)
    wanted = [g for s in stages for g in s.groups]
    statistics = ChannelStatistics(importance=importance(scores, topology, wanted))
    space = Space(CostModel(topology, Target("macs", share)), stages, statistics, budget=1000)
    plan = Uniform("l1").plan(space, share)
    return reconstruct(model, cut(model, topology, plan), topology, plan, in_batches(data.calibration.images(512))).model.eval()


def base_of(given: argparse.Namespace, data: Data, model: nn.Module, architecture: Any) -> nn.Module:
    """The network, once it knows these images."""
    path = given.work / "base.safetensors"
    if not path.exists():
        known = train(model, None, data, replace(Recipe(), lr=0.01, distill=0.0), 2 * given.images, seed=0)
        save(path, known, architecture=architecture)
    return load(path, zoo=MODELS).model.eval()


def text_of(right: Sequence[bool]) -> str:
    """One letter an image, so that a result stays short."""
    return "".join("01"[x] for x in right)


def bits(text: str) -> Any:
    """Which images are right, (images,)."""
    return np.array([letter == "1" for letter in text])


def table(found: Mapping[str, Any]) -> str:
    """Starts and arms; means over the seeds, in %."""
    lines = ["| start | arm | seeds | before | after | difference (95 %) |", "|---|---|---|---|---|---|"]
    for share in SHARES:
        plain = found.get(f"{share}", {}).get("as it is", {})
        for name, runs in found.get(f"{share}", {}).items():
            if not runs:
                continue
            common = sorted(set(runs) & set(plain))
            before, after = (100 * float(np.mean([np.mean(bits(r[k])) for r in runs.values()])) for k in ("before", "after"))
            said = ""
            if common and name != "as it is":
                gap = difference(*([bits(r[s]["after"]) for s in common] for r in (runs, plain)))
                said = f"{100 * gap.mean:+.2f} ({100 * gap.low:.2f} to {100 * gap.high:.2f})"
            lines.append(f"| {share:g} of the MACs | {name} | {len(runs)} | {before:.1f} | {after:.2f} | {said} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=[*ARMS], default=[*ARMS])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--images", type=int, default=6400, help="training images of a run")
    parser.add_argument("--judged", type=int, default=4000, help="validation images")
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--table", action="store_true", help="only print what is there")
    given = parser.parse_args()
    if given.table:
        print(table(json.loads(RESULT.read_text())["found"]))
        return 0
    end = time.monotonic() + 60 * given.minutes
    given.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    loaded = load(given.model, zoo=MODELS)
    data = open_data(given.data, preprocessing=loaded.preprocessing or preset_for(loaded.architecture.name))
    base = base_of(given, data, loaded.model, loaded.architecture)
    held = json.loads(RESULT.read_text()) if RESULT.exists() else {"found": {}}
    protocol = {"base": state_digest(base.state_dict()), "images": given.images, "judged": given.judged}
    if held.setdefault("protocol", protocol) != protocol:
        sys.exit(f"{RESULT} holds runs of another protocol: {held['protocol']}, now it is {protocol}; remove it")
    if "base" not in held:
        held["base"] = float(np.mean(right(base, data, given.judged)))
    starts = {share: pruned(base, data, share) for share in SHARES}
    before = {share: right(start, data, given.judged) for share, start in starts.items()}
    for seed in given.seeds:
        for name in given.only:
            for share, start in starts.items():
                runs = held["found"].setdefault(f"{share}", {}).setdefault(name, {})
                if str(seed) in runs or time.monotonic() > end:
                    continue
                lost = max(0.0, held["base"] - float(np.mean(before[share]))) / held["base"]
                model = train(start, base, data, ARMS[name], given.images, seed, lost)
                after = right(model, data, given.judged)
                runs[str(seed)] = {"before": text_of(before[share]), "after": text_of(after)}
                write_json(RESULT, held)
                print(f"{name}, {share}, seed {seed}: {np.mean(before[share]):.4f} -> {np.mean(after):.4f}", flush=True)
    print(table(held["found"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
