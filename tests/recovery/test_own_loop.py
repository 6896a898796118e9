"""A training loop that is not ours: what it is given, and everything that can be wrong with what it gives back."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from support.loops import MISTAKES, moved
from torch import nn

from compress.core import Cut, Plan
from compress.coupling import trace
from compress.data import Data
from compress.errors import CompressError, ConfigError
from compress.networks import Network
from compress.recovery import Budget, GradientRewrite, Hooks, check_loop, loop_name, run_loop
from compress.search import prunable
from compress.signature import Signature, taking_rows
from compress.surgery import cut


@pytest.fixture(scope="module")
def small(digits: tuple[Network, Data]) -> nn.Module:
    model = digits[0].model
    topology = trace(model, torch.zeros(1, 1, 8, 8))
    halves = {g: Cut(tuple(range(max(1, topology.by_id[g].size // 2)))) for g in prunable(topology, ())[0]}
    return cut(model, topology, Plan(halves))


@pytest.fixture
def budget(tmp_path: Path) -> Budget:
    return Budget(epochs=1, lr=0.01, batch=64, seed=0, folder=tmp_path)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_not_the_given_network_trained_is_refused(
    mistake: str, digits: tuple[Network, Data], small: nn.Module, budget: Budget
) -> None:
    network, data = digits
    wrong, said = MISTAKES[mistake]
    before = {k: v.clone() for net in (small, network.model) for k, v in net.state_dict().items()}
    with pytest.raises(CompressError, match=said) as caught:
        run_loop(lambda m, t, *_: wrong(m, t), small, network.model, data, budget)
    assert caught.value.hint and "\n" not in caught.value.message
    after = {k: v for net in (small, network.model) for k, v in net.state_dict().items()}
    assert all(torch.equal(value, after[key]) for key, value in before.items()), "the caller's networks changed"


def test_only_the_tensors_are_taken(digits: tuple[Network, Data], small: nn.Module, budget: Budget) -> None:
    """In training mode, frozen, on its way elsewhere: what goes on is as it was, but for the weights."""
    seen: dict[str, Any] = {}

    def loop(model: Any, teacher: Any, data: Data, given: Budget, hooks: Hooks) -> nn.Module:
        seen.update(training=model.training, teacher=teacher.training, data=data, budget=given)
        seen["frozen"] = not any(p.requires_grad for p in teacher.parameters())
        hooks.gradients(object())  # nothing is wanted of the gradients: anything will do
        return moved(model).train().requires_grad_(False)

    trained = run_loop(loop, small, digits[0].model, digits[1], budget)
    assert seen == {"training": True, "teacher": False, "data": digits[1], "budget": budget, "frozen": True}
    assert not trained.training and all(p.requires_grad for p in trained.parameters())
    changed = [k for k, v in trained.state_dict().items() if not torch.equal(v, small.state_dict()[k])]
    assert changed == [next(k for k, _ in small.named_parameters())]


@pytest.mark.slow
def test_a_compiled_network_is_refused_with_a_cure(digits: tuple[Network, Data], small: nn.Module, budget: Budget) -> None:
    with pytest.raises(CompressError, match="returned a OptimizedModule") as caught:
        run_loop(lambda m, *_: torch.compile(moved(m)), small, digits[0].model, digits[1], budget)
    assert "model._orig_mod" in caught.value.hint


def test_a_network_of_several_inputs_is_handed_out_as_the_user_knows_it(digits: tuple[Network, Data], budget: Budget) -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(3, 2)

        def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            return self.one(left) + self.one(right)

    model = Pair().eval()
    signature = Signature.of(model, (torch.zeros(1, 3), torch.zeros(1, 3)))
    rows = taking_rows(model, signature)

    def loop(given: nn.Module, teacher: nn.Module, *_: Any) -> nn.Module:
        assert type(given) is Pair and type(teacher) is Pair
        assert given(torch.zeros(2, 3), torch.ones(2, 3)).shape == (2, 2)
        return moved(given)

    trained = run_loop(loop, rows, rows, digits[1], budget)
    assert trained(torch.zeros(2, 6)).shape == (2, 2)


# ---- the hook --------------------------------------------------------------------------------------------------------


class _Holding:
    """A wrapper of an optimiser, as Accelerate's is."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer


@pytest.mark.parametrize("way", ["registered", "wrapped", "called"])
def test_the_rewrite_comes_between_backward_and_step(way: str) -> None:
    """Gradients are doubled before each step: the weights go twice as far, whichever way the hook is taken."""
    lrs: list[float] = []

    def double(model: nn.Module, lr: float) -> None:
        lrs.append(lr)
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.grad.mul_(2)

    def stepped(rewritten: bool) -> torch.Tensor:
        model = nn.Linear(4, 1, bias=False)
        nn.init.ones_(model.weight)
        hooks = Hooks(model, GradientRewrite(double) if rewritten else None)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
        if way != "called":
            hooks.gradients(optimizer if way == "registered" else _Holding(optimizer))
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(1, 4)).sum().backward()
            if way == "called":
                hooks.rewrite(0.25)
            optimizer.step()
        assert hooks.calls == (3 if rewritten else 0)
        return 1 - model.weight.detach()

    assert torch.equal(stepped(True), 2 * stepped(False)) and lrs == [0.25] * 3


def test_a_rewrite_that_never_happened_is_told(digits: tuple[Network, Data], small: nn.Module, budget: Budget) -> None:
    with pytest.raises(CompressError, match="never let its gradients be changed"):
        run_loop(lambda m, *_: moved(m), small, digits[0].model, digits[1], budget, GradientRewrite(lambda m, lr: None))


# ---- before any work -------------------------------------------------------------------------------------------------


def test_a_loop_that_cannot_be_called_is_refused_before_any_work() -> None:
    for wrong in (lambda: None, lambda model, data: model, lambda a, b, c, d, e, f: a, "package.module:train", None):
        with pytest.raises(ConfigError) as caught:
            check_loop(wrong)
        assert "def train(model, teacher, data, budget, hooks)" in caught.value.hint
    for right in (lambda *five: five[0], lambda a, b, c, d, e, f=1: a, partial(lambda x, a, b, c, d, e: a, 1)):
        check_loop(right)


def test_a_loop_is_named_as_it_is_imported() -> None:
    assert loop_name(moved) == "support.loops:moved"  # type: ignore[arg-type]


def test_the_loop_that_the_document_shows_runs(digits: tuple[Network, Data], small: nn.Module, budget: Budget) -> None:
    text = (Path(__file__).parents[2] / "docs" / "own-loop.md").read_text()
    shown = re.search(r"```python\n(import torch\n.*?)```", text, re.DOTALL)
    assert shown is not None
    names: dict[str, Any] = {}
    exec(shown[1], names)
    trained = run_loop(names["train"], small, digits[0].model, digits[1], budget)
    assert not torch.equal(next(trained.parameters()), next(small.parameters()))
