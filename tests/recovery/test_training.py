"""Laws of training: nothing of the caller's changes, and an interruption leaves no trace in the weights."""

from __future__ import annotations

import copy
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from compress.core.accuracy import Accuracy
from compress.core.randomness import derive
from compress.core.statistics import wilson
from compress.errors import DataError, TaskError, TrainError
from compress.evaluation.top1 import accuracy
from compress.networks.inference import computes_bf16, seeded
from compress.recovery.schedule import Schedule, learning_rate
from compress.recovery.training import GradientRewrite, fit
from compress.recovery.training_events import EpochDone, Resumed, TrainingProgress
from compress.recovery.training_state import FILE

CLASSES = 3


@dataclass(frozen=True)
class Blobs:
    """Noisy images of a class's pattern; ``augment`` adds noise that depends on the shuffle seed."""

    count: int = 70
    noise: float = 0.5
    seed: int = 5

    @property
    def digest(self) -> str:
        return f"blobs-{self.count}-{self.noise}-{self.seed}"

    def __len__(self) -> int:
        return self.count

    def batches(
        self, batch_size: int, *, shuffle_seed: int | None = None, augment: bool = False, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        patterns = torch.randn(CLASSES, 2, 6, 6, generator=torch.Generator().manual_seed(1))
        draw = torch.Generator().manual_seed(self.seed)
        labels = torch.arange(self.count) % CLASSES
        images = patterns[labels] + self.noise * torch.randn(self.count, 2, 6, 6, generator=draw)
        order = torch.arange(self.count)
        if shuffle_seed is not None:
            draw = torch.Generator().manual_seed(shuffle_seed)
            order = torch.randperm(self.count, generator=draw)
        for part in order[:limit].split(batch_size):
            batch = images[part]
            if augment:
                batch = batch + 0.1 * torch.randn(batch.shape, generator=draw)
            yield batch, labels[part]


def net(classes: int = CLASSES) -> nn.Sequential:
    with seeded(3):
        return nn.Sequential(
            nn.Conv2d(2, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, classes),
        )


SHORT = Schedule(epochs=2, lr=0.05, batch=16, precision="fp32")


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_it_learns_and_leaves_the_caller_alone() -> None:
    model = net().eval()
    before, state = weights(model), torch.get_rng_state()
    trained = fit(model, Blobs(), replace(SHORT, epochs=6))
    assert same(before, weights(model))
    assert not model.training and not trained.training
    assert torch.equal(state, torch.get_rng_state())
    fresh = Blobs(seed=9)
    assert accuracy(trained, fresh).top1 > 0.9 > accuracy(model, fresh).top1


def test_the_seed_decides_everything() -> None:
    torch.manual_seed(0)
    first = weights(fit(net(), Blobs(), SHORT))
    torch.manual_seed(1)
    assert same(first, weights(fit(net(), Blobs(), SHORT)))
    assert not same(first, weights(fit(net(), Blobs(), replace(SHORT, seed=1))))


class _Killed(Exception):
    pass


@cache
def _straight(distilled: bool, extra: float) -> nn.Module:
    return fit(net(), Blobs(), replace(SHORT, extra=extra), teacher=net() if distilled else None)


@settings(max_examples=8, deadline=None)
@given(stop=st.integers(1, 11), save_every=st.integers(1, 4), distilled=st.booleans())
def test_an_interruption_leaves_no_trace(
    tmp_path_factory: pytest.TempPathFactory, stop: int, save_every: int, distilled: bool
) -> None:
    """In whole passes of five steps, and in two fifths of a third one."""
    schedule = replace(SHORT, extra=0.4 if stop % 2 or stop > 9 else 0.0)
    folder = tmp_path_factory.mktemp("state")
    teacher = net() if distilled else None
    taken = 0

    def killer(model: nn.Module, lr: float) -> None:
        nonlocal taken
        taken += 1
        if taken == stop:
            raise _Killed

    straight = _straight(distilled, schedule.extra)
    with pytest.raises(_Killed):
        fit(net(), Blobs(), schedule, teacher=teacher, state_dir=folder, save_every=save_every, rewrite=GradientRewrite(killer))
    heard: list[object] = []
    resumed = fit(net(), Blobs(), schedule, teacher=teacher, state_dir=folder, save_every=save_every, listen=heard.append)
    assert same(weights(straight), weights(resumed))
    if stop > save_every:
        assert isinstance(heard[0], Resumed)
        assert (heard[0].epoch - 1) * 5 + heard[0].step == max(
            (stop - 1) // 5 * 5, (stop - 1) // 5 * 5 + (stop - 1) % 5 // save_every * save_every
        )
    # A finished training is not repeated.
    heard.clear()
    again = fit(net(), Blobs(), schedule, teacher=teacher, state_dir=folder, listen=heard.append)
    assert same(weights(straight), weights(again)) and len(heard) == 1
    assert isinstance(heard[0], Resumed) and heard[0].seconds > 0


@pytest.mark.slow
def test_a_killed_process_ends_with_the_same_weights(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from test_training import Blobs, SHORT, net\nfrom compress.recovery.training import GradientRewrite, fit\n"
        "n = 0\ndef rewrite(model, lr):\n    global n\n    n += 1\n    if n == 8: os.kill(os.getpid(), signal.SIGKILL)\n"
        "fit(net(), Blobs(), SHORT, state_dir=Path(sys.argv[1]), save_every=2, rewrite=GradientRewrite(rewrite))\n"
    )
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=env, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert same(weights(fit(net(), Blobs(), SHORT)), weights(fit(net(), Blobs(), SHORT, state_dir=tmp_path, save_every=2)))


def test_a_foreign_or_broken_state_is_refused(tmp_path: Path) -> None:
    fit(net(), Blobs(), SHORT, state_dir=tmp_path)
    for other in (
        lambda: fit(net(), Blobs(), replace(SHORT, lr=0.01), state_dir=tmp_path),
        lambda: fit(net(), Blobs(count=71), SHORT, state_dir=tmp_path),
        lambda: fit(net(), Blobs(), SHORT, teacher=net(), state_dir=tmp_path),
        lambda: fit(fit(net(), Blobs(), SHORT), Blobs(), SHORT, state_dir=tmp_path),
    ):
        with pytest.raises(TrainError, match="another training"):
            other()
    whole = (tmp_path / FILE).read_bytes()
    for junk in (whole[:-9], b"", b"not a state"):
        (tmp_path / FILE).write_bytes(junk)
        with pytest.raises(TrainError, match="not a state"):
            fit(net(), Blobs(), SHORT, state_dir=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [FILE]


def test_a_state_that_cannot_be_saved_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainError, match="cannot be saved"):
        fit(net(), Blobs(), SHORT, state_dir=tmp_path / "file")


def test_sgd_is_the_textbook_one() -> None:
    """One step, against Nesterov's rule written out: decay on matrices only, buffer = gradient at first."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, CLASSES))
    split, schedule = Blobs(count=16), replace(SHORT, epochs=1, batch=16, augment=False, weight_decay=0.1, warmup_epochs=0)
    images, labels = next(split.batches(16, shuffle_seed=derive(schedule.seed, "shuffle", 0)))
    weight, bias = model[1].weight, model[1].bias
    grads = torch.autograd.grad(F.cross_entropy(model(images), labels), [weight, bias])
    trained = fit(model, split, schedule)
    step = schedule.lr * (1 + schedule.momentum)
    torch.testing.assert_close(trained[1].weight, weight - step * (grads[0] + 0.1 * weight))
    torch.testing.assert_close(trained[1].bias, bias - step * grads[1])


def test_distillation_is_hintons() -> None:
    """One step of plain SGD follows the gradient of 0.3 * CE + 0.7 * T² * sum_c p (log p - log q)."""
    model, teacher = nn.Sequential(nn.Flatten(), nn.Linear(72, CLASSES)), net().eval()
    schedule = Schedule(
        1, 0.01, 16, momentum=0, weight_decay=0, warmup_epochs=0, distill=0.7, temperature=3, precision="fp32", augment=False
    )
    images, labels = next(Blobs(count=16).batches(16, shuffle_seed=derive(0, "shuffle", 0)))
    with torch.no_grad():
        p = (teacher(images) / 3).softmax(1)
    q = (model(images) / 3).softmax(1)
    loss = 0.3 * F.cross_entropy(model(images), labels) + 0.7 * 9 * (p * (p.log() - q.log())).sum(1).mean()
    (grad,) = torch.autograd.grad(loss, [model[1].weight])
    trained = fit(model, Blobs(count=16), schedule, teacher=teacher.train())
    torch.testing.assert_close(trained[1].weight, model[1].weight - 0.01 * grad)


def test_a_student_equal_to_its_teacher_stays() -> None:
    """Pure distillation has no gradient where both agree."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, CLASSES))
    schedule = replace(SHORT, distill=1.0, weight_decay=0.0, augment=False)
    stayed = fit(model, Blobs(), schedule, teacher=model)
    torch.testing.assert_close(stayed[1].weight, model[1].weight, atol=1e-6, rtol=0)
    pupil = nn.Sequential(nn.Flatten(), nn.Linear(72, CLASSES))
    taught = fit(pupil, Blobs(), replace(schedule, epochs=20, lr=0.03), teacher=model)
    images, _ = next(Blobs().batches(70))
    far, near = (F.l1_loss(m(images).softmax(1), model(images).softmax(1)) for m in (pupil, taught))
    assert near < far / 4


def test_frozen_layers_stay() -> None:
    model = net()
    for module in (model[0], model[1]):
        module.requires_grad_(False)
    trained = fit(model, Blobs(), SHORT)
    before, after = weights(model), weights(trained)
    stays = {k for k in before if torch.equal(before[k], after[k])}
    assert stays == {k for k in before if k.startswith(("0.", "1."))}
    assert not trained[0].weight.requires_grad and trained[4].weight.requires_grad


def test_the_copy_keeps_device_format_precision_and_modes() -> None:
    model = net().to(memory_format=torch.channels_last).half()
    trained = fit(model, Blobs(), SHORT)
    assert trained[4].weight.is_contiguous(memory_format=torch.channels_last)
    assert trained[4].weight.dtype == torch.float16 and trained.training
    assert net()[4].weight.is_contiguous() and fit(net(), Blobs(), SHORT)[4].weight.is_contiguous()


def test_rewrite_sees_gradients_and_rate() -> None:
    rates: list[float] = []

    def drop(model: nn.Module, lr: float) -> None:
        rates.append(lr)
        for p in model.parameters():
            assert p.grad is not None
            p.grad.zero_()

    model = net()
    trained = fit(model, Blobs(), replace(SHORT, weight_decay=0.0), rewrite=GradientRewrite(drop))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), trained.parameters(), strict=True))
    assert rates == [learning_rate(SHORT, epoch + step / 5) for epoch in range(2) for step in range(5)]
    rates.clear()
    longer = replace(SHORT, extra=0.4)
    fit(model, Blobs(), longer, rewrite=GradientRewrite(drop))
    assert rates == [learning_rate(longer, epoch + step / 5) for epoch in range(3) for step in range(5)][:12]
    assert learning_rate(longer, 2.4) == pytest.approx(0, abs=1e-12) and rates[-1] > 0


