from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from compress_models import MODELS
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom
from torch import nn

from compress.core.cost import Cost
from compress.core.plan import Cut, Plan
from compress.core.statistics import certificate, images_needed, upper
from compress.core.topology import GroupId
from compress.coupling.tracer import trace
from compress.data import Data
from compress.evaluation.evaluator import Material
from compress.evaluation.predictions import agreements, certify, predict, unseen
from compress.evaluation.top1 import accuracy
from compress.networks import checkpoint
from compress.networks.network import Network
from compress.pipeline.front import choose
from compress.pipeline.job import make_job
from compress.pipeline.pruning import prune
from compress.recovery.batch_norm import reestimate
from compress.search.front import Fidelity, Point
from compress.search.space import Target
from compress.search.stages import prunable
from compress.surgery.cutting import cut
from compress.tasks import Classification

CLASSES = Classification()


@given(st.integers(1, 400), st.data(), st.sampled_from([0.9, 0.95, 0.99]))
def test_the_bound_is_clopper_and_pearsons(n: int, draw: st.DataObject, confidence: float) -> None:
    k = draw.draw(st.integers(0, n - 1))
    assert upper(k, n, confidence) == pytest.approx(beta.ppf(confidence, k + 1, n - k), rel=1e-9)
    assert k / n < upper(k, n, confidence) <= upper(k + 1, n, confidence)
    assert upper(n, n) == 1.0


@given(st.integers(1, 200), st.floats(0.001, 0.999))
def test_it_covers_every_probability(n: int, p: float) -> None:
    """Exactly, not by simulation: the outcomes whose bound misses p are at most as probable as was promised."""
    k = np.arange(n + 1)
    misses = np.array([upper(int(i), n) < p for i in k])
    assert binom.pmf(k[misses], n, p).sum() <= 0.05 + 1e-12


def test_the_drop_is_covered_in_simulated_lives() -> None:
    """Two networks whose answers depend on each other: the bound from unlabelled images misses the true drop in few lives."""
    rng = np.random.default_rng(0)
    both, only_before, only_after, neither_alike = 0.85, 0.06, 0.02, 0.04  # the rest: both wrong, differently
    drop, disagreement = only_before - only_after, 1 - both - neither_alike
    missed_drop = missed_disagreement = 0
    for _ in range(2000):
        bound = upper(int(rng.binomial(300, disagreement)), 300)
        missed_drop += bound < drop
        missed_disagreement += bound < disagreement
    assert missed_drop == 0 and missed_disagreement / 2000 <= 0.065


@given(st.floats(0.001, 0.5))
def test_the_least_that_can_be_enough(drop: float) -> None:
    n = images_needed(drop)
    assert upper(0, n) <= drop * (1 + 1e-9) and (n == 1 or upper(0, n - 1) > drop * (1 - 1e-9))


@pytest.mark.parametrize("share", [0.8, 0.5, 0.35])
def test_the_bound_lies_above_the_drop_that_labels_show(digits: tuple[Network, Data], share: float) -> None:
    network, data = digits
    topology = trace(network.model, torch.zeros(1, 1, 8, 8))
    images = data.calibration.images(64)
    plan = Plan({g: Cut(tuple(range(max(1, int(share * topology.by_id[g].size))))) for g in prunable(topology, ())[0]})
    small = reestimate(cut(network.model, topology, plan), [images])
    material = Material(images, data.validation.images(100), None, "agreement")
    found = certify(agreements(network.model, small, unseen(data, material, True), CLASSES), CLASSES)
    assert found is not None and found.images == len(data.validation) - 100 + len(data.calibration) - 64
    drop = accuracy(network.model, data.test).top1 - accuracy(small, data.test).top1
    assert found.bound >= drop and found.bound >= found.disagree / found.images


def test_a_network_agrees_with_itself(digits: tuple[Network, Data]) -> None:
    network, data = digits
    material = Material(data.calibration.images(4), data.validation.images(8), None, "agreement")
    found = certify(agreements(network.model, network.model, unseen(data, material, True), CLASSES, most=100), CLASSES)
    assert found == certificate(0, 100, "100 validation images that the run had not used")
    assert found is not None and found.bound == pytest.approx(1 - 0.05 ** (1 / 100))


def test_only_images_that_nothing_has_seen(digits: tuple[Network, Data], unlabelled: Data) -> None:
    """Calibration and judged images are left out; the test split is asked only where nobody will judge on it."""
    _, data = digits
    material = Material(data.calibration.images(5), data.validation.images(7), None, "agreement")
    assert unseen(data, material, True) == ((data.validation, 7), (data.calibration, 5))
    assert unseen(data, material, True, decided=True) == ((data.calibration, 5),)
    assert unseen(unlabelled, material, False)[0] == (unlabelled.test, 0)
    everything = Material(data.calibration.images(9999), data.validation.images(9999), None, "agreement")
    assert unseen(data, everything, True) == ()
    assert certify(agreements(nn.Identity(), nn.Identity(), (), CLASSES), CLASSES) is None


def test_answers_are_those_of_the_accuracy(digits: tuple[Network, Data]) -> None:
    network, data = digits
    said = predict(network.model, data.test)
    assert said.right.mean() == pytest.approx(accuracy(network.model, data.test).top1)
    part = predict(network.model, data.test, skip=100, most=50, batch=32)
    assert np.array_equal(part.classes, said.classes[100:150]) and np.array_equal(part.labels, said.labels[100:150])


def test_a_drop_without_labels_is_certified(digits: tuple[Network, Data], unlabelled: Data, tmp_path: Path) -> None:
    """No label anywhere: the choice rests on the interval of disagreement, and the report says what was certified."""
    network, data = digits[0], unlabelled
    flags = {"method": "uniform", "target": "max_drop", "value": 6.0, "epochs": 0, "latency_seconds": 0.0, "recover": "bn"}
    job = make_job(flags={**flags, "exporter": "legacy", "options": {"points": 8}})
    report = prune(network, data, job, tmp_path / "r").report
    assert not report.scores and report.certificate is not None
    found = report.certificate
    assert found.images == len(data.test) and "test" in found.source and found.bound == upper(found.disagree, found.images)
    assert report.after.macs < report.before.macs and "so rarely" in report.search["chosen"]
    assert "certified" in report.verdict and "at most" in (tmp_path / "r" / "report.md").read_text()
    warned = any("cannot be excluded" in w for w in report.warnings)
    assert warned == (found.bound > 0.06)
    truth = accuracy(network.model, digits[1].test).top1 - accuracy(checkpoint.load(
        tmp_path / "r" / "model.safetensors", zoo=MODELS).model, digits[1].test).top1  # fmt: skip
    assert truth <= found.bound


def test_the_choice_rests_on_the_interval() -> None:
    figures = ((0.2, 0.10), (0.4, 0.02), (0.6, 0.0))
    points = tuple(
        Point(Plan({GroupId("g"): Cut((i,))}), e, Cost(int(1000 * s), 1), Fidelity.FULL) for i, (s, e) in enumerate(figures)
    )
    chosen, why = choose(points, Target("max_drop", 0.03), lambda p: 0.0, 0.0, judged=1000)
    assert points.index(chosen) == 1 and "so rarely" in why
    chosen, why = choose(points, Target("max_drop", 0.03), lambda p: 0.0, 0.0, judged=150)  # 2 % of 150: up to 5.1 %
    assert points.index(chosen) == 2
    chosen, why = choose(points, Target("max_drop", 0.03), lambda p: 0.0, 0.0, judged=50)
    assert points.index(chosen) == 2 and "99 could" in why
