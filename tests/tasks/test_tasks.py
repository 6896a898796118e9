"""What every task promises: imitation that sees any difference, scores that are right, and changes that bound what is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torchmetrics.functional.classification import multilabel_f1_score

from compress.core import bounded_mean, mean_interval, pooled_difference, resampled, upper, wilson
from compress.data import examples_in
from compress.errors import CompressError
from compress.tasks import Task, cut_out, first_of, task_of

ANSWERS: dict[str, tuple[Callable[[torch.Generator, int], Tensor], Callable[[torch.Generator, int], Tensor]]] = {
    "classification": (lambda g, n: torch.randn(n, 4, generator=g), lambda g, n: torch.randint(0, 4, (n,), generator=g)),
    "binary": (lambda g, n: torch.randn(n, 1, generator=g), lambda g, n: torch.randint(0, 2, (n,), generator=g)),
    "multilabel": (
        lambda g, n: torch.randn(n, 5, generator=g),
        lambda g, n: torch.randint(0, 2, (n, 5), generator=g).float(),
    ),
    "regression": (lambda g, n: 9 + 3 * torch.randn(n, 3, generator=g), lambda g, n: 9 + 3 * torch.randn(n, 3, generator=g)),
    "regression:metric=RMSE,unit=px": (
        lambda g, n: 9 + 3 * torch.randn(n, 3, generator=g),
        lambda g, n: 9 + 3 * torch.randn(n, 3, generator=g),
    ),
}
BOUNDED = st.sampled_from(sorted(ANSWERS))
ANSWERS["multilabel:metric=F1"] = ANSWERS["multilabel"]  # nothing bounds it without targets
NAMED = st.sampled_from(sorted(ANSWERS))


class Said(nn.Module):
    """Says what it was given: a batch's inputs are its answers."""

    def forward(self, answers: Tensor) -> Tensor:
        return answers


def drawn(name: str, seed: int, images: int = 40) -> tuple[Task, Tensor, Tensor, Tensor]:
    """A task, two networks' answers, the second near the first, and targets."""
    generator = torch.Generator().manual_seed(seed)
    answer, target = ANSWERS[name]
    before = answer(generator, images)
    noise = 0.5 * torch.randn(before.shape, generator=generator)
    return task_of(name), before, before + noise, target(generator, images)


def value(task: Task, answers: Tensor, targets: Tensor) -> float:
    return task.scored(Said(), [(answers[:24], targets[:24]), (answers[24:], targets[24:])]).value


def said_by(name: str, answers: Tensor) -> Tensor:
    """Targets that these answers are right about."""
    kinds = {"classification": lambda a: a.argmax(1), "binary": lambda a: (a[:, 0] > 0).long()}
    return kinds.get(name, lambda a: (a > 0).float() if name == "multilabel" else a)(answers)


@given(BOUNDED, st.integers(0, 10**6), st.booleans())
def test_what_changed_bounds_what_was_lost(name: str, seed: int, perfect: bool) -> None:
    """Whatever the targets are: the claim of every certificate; of a network without fault, what changed is what was lost."""
    task, before, after, targets = drawn(name, seed)
    targets = said_by(name, before) if perfect else targets
    assert task.bounded is not None and task.bounded == task.figure
    lost = task.bounded.worse(value(task, before, targets), value(task, after, targets))
    changes = task.change(after, before)
    assert changes is not None and changes.shape == (40,) and bool((changes >= 0).all())
    mean = float(changes.mean())
    bound = mean**0.5 if task.root else mean
    assert lost <= bound + 1e-9 and (not perfect or lost == pytest.approx(bound))
    assert float(task.change(before, before).sum()) == 0  # type: ignore[union-attr]


@given(NAMED | st.just("outputs"), st.integers(0, 10**6), st.floats(0.05, 100))
def test_imitation_sees_an_offset_that_all_images_share(name: str, seed: int, offset: float) -> None:
    """Softmax over a column of numbers does not, which cost a landmark regressor nine pixels."""
    task, before, _, _ = drawn(name if name in ANSWERS else "regression", seed)
    task = task_of(name)
    moved = before.clone()
    moved[:, 0] += offset
    same, off = float(task.imitate(before, before)), float(task.imitate(moved, before))
    assert abs(same) < 1e-6 and off > 1e-4


@given(NAMED, st.integers(0, 10**6))
def test_a_loss_and_a_gradient_target_depend_on_the_answers(name: str, seed: int) -> None:
    task, before, after, targets = drawn(name, seed)
    for made in (lambda x: task.loss(x, (x, targets)), lambda x: task.imitate(x, before), task.gradient_target):
        answers = after.clone().requires_grad_(True)
        made(answers).backward()
        assert answers.grad is not None and bool(answers.grad.isfinite().all()) and float(answers.grad.abs().sum()) > 0