def test_events_tell_where_it_stands() -> None:
    heard: list[object] = []
    fit(net(), Blobs(count=200), replace(SHORT, batch=8), listen=heard.append)
    steps = [(e.epoch, e.step, e.steps) for e in heard if isinstance(e, TrainingProgress)]
    assert steps == [(1, 10, 25), (1, 20, 25), (1, 25, 25), (2, 10, 25), (2, 20, 25), (2, 25, 25)]
    ends = [e for e in heard if isinstance(e, EpochDone)]
    assert [e.epoch for e in ends] == [1, 2] and ends[1].loss < ends[0].loss and 0 < ends[0].accuracy < ends[1].accuracy <= 1


@dataclass(frozen=True)
class Unlabelled(Blobs):
    def batches(
        self, batch_size: int, *, shuffle_seed: int | None = None, augment: bool = False, limit: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in Blobs.batches(self, batch_size, shuffle_seed=shuffle_seed, augment=augment, limit=limit):
            yield images, torch.full_like(labels, -1)


def test_imitation_needs_no_labels() -> None:
    schedule = replace(SHORT, distill=1.0)
    blind, seeing = (fit(net(), split, schedule, teacher=net()) for split in (Unlabelled(), Blobs()))
    assert same(weights(blind), weights(seeing))
    for wrong in (lambda: fit(net(), Unlabelled(), SHORT, teacher=net()), lambda: fit(net(), Unlabelled(), schedule)):
        with pytest.raises(TrainError, match="have no labels"):
            wrong()
    with pytest.raises(DataError, match="have no labels"):
        accuracy(net(), Unlabelled())


@pytest.mark.parametrize("count", [17, 33])
def test_a_single_last_image_makes_no_step(count: int) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 4), nn.BatchNorm1d(4), nn.Linear(4, CLASSES))
    fit(model, Blobs(count=count), SHORT)


