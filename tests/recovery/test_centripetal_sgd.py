"""Laws of Centripetal SGD: clusters shrink as predicted, and a trim of equal filters changes nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import nets
from torch import Tensor, nn

from compress.core.plan import Cut, Plan
from compress.core.topology import Topology
from compress.errors import TrainError
from compress.recovery.centripetal_sgd import Pull, averaged, deviation, tied_slices, train_centripetal
from compress.recovery.pull_strength import BIASES, LEAST_EXPONENT, PAPER_EPS, VECTORS, exponent, rates, strength
from compress.recovery.schedule import Schedule, steps_per_epoch
from compress.recovery.training import GradientRewrite, fit
from compress.search.csgd_clusters import clusters_at
from compress.search.stages import prunable
from compress.search.widths import orbits
from compress.surgery.cutting import cut
from compress.surgery.seen_values import relative_error

COUPLED = [n for n in nets.NETS if n not in ("groupnorm", "layernorm", "conv1d", "conv3d")]
TRAINED = ["chain", "residual", "concat", "dense", "depthwise", "option-a", "grouped", "shared", "tied"]


@dataclass(frozen=True)
class Noise:
    """Images and labels without any sense: nothing here depends on what is learned."""

    count: int = 64
    shape: tuple[int, ...] = (3, 8, 8)

    @property
    def digest(self) -> str:
        return f"noise-{self.count}"

    def __len__(self) -> int:
        return self.count

    def batches(
        self, batch_size: int, *, shuffle_seed: int | None = None, augment: bool = False, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        images = torch.randn(self.count, *self.shape, generator=torch.Generator().manual_seed(0))
        order = torch.randperm(self.count, generator=torch.Generator().manual_seed(shuffle_seed or 0))
        for part in order[:limit].split(batch_size):
            yield images[part], part % 4


def halved(topology: Topology, division: str = "even", share: float = 0.5) -> Plan:
    """Clusters of about two channels in every group where equal channels may become one."""
    groups = [g for g in topology.groups if topology.foldable(g.id)]
    kernels = {g.id: np.random.default_rng(3).normal(size=(g.size, 5)) for g in groups}
    widths = {g.id: tuple(max(1, round(share * len(o))) for o in orbits(g)) for g in groups}
    return clusters_at(topology, kernels, widths, division)  # type: ignore[arg-type]


def outputs(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        found = model.eval()(images)
    return torch.cat([x.flatten(1) for x in found], 1) if isinstance(found, tuple) else found.flatten(1)


def change(wanted: Tensor, got: Tensor) -> float:
    """The largest change of an output over the largest output."""
    return float((wanted - got).abs().max() / wanted.abs().max())


# ---- the trim ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COUPLED)
def test_trimming_equal_filters_changes_nothing(name: str) -> None:
    model, topology = nets.traced(name)
    plan = halved(topology, "kmeans")
    assert plan
    equal = averaged(model, tied_slices(topology, plan))
    small = cut(equal, topology, plan)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    images = nets.inputs(name, 6)
    single = change(outputs(equal, images.float()), outputs(small, images.float()))
    exact = equal.double()
    double = relative_error(outputs(exact, images), outputs(cut(exact, topology, plan), images))
    assert single < 1e-6 and double < 1e-12


@pytest.mark.parametrize("name", TRAINED)
def test_trimming_without_the_sum_breaks_the_output(name: str) -> None:
    model, topology = nets.traced(name)
    plan = halved(topology)
    equal = averaged(model, tied_slices(topology, plan))
    bare = cut(equal, topology, Plan({g: Cut(c.keep) for g, c in plan.cuts.items()}))
    images = nets.inputs(name, 6).float()
    assert change(outputs(equal, images), outputs(bare, images)) > 0.05


def test_all_that_belongs_to_a_channel_is_tied() -> None:
    """Writers of one stream share their clusters, a batch norm on a concatenation has them at its offset."""
    _, topology = nets.traced("projection")
    tied = {(t.key, t.dim): t.owner.tolist() for t in tied_slices(topology, halved(topology))}
    assert tied["b.0.weight", 0] == tied["short.0.weight", 0] == tied["b.1.running_var", 0] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert not any(key.startswith("head") or key.endswith("num_batches_tracked") for key, _ in tied)
    _, dense = nets.traced("dense")
    plan = clusters_at(dense, {}, {g.id: (2,) for g in dense.groups if g.id == "layers.0.2"}, "even")
    tied = {(t.key, t.dim): t.owner.tolist() for t in tied_slices(dense, plan)}
    assert tied["layers.0.2.weight", 0] == [0, 0, 1, 1]
    assert tied["layers.1.0.weight", 0] == [0, 1, 2, 3, 4, 5, 6, 6, 7, 7]
    _, narrow = nets.traced("depthwise")
    keys = {t.key for t in tied_slices(narrow, halved(narrow))}
    assert {"0.0.weight", "1.0.weight", "1.1.bias", "2.0.weight"} <= keys


# ---- the rewrite -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["chain", "residual", "option-a", "transposed", "plain"])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_one_step_is_the_papers(name: str, memory: torch.memory_format) -> None:
    """F_j - lr [mean(dL/dF) + wd F_j + eps (F_j - mean(F))], cluster by cluster."""
    model, topology = nets.traced(name)
    model = model.train()
    plan, eps = halved(topology, share=0.4), 0.3
    tied = tied_slices(topology, plan)
    images = nets.inputs(name, 8).float()
    before = {k: p.detach().clone() for k, p in model.named_parameters()}
    student = averaged(model, ()).to(memory_format=memory)
    sgd = torch.optim.SGD([{"params": [p], "weight_decay": 0.01 if p.dim() > 1 else 0.0} for p in student.parameters()], lr=0.1)
    student(images).pow(2).sum().backward()
    grads = {k: p.grad.clone() for k, p in student.named_parameters() if p.grad is not None}
    Pull(tied, eps)(student, 0.1)
    sgd.step()
    model.eval()
    for key, after in student.named_parameters():
        own = [t for t in tied if t.key == key]
        dim, owner = (own[0].dim, own[0].owner) if own else (0, torch.arange(before[key].shape[0] if before[key].dim() else 1))
        rows, slopes = before[key].movedim(dim, 0), grads[key].movedim(dim, 0)
        wd, pull = (0.01, eps) if after.dim() > 1 else (0.0, VECTORS * eps)
        factor = BIASES if key.endswith("bias") else 1.0
        for j in range(len(owner)):
            mates = torch.where(owner == owner[j])[0]
            step = slopes[mates].mean(0) + wd * rows[j] + pull * (rows[j] - rows[mates].mean(0))
            torch.testing.assert_close(after.detach().movedim(dim, 0)[j], rows[j] - 0.1 * factor * step)


def spread(model: nn.Module, key: str, topology: Topology, plan: Plan) -> float:
    (tied,) = (t for t in tied_slices(topology, plan) if t.key == key)
    tensor = model.state_dict()[key].double()
    return float((tensor - tied.mean(tensor)).norm())


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("eps", [0.05, 1.0])
def test_the_deviation_shrinks_at_the_predicted_rate(momentum: float, eps: float) -> None:
    """In a cluster the loss has no say: the recursion is exact up to rounding, the closed form up to start and end."""
    model, topology = nets.traced("residual")
    plan = halved(topology)
    schedule = Schedule(4, lr=0.05, batch=16, momentum=momentum, weight_decay=0.02, precision="fp32")
    trained = fit(model, Noise(), schedule, rewrite=GradientRewrite(Pull(tied_slices(topology, plan), eps)))
    learning = rates(schedule, steps_per_epoch(64, schedule))
    assert len(learning) == 16
    vectors = VECTORS * eps
    for key, pull, factor in (("a.0.weight", eps + 0.02, 1.0), ("a.1.weight", vectors, 1.0), ("a.1.bias", vectors, BIASES)):
        shrunk = -math.log(spread(trained, key, topology, plan) / spread(model, key, topology, plan))
        wanted = exponent([factor * lr for lr in learning], pull, momentum)
        swings = max(learning) * factor * pull > ((1 - momentum) / (1 + momentum)) ** 2
        assert shrunk > 0.98 * wanted - 0.003, key
        assert swings or shrunk < 1.02 * wanted + 0.003, key


@given(momentum=st.sampled_from([0.0, 0.5, 0.9]), calm=st.floats(0.05, 0.3), steps=st.integers(300, 900))
@settings(max_examples=30, deadline=None)
def test_below_the_critical_rate_the_closed_form_holds(momentum: float, calm: float, steps: int) -> None:
    """Sum(lr) pull / (1 - momentum); the recursion differs by the second order in lr pull, and by its start and end."""
    learning = rates(Schedule(1, lr=0.1, momentum=momentum), steps)
    pull = calm * (1 - math.sqrt(momentum)) ** 2 / 0.1
    closed = sum(learning) * pull / (1 - momentum)
    assert exponent(learning, pull, momentum) == pytest.approx(closed, rel=0.35 * calm + 0.15, abs=0.05)


# ---- the schedule ------------------------------------------------------------------------------------------------------


def test_the_papers_own_schedule_is_long_enough() -> None:
    found = strength(Schedule(600, lr=0.03, batch=64, weight_decay=1e-4), 782)
    assert (found.eps, found.raised) == (PAPER_EPS, False) and found.kernels > 150 and found.vectors > LEAST_EXPONENT


@pytest.mark.parametrize(("epochs", "steps"), [(30, 12), (3, 352), (20, 352)])
def test_a_short_schedule_is_refused_or_its_pull_is_raised(epochs: int, steps: int) -> None:
    schedule = Schedule(epochs)
    with pytest.raises(TrainError, match="cannot make filters equal") as caught:
        strength(schedule, steps, PAPER_EPS)
    suffices = float(caught.value.hint.split()[1])
    assert strength(schedule, steps, suffices).enough
    raised = strength(schedule, steps)
    assert raised.raised and raised.enough and raised.kernels < 17 and raised.vectors < 17, "the weakest that suffices"
    assert raised.eps <= suffices and raised.vector_eps <= 1.01 * VECTORS * suffices
    with pytest.raises(TrainError):
        strength(schedule, steps, 0.7 * suffices)


def test_too_few_steps_are_refused_and_enough_epochs_are_named() -> None:
    with pytest.raises(TrainError, match="cannot make filters equal") as caught:
        strength(Schedule(2), 12)
    epochs = int(caught.value.hint.split()[4])
    assert strength(Schedule(epochs), 12).enough
    for eps in (PAPER_EPS, 0.03, 0.1, 0.3):
        with pytest.raises(TrainError) as caught:
            strength(Schedule(2), 12, eps)
        alone = "leave eps out" in caught.value.hint
        assert strength(Schedule(int(caught.value.hint.split()[4])), 12, None if alone else eps).enough
        assert alone or eps > PAPER_EPS, "the papers' is too weak for so few epochs"


def test_too_strong_a_pull_is_refused() -> None:
    with pytest.raises(TrainError, match="exp"):
        strength(Schedule(30), 20, 1000.0)


# ---- all of it ---------------------------------------------------------------------------------------------------------

QUICK = ("depthwise",)
"""The couplings that differ most from a plain one; the others take as long and are slow tests."""
LONG = Schedule(15, lr=0.05, batch=4, precision="fp32")


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in TRAINED])
def test_a_trained_network_loses_nothing_by_the_trim(name: str) -> None:
    model, topology = nets.traced(name)
    plan = halved(topology, "kmeans")
    centripetal = train_centripetal(model, tied_slices(topology, plan), Noise(), LONG)
    small = cut(centripetal.averaged, topology, plan)
    images = nets.inputs(name, 20).float()
    assert centripetal.before > 0.1 and centripetal.after < 1e-4 and centripetal.strength.enough
    assert max(deviation(centripetal.averaged, tied_slices(topology, plan), learned=False).values()) < 1e-7
    wanted = outputs(centripetal.trained, images)
    got = outputs(small, images)
    assert change(outputs(centripetal.averaged, images), got) < 1e-6
    assert change(wanted, got) < 1e-4
    assert torch.equal(wanted.argmax(1), got.argmax(1))
    # Without the pull, the same clusters are averaged at a loss.
    plain = fit(model, Noise(), LONG)
    assert change(outputs(plain, images), outputs(averaged(plain, tied_slices(topology, plan)), images)) > 0.02


class _Killed(Exception):
    pass


def test_an_interruption_leaves_no_trace(tmp_path: Path) -> None:
    model, topology = nets.traced("chain")
    plan = halved(topology)
    schedule = replace(LONG, epochs=12)
    straight = train_centripetal(model, tied_slices(topology, plan), Noise(), schedule)

    def kill(event: object) -> None:
        if getattr(event, "epoch", 0) == 7:
            raise _Killed

    with pytest.raises(_Killed):
        train_centripetal(model, tied_slices(topology, plan), Noise(), schedule, state_dir=tmp_path, listen=kill)
    with pytest.raises(TrainError, match="another training"):
        train_centripetal(model, tied_slices(topology, halved(topology, "imbalanced")), Noise(), schedule, state_dir=tmp_path)
    again = train_centripetal(model, tied_slices(topology, plan), Noise(), schedule, state_dir=tmp_path)
    for a, b in zip(straight.averaged.state_dict().values(), again.averaged.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_clusters_and_strength_are_part_of_a_trainings_identity() -> None:
    _, topology = nets.traced("chain")
    tied, others = (tied_slices(topology, halved(topology, d)) for d in ("even", "imbalanced"))
    pulls = [Pull(tied, 0.1), Pull(tied, 0.2), Pull(tied, 0.1, 0.1), Pull(others, 0.1)]
    assert len({p.identity for p in pulls}) == 4 and Pull(tied, 0.1, VECTORS * 0.1).identity == Pull(tied, 0.1).identity


def test_what_cannot_be_drawn_together_is_refused() -> None:
    model, topology = nets.traced("frozen")
    with pytest.raises(TrainError, match="requires no gradient"):
        train_centripetal(model, tied_slices(topology, halved(topology)), Noise(), LONG)
    _, chain = nets.traced("chain")
    with pytest.raises(TrainError, match="without a cluster"):
        tied_slices(chain, Plan({chain.groups[0].id: Cut((0, 1))}))
    _, normed = nets.traced("layernorm")
    with pytest.raises(TrainError, match="layer or group norm"):
        tied_slices(normed, clusters_at(normed, {}, {g.id: (4,) for g in normed.groups}, "even"))


@pytest.mark.parametrize("name", nets.NETS)
def test_what_cannot_be_drawn_together_is_left_alone_before_the_search(name: str) -> None:
    _, topology = nets.traced(name)
    everything, _ = prunable(topology, ())
    chosen, left = prunable(topology, (), "csgd")
    assert set(chosen) <= set(everything) and all("become one" in left[g] for g in set(everything) - set(chosen))
    widths = {g: tuple(max(1, len(o) // 2) for o in orbits(topology.by_id[g])) for g in chosen}
    tied_slices(topology, clusters_at(topology, {}, widths, "even"))


def test_the_caller_keeps_its_network() -> None:
    model, topology = nets.traced("chain")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    averaged(model, tied_slices(topology, halved(topology)))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