@given(NAMED, st.integers(0, 10**6))
def test_a_score_does_not_depend_on_the_batches(name: str, seed: int) -> None:
    task, before, _, targets = drawn(name, seed)
    whole = task.scored(Said(), [(before, targets)])
    parts = task.scored(Said(), [(before[i : i + 7], targets[i : i + 7]) for i in range(0, 40, 7)])
    assert whole.value == pytest.approx(parts.value, rel=1e-6) and whole.images == parts.images == 40
    assert whole.low <= whole.value <= whole.high and whole.per_image is not None
    assert task.pooled(whole.per_image) == pytest.approx(whole.value, rel=1e-6)


@pytest.mark.parametrize("name", ANSWERS)
def test_perfect_answers_score_best(name: str) -> None:
    task, _, _, targets = drawn(name, 0)
    said = {"classification": lambda t: nn.functional.one_hot(t, 4).float(), "binary": lambda t: t[:, None] - 0.5}
    answers = said.get(name, lambda t: t - 0.5 if task.name == "multilabel" else t)(targets)
    assert task.figure is not None
    assert value(task, answers, targets) == (1.0 if task.figure.higher else 0.0)
    task.check(answers, (answers, targets))
    assert task_of(task.spec) == task


@given(st.integers(0, 10**6), st.booleans())
def test_f1_is_torchmetrics_and_its_interval_is_that_of_a_figure_that_decides(seed: int, silent: bool) -> None:
    task, before, _, targets = drawn("multilabel:metric=F1", seed)
    before = before.abs().neg() if silent else before  # a network that names nothing has 0, not NaN
    score = task.score(Said(), [(before, targets)])["F1 (micro)"]
    assert score.value == pytest.approx(float(multilabel_f1_score(before > 0, targets.int(), num_labels=5, average="micro")))
    assert score.low <= score.value <= score.high and (silent or score.low < score.value < score.high)
    assert score.per_image is not None and task.pooled(score.per_image) == pytest.approx(score.value, rel=1e-6)
    assert task_of("multilabel").score(Said(), [(before, targets)])["F1 (micro)"].low == score.low
    assert task.error(Said(), [(before, targets)], 0.0) == pytest.approx(1 - score.value)
    assert task.figure is not None and task.figure.name == "F1 (micro)" and task.bounded != task.figure


def test_the_interval_of_f1_holds_it_in_nearly_all_lives() -> None:
    """The truth is that of a population from which images are drawn; errors of one image go together."""
    generator = torch.Generator().manual_seed(0)
    task, hard = task_of("multilabel:metric=F1"), torch.rand(20_000, 1, generator=generator)
    targets = (torch.rand(20_000, 5, generator=generator) < 0.4).float()
    answers = targets - 0.5 + hard * torch.randn(20_000, 5, generator=generator)
    truth, held = value(task, answers, targets), 0
    for _ in range(40):
        some = torch.randint(20_000, (150,), generator=generator)
        score = task.scored(Said(), [(answers[some], targets[some])])
        held += score.low <= truth <= score.high
    assert held >= 33, "of 40 at 95 %: fewer than 33 with a probability of 0.1 %"


@pytest.mark.parametrize("name", ["multilabel", "multilabel:metric=F1", "segmentation"])
@pytest.mark.parametrize("right", [True, False])
def test_no_share_is_told_without_doubt(name: str, right: bool) -> None:
    """All or none of a few images: the bootstrap's and Student's intervals are points there, and the next image may differ."""
    task, shape = task_of(name), (30, 2, 4, 4) if name == "segmentation" else (30, 2)
    targets = torch.zeros(30, 4, 4, dtype=torch.long) if name == "segmentation" else torch.ones(30, 2)
    answers = torch.ones(shape)
    if name == "segmentation":
        answers[:, 1 if right else 0] = 0
    found = task.score(Said(), [(answers if right or name == "segmentation" else -answers, targets)])
    for figure, score in found.items():
        assert (score.value, score.low, score.high) == (
            (1.0, wilson(30, 30)[0], 1.0) if right else (0.0, 0.0, wilson(0, 30)[1])
        ), figure


WRONG: list[tuple[str, Any, Any]] = [
    ("classification", torch.zeros(4, 1), torch.zeros(4).long()),
    ("classification", torch.zeros(4, 3, 8, 8), torch.zeros(4).long()),
    ("classification", torch.zeros(4, 3), torch.tensor([0, 1, 2, 3])),
    ("classification", torch.zeros(4, 3), torch.zeros(4)),
    ("binary", torch.zeros(4, 2), torch.zeros(4)),
    ("binary", torch.zeros(4, 1), torch.tensor([0, 1, 2, 0])),
    ("multilabel", torch.zeros(4, 3), torch.zeros(4, 2)),
    ("multilabel", torch.zeros(4, 3), torch.full((4, 3), 0.5)),
    ("regression", torch.zeros(4, 3), torch.zeros(4, 2)),
    ("regression", torch.zeros(4, 1), torch.full((4,), torch.nan)),
]