def test_a_diverging_loss_names_its_place() -> None:
    calls = 0

    def explode(model: nn.Module, lr: float) -> None:
        nonlocal calls
        calls += 1
        if calls == 7:
            next(model.parameters()).grad.fill_(math.nan)

    with pytest.raises(TrainError, match=r"became nan in epoch 2 of 2, step 3 of 5, at learning rate 0\.0") as caught:
        fit(net(), Blobs(), SHORT, rewrite=GradientRewrite(explode))
    assert "lower the learning rate" in caught.value.hint


def test_a_bad_state_is_never_saved(tmp_path: Path) -> None:
    broken = net()
    with torch.no_grad():
        broken[0].weight.fill_(math.nan)
    with pytest.raises(TrainError, match="step 1 of 5"):
        fit(broken, Blobs(), SHORT, state_dir=tmp_path, save_every=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda: fit(net(), Blobs(), SHORT, teacher=net(4)), "teacher has 4 classes, the network 3"),
        (lambda: fit(net(2), Blobs(), SHORT), "label 2 occurs, but the network has 2 classes"),
        (lambda: fit(net().requires_grad_(False), Blobs(), SHORT), "nothing to train"),
        (lambda: fit(net(), Blobs(count=1), SHORT), "1 training image cannot fill a step"),
        (lambda: fit(net()[:-2], Blobs(), SHORT), r"wanted are logits \(images, classes\)"),
        (lambda: Schedule(epochs=-1), "epochs is -1"),
        (lambda: Schedule(epochs=1, lr=math.nan), "lr is nan"),
        (lambda: Schedule(epochs=1, distill=1.5), r"distill is 1.5, but must be in \[0, 1\]"),
        (lambda: Schedule(epochs=1, precision="fp8"), "precision is 'fp8'"),
    ],
)
def test_bad_input_is_named(wrong: object, match: str) -> None:
    with pytest.raises((TrainError, TaskError), match=match):
        wrong()  # type: ignore[operator]


