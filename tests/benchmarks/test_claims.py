"""The benchmark of claims: its formulas agree with the tasks' scores, its verdicts are right, a few networks keep the law."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from compress.core import Certificate
from compress.tasks import task_named

ROOT = Path(__file__).parents[2]
SCORED = ["classification", "binary", "multilabel", "regression:unit=px", "segmentation", "restoration", "detection"]


@pytest.fixture(scope="module")
def claims() -> ModuleType:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import claims

    return claims


@pytest.fixture(scope="module")
def worlds(claims: ModuleType) -> ModuleType:
    import claims_tasks

    return claims_tasks


@pytest.mark.parametrize("task", SCORED)
def test_the_truth_is_counted_as_the_task_scores(task: str, worlds: ModuleType) -> None:
    """Two formulas, one written here and one behind the library's tasks, on an untrained network's answers."""
    if task in ("multilabel", "segmentation", "restoration", "detection"):
        pytest.importorskip("torchmetrics")
    world = worlds.World(task, 5, 0.3)
    inputs, targets = world.samples(60, 1)
    model = worlds.trained(world, 0, steps=20) if task == "detection" else world.network(0).eval()  # untrained it finds nothing
    with torch.inference_mode():
        found = world.truth(model(inputs), targets)
    said = task_named(task).score(model, [(inputs[:40], targets[:40]), (inputs[40:], targets[40:])])
    shared = set(found) & set(said)
    assert task != "detection" or 0.05 < found["mAP50"] < 1
    assert task_named(task).figures[0].name in shared
    for name in shared:
        assert said[name].value == pytest.approx(found[name], rel=1e-5)


def test_samples_are_fresh_and_repeatable(worlds: ModuleType) -> None:
    for task in [*SCORED, "outputs"]:
        world = worlds.World(task, 3, 0.3)
        one, again, other = (world.samples(8, seed) for seed in (1, 1, 2))
        assert all(map(_equal, one, again)) and not torch.equal(one[0], other[0])
        with torch.inference_mode():
            answer = world.network(0)(one[0])
        said = answer["cls_logits"] if task == "detection" else answer
        assert len(said) == 8 and set(world.nothing_known(one[1])) == set(world.truth(answer, one[1]))


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return all(torch.equal(a[k], b[k]) for a, b in zip(one, other, strict=True) for k in ("boxes", "labels"))


def _report(figure: dict[str, Any], scores: Any = (), certificate: Any = None) -> dict[str, Any]:
    rows = [dict(zip(("when", "split", "value", "low", "high"), row, strict=True)) for row in scores]
    return {"figure": figure, "scores": rows, "certificate": certificate}


def test_what_is_said_of_a_claim(claims: ModuleType) -> None:
    accuracy = {"name": "accuracy", "higher": True}
    error = {"name": "MAE", "higher": False}
    scores = [("base", "test", 0.9, 0.85, 0.95), ("final", "test", 0.8, 0.75, 0.85)]
    true = claims.claim(_report(accuracy, scores), {"accuracy": 0.9}, {"accuracy": 0.84}, {"accuracy": 0.5})
    assert true["holds"] and true["drop_holds"] and not true["vacuous"] and true["says"] == pytest.approx([0.0, 0.2])
    false = claims.claim(_report(accuracy, scores), {"accuracy": 0.9}, {"accuracy": 0.6}, {"accuracy": 0.5})
    assert not false["holds"] and not false["drop_holds"]
    rising = [("base", "test", 1.0, 0.9, 1.1), ("final", "test", 2.0, 1.8, 2.2)]
    found = claims.claim(_report(error, rising), {"MAE": 1.0}, {"MAE": 2.1}, {"MAE": 9.0})
    assert found["says"] == pytest.approx([0.7, 1.3]) and found["lost"] == pytest.approx(1.1) and found["holds"]
    bound = {"bound": 0.1, "figure": accuracy}
    for after, holds in ((0.85, True), (0.75, False)):
        found = claims.claim(_report(accuracy, (), bound), {"accuracy": 0.9}, {"accuracy": after}, {"accuracy": 0.5})
        assert found["kind"] == "certificate" and found["holds"] is holds and not found["vacuous"]
    useless = {"bound": 0.6, "figure": accuracy}
    assert claims.claim(_report(accuracy, (), useless), {"accuracy": 0.9}, {"accuracy": 0.9}, {"accuracy": 0.5})["vacuous"]
    nothing = claims.claim(_report(accuracy), {}, {}, {})
    assert nothing["kind"] == "none" and claims.law([true, false, nothing])["claims"] == 2
    assert Certificate(images=1, disagree=0, bound=0.5).bound == 0.5


def test_the_networks_of_before_stay_what_they_were(claims: ModuleType) -> None:
    """Tasks that are drawn since come after them, each at least ten times."""
    import json

    rows = json.loads(claims.RESULTS.read_text())["rows"]
    assert all({k: r[k] for k in claims.drawn(r["number"])} == claims.drawn(r["number"]) for r in rows)
    tasks = [claims.drawn(number)["task"] for number in range(claims.NETWORKS)]
    assert all(tasks.count(task) >= 10 for task in (*claims.TASKS, *claims.LATER))


@pytest.mark.slow
def test_the_first_networks_keep_the_law(claims: ModuleType) -> None:
    """One of every task at least: no run fails, what is bounded is bounded, one interval at most is missed."""
    pytest.importorskip("torchmetrics")
    rows = list(claims.rows_of(list(range(8)), {}))
    found = claims.law(rows)
    assert found["failed"] == 0 and found["claims"] >= 6 and {r["task"] for r in rows} == set(claims.TASKS)
    assert found["claims"] - found["hold"] <= 1, rows
    assert all(r["holds"] for r in rows if r["kind"] == "certificate")