@pytest.mark.parametrize(("name", "answers", "targets"), WRONG)
def test_wrong_answers_and_targets_are_named(name: str, answers: Tensor, targets: Tensor) -> None:
    """Where they are looked at first, and in every later batch that is scored or trained on: no figure is made of them."""
    task, batch = task_of(name), (answers, targets)
    for look in (
        lambda: task.check(answers, batch),
        lambda: task.scored(Said(), [batch]),
        lambda: task.error(Said(), [batch], 1.0),
        lambda: task.check_step(answers, None, batch, 0.0),
    ):
        with pytest.raises(CompressError) as caught:
            look()
        assert caught.value.hint


def test_regression_in_a_column_or_a_row_is_the_same() -> None:
    task = task_of("regression")
    column, row = torch.arange(4.0)[:, None], torch.arange(4.0)
    assert task.scored(Said(), [(column, row + 1)]).value == task.scored(Said(), [(row, column + 1)]).value == 1.0


# ---- statistics ------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.sampled_from([0.02, 0.2, 0.5]), st.sampled_from([30, 200]))
def test_a_bounded_mean_is_above_what_it_bounds_in_nearly_all_lives(seed: int, mean: float, images: int) -> None:
    rng = np.random.default_rng(seed)
    lives = [rng.beta(0.3 * mean, 0.3 * (1 - mean), images) for _ in range(40)]
    assert sum(bounded_mean(row, True) < mean for row in lives) <= 7  # of 40 at 5 %: more with a probability of 0.3 %
    lives = [rng.exponential(mean, images) for _ in range(40)]
    assert sum(bounded_mean(row, False) < mean for row in lives) <= 8


@given(st.integers(0, 50), st.integers(50, 300))
def test_whole_changes_are_counted_exactly(changed: int, images: int) -> None:
    row = np.zeros(images)
    row[:changed] = 1
    assert bounded_mean(row, True) == upper(changed, images) and bounded_mean(row, True) > row.mean()
    assert bounded_mean(0.5 * row, True) > 0.5 * row.mean()


def test_intervals_cover_and_shrink() -> None:
    rng = np.random.default_rng(0)
    few, many = rng.normal(3, 1, 30), rng.normal(3, 1, 3000)
    assert mean_interval(few)[0] < 3 < mean_interval(few)[1]
    narrow, wide = (np.diff(mean_interval(x))[0] for x in (many, few))
    assert narrow < wide / 5
    rows = rng.normal(3, 1, (200, 1))
    low, high = resampled(rows, lambda r: float(r.mean()))
    assert low == pytest.approx(mean_interval(rows[:, 0])[0], abs=0.05) and high == pytest.approx(
        mean_interval(rows[:, 0])[1], abs=0.05
    )


def test_pairs_are_told_apart_where_single_scores_are_not() -> None:
    """Images differ by far more than the networks do: on the same images the smaller one is surely better."""
    rng = np.random.default_rng(0)
    hard = rng.exponential(2, (300, 1))
    ours, theirs = hard + 0.1, hard + 0.2 + rng.normal(0, 0.05, (300, 1))
    found = pooled_difference([ours], [theirs], lambda r: float(r.mean()), higher=False)
    assert found.verdict == "ahead" and found.low < found.mean < found.high < 0
    assert pooled_difference([theirs], [ours], lambda r: float(r.mean()), higher=False).verdict == "behind"


def test_pairs_without_any_difference_are_no_certainty() -> None:
    """Of a share: all images right before and after, which thirty say with less doubt than ten."""
    said = [pooled_difference([np.ones((n, 1))], [np.ones((n, 1))], lambda r: float(r.mean()), share=True) for n in (10, 30)]
    assert said[0].low < said[1].low < 0 < said[1].high < said[0].high and all(d.mean == 0 for d in said)
    assert all(d.verdict == "not distinguishable" for d in said)


# ---- batches ---------------------------------------------------------------------------------------------------------


@given(st.integers(1, 30), st.integers(1, 9), st.integers(0, 40))
def test_the_first_images_of_any_batches(images: int, batch: int, wanted: int) -> None:
    x = torch.arange(float(images))
    boxes = [{"boxes": torch.full((i % 3, 4), float(i))} for i in range(images)]
    batches = [({"image": x[i : i + batch]}, boxes[i : i + batch]) for i in range(0, images, batch)]
    found = list(first_of(batches, wanted))
    kept = min(images, wanted) if wanted else images
    assert torch.equal(torch.cat([b[0]["image"] for b in found]), x[:kept]) and sum(map(examples_in, found)) == kept
    assert [len(b["boxes"]) for _, boxes in found for b in boxes] == [i % 3 for i in range(kept)]


def test_a_part_of_a_batch_keeps_what_has_no_row_an_image() -> None:
    batch = {"x": torch.arange(4), "scale": torch.ones(2), "name": "a"}
    part = cut_out(batch, slice(1, 3))
    assert part["x"].tolist() == [1, 2] and len(part["scale"]) == 2 and part["name"] == "a"