def test_no_epochs_is_a_copy() -> None:
    model = net()
    copied = fit(model, Blobs(), replace(SHORT, epochs=0))
    assert copied is not model and same(weights(model), weights(copied))


@given(epochs=st.integers(1, 50), warmup=st.floats(0, 3), at=st.floats(0, 1))
def test_the_rate_rises_then_falls(epochs: int, warmup: float, at: float) -> None:
    schedule = Schedule(epochs=epochs, lr=0.1, warmup_epochs=warmup)
    rate = learning_rate(schedule, at * epochs)
    assert 0 <= rate <= 0.1 * (1 + 1e-12)
    top = min(warmup, epochs / 2)
    assert learning_rate(schedule, top) == pytest.approx(0.1)
    assert learning_rate(schedule, epochs) == pytest.approx(0, abs=1e-12)
    later = learning_rate(schedule, min(at * epochs + 0.01, epochs))
    assert later >= rate if at * epochs + 0.01 <= top else at * epochs < top or later <= rate


def test_accuracy_counts_right() -> None:
    """A network that answers by a fixed rule, on labels that are known."""

    class Rule(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([5.0, 6.0, 0.0, 1.0, 2.0, 3.0, 4.0]).expand(len(x), 7) + self.p

    model = Rule()
    model.train()
    result = accuracy(model, Blobs(count=70), batch=32)
    assert result == Accuracy(correct=23, total=70, correct5=47) and model.training
    assert accuracy(model, Blobs(count=70), limit=5) == Accuracy(2, 5, 4)
    assert result.top1 == 23 / 70 and result.top5 == 47 / 70
    assert accuracy(net(), Blobs()).top5 is None
    with pytest.raises(DataError, match="no image"):
        accuracy(model, Blobs(count=0))


@given(total=st.integers(1, 10_000), share=st.floats(0, 1))
def test_the_interval_solves_its_equation(total: int, share: float) -> None:
    """Wilson's ends are where the observed fraction is z standard errors away."""
    correct = round(total * share)
    low, high = wilson(correct, total)
    p = correct / total
    assert 0 <= low <= p <= high <= 1
    for end in {low, high} - {0.0, 1.0}:
        assert abs(p - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / total), rel=1e-4, abs=1e-7)


@pytest.mark.skipif(not computes_bf16(torch.device("cpu")), reason="this CPU has no bf16 arithmetic")
def test_bf16_keeps_float32_weights() -> None:
    auto = fit(net(), Blobs(), replace(SHORT, precision="auto"))
    assert {v.dtype for v in auto.parameters()} == {torch.float32}
    assert same(weights(auto), weights(fit(net(), Blobs(), replace(SHORT, precision="bf16"))))
    assert not same(weights(auto), weights(fit(net(), Blobs(), SHORT)))


@given(seed=st.integers(0, 2**40), a=st.integers(0, 1000), b=st.integers(0, 1000))
def test_streams_are_named_and_apart(seed: int, a: int, b: int) -> None:
    assert derive(seed, "shuffle", a) == derive(seed, "shuffle", a)
    assert (derive(seed, "shuffle", a) == derive(seed, "shuffle", b)) == (a == b)
    assert derive(seed, "shuffle", a) != derive(seed, "step", a)
    assert 0 <= derive(seed, "x") < 2**63


def test_seeding_is_undone() -> None:
    state = torch.get_rng_state()
    with seeded(7) as again:
        first = torch.rand(3)
        again(7)
        assert torch.equal(first, torch.rand(3))
    assert torch.equal(state, torch.get_rng_state())
    copied = copy.deepcopy(state)
    with pytest.raises(ZeroDivisionError), seeded(1):
        torch.rand(1)
        raise ZeroDivisionError
    assert torch.equal(copied, torch.get_rng_state())


@pytest.mark.parametrize("lr", [1e3, 1e6, 1e12])
def test_a_training_that_diverges_says_so_whatever_its_losses_were(lr: float) -> None:
    """Statistics or weights may be infinite while every loss was finite: the cure is the learning rate."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
                          nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES))  # fmt: skip
    images = torch.randn(32, 3, 8, 8) * 1e30

    class Wild(Blobs):
        def batches(self, batch_size: int, **how: object) -> Iterator[tuple[Tensor, Tensor]]:
            for start in range(0, 32, batch_size):
                yield images[start : start + batch_size], torch.arange(start, start + batch_size)[: len(images)] % CLASSES

    try:
        trained = fit(model, Wild(count=32), Schedule(epochs=1, lr=lr, batch=16, augment=False))  # type: ignore[arg-type]
    except TrainError as error:
        assert "learning rate" in error.hint and "copy" not in error.hint
        return
    assert all(t.isfinite().all() for t in trained.state_dict().values() if t.is_floating_point())
