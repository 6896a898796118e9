"""A training loop that is not ours: what it is given, and what is looked at when it comes back.

def train(model, teacher, data, budget, hooks):
    optimizer = torch.optim.SGD(model.parameters(), lr=budget.lr, momentum=0.9)
    hooks.gradients(optimizer)
    ...
    return model
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.core import plural
from compress.data import Data
from compress.errors import CompressError, ConfigError, TrainError, one_line
from compress.recovery.training import GradientRewrite
from compress.signature import bare

PARAMETERS = ("model", "teacher", "data", "budget", "hooks")
_HOOKS = (
    "_forward_hooks _forward_pre_hooks _backward_hooks _backward_pre_hooks _state_dict_hooks _state_dict_pre_hooks "
    "_load_state_dict_pre_hooks _load_state_dict_post_hooks"
).split()
_INSIDE = ("module", "_orig_mod", "_fsdp_wrapped_module")
"""Where wrappers keep the network: data parallelism, torch.compile, fully sharded data parallelism."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much training is wanted; the loop may do it in its own way.

    Attributes:
        epochs: passes over the training images.
        lr: highest learning rate.
        batch: images a step.
        seed: of whatever is random.
        folder: the loop's own, for what it saves on the way; it lasts as long as the run.
    """

    epochs: int
    lr: float
    batch: int
    seed: int
    folder: Path


@dataclass
class Hooks:
    """What has to happen to the gradients between backward and step: nothing, as a rule.

    C-SGD draws filters together there, and kernel mode holds zeros. A loop that calls :meth:`gradients` once, or
    :meth:`rewrite` before every step, works with all methods.

    Attributes:
        model: the network whose gradients are meant: the one that the loop was given.
        change: what is done to them; None where nothing is.
        calls: how often it was.
    """

    model: nn.Module
    change: GradientRewrite | None = None
    calls: int = field(default=0, init=False)

    def gradients(self, optimizer: Any) -> None:
        """Has the gradients changed before each of an optimiser's steps.

        Args:
            optimizer: of torch, or a wrapper that holds one as ``optimizer``, as Accelerate's does.
        """
        if self.change is None:
            return
        while isinstance(inside := getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
            optimizer = inside
        optimizer.register_step_pre_hook(lambda stepping, args, kwargs: self.rewrite(float(stepping.param_groups[0]["lr"])))

    def rewrite(self, lr: float) -> None:
        """Changes the gradients in place; for loops that have no optimiser of torch.

        Args:
            lr: the learning rate of the step that follows.
        """
        if self.change is not None:
            self.change(self.model, lr)
            self.calls += 1


OwnLoop = Callable[[nn.Module, nn.Module, Data, Budget, Hooks], Any]
"""(network to train, unpruned network, data, budget, hooks) -> the network, trained."""


def loop_name(loop: OwnLoop) -> str:
    """``package.module:function``, as far as it can be told."""
    kind = loop if hasattr(loop, "__qualname__") else type(loop)
    return f"{kind.__module__}:{kind.__qualname__}"


def check_loop(loop: Any) -> None:
    """Looks at a loop before any work.

    Raises:
        ConfigError: it cannot be called with what a loop is given.
    """
    wanted = f"def train({', '.join(PARAMETERS)})"
    if not callable(loop):
        raise ConfigError(f"train is a {type(loop).__name__}, a function was wanted", hint=wanted)
    try:
        inspect.signature(loop).bind(*PARAMETERS)
    except TypeError as error:
        raise ConfigError(
            f"the training loop {loop_name(loop)}{inspect.signature(loop)} cannot be called with five arguments: {error}",
            hint=wanted,
        ) from error
    except ValueError:  # written in C: nothing is known of its arguments
        return


def run_loop(
    loop: OwnLoop,
    model: nn.Module,
    teacher: nn.Module,
    data: Data,
    budget: Budget,
    rewrite: GradientRewrite | None = None,
) -> nn.Module:
    """A copy of the network with the weights that somebody else's loop gave it, looked at.

    The loop is given copies; of what comes back only the tensors are taken, so that its wrappers, hooks and modes stay behind.

    Args:
        loop: looked at by :func:`check_loop`.
        model: where training starts; left as it is.
        teacher: the unpruned network; left as it is.
        data: the run's images.
        budget: how much training is wanted.
        rewrite: what has to happen to the gradients.

    Raises:
        TrainError: the loop failed, or gave back something else than the network that it was given, trained.
    """
    name = loop_name(loop)
    given = bare(copy.deepcopy(model)).train()
    guide = bare(copy.deepcopy(teacher)).eval().requires_grad_(False)
    before = _Seen.of(given)
    hooks = Hooks(given, rewrite)
    try:
        found = loop(given, guide, data, budget, hooks)
    except CompressError:
        raise
    except Exception as error:  # whatever the user's loop does
        raise TrainError(
            f"the training loop {name} failed: {type(error).__name__}: {one_line(error, 300)}",
            hint="--debug shows where; the same command goes on before the training",
        ) from error
    _check_returned(found, before, guide, name)
    state = {key: value.detach().cpu() for key, value in found.state_dict().items() if isinstance(value, Tensor)}
    _check_tensors(state, before.state, _tensors(guide), name)
    if rewrite is not None and hooks.calls == 0:
        raise TrainError(
            f"the training loop {name} never let its gradients be changed, which this method needs",
            hint="call hooks.gradients(optimizer) once, or hooks.rewrite(lr) between backward and step",
        )
    result = copy.deepcopy(model)
    result.load_state_dict(state)
    return result.eval()


# ---- what a loop gives back --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Seen:
    """A network before its training.

    Attributes:
        kind: its class.
        modules: name -> class and hooks.
        state: its tensors, copied.
    """

    kind: type
    modules: Mapping[str, tuple[type, tuple[int, ...]]]
    state: Mapping[str, Tensor]

    @staticmethod
    def of(model: nn.Module) -> _Seen:
        return _Seen(type(model), _modules(model), {k: v.detach().cpu().clone() for k, v in _tensors(model).items()})


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {key: value for key, value in model.state_dict().items() if isinstance(value, Tensor)}


def _modules(model: nn.Module) -> dict[str, tuple[type, tuple[int, ...]]]:
    """Name -> class, and how many hooks of each kind and forwards of its own it has."""
    return {
        name: (type(m), (*(len(getattr(m, kind, ())) for kind in _HOOKS), int("forward" in vars(m))))
        for name, m in model.named_modules()
    }


def _check_returned(found: Any, before: _Seen, teacher: nn.Module, name: str) -> None:
    """The object: the network itself, not a wrapper of it, nor another one; nothing left on its layers."""
    kind = before.kind.__name__
    if not isinstance(found, nn.Module):
        raise TrainError(
            f"the training loop {name} returned a {type(found).__name__}, the trained {kind} was wanted", hint="return model"
        )
    if found is teacher:
        raise TrainError(
            f"the training loop {name} returned the unpruned network, which was to be imitated only",
            hint="train and return its first argument",
        )
    if type(found) is not before.kind:
        inside = next((part for part in _INSIDE if isinstance(getattr(found, part, None), before.kind)), None)
        raise TrainError(
            f"the training loop {name} returned a {type(found).__name__}, the {kind} that it was given was wanted",
            hint=f"return what is inside the wrapper: model.{inside}" if inside else "train and return its first argument",
        )
    after = _modules(found)
    for where in (*before.modules, *after):
        old, new = before.modules.get(where), after.get(where)
        if old == new:
            continue
        place = f"{where or 'the network itself'} of the network that the training loop {name} returned"
        if old is None or new is None or old[0] is not new[0]:
            kinds = [layer[0].__name__ if layer is not None else "nothing" for layer in (old, new)]
            raise TrainError(
                f"{place} is a {kinds[1]}, it was a {kinds[0]}",
                hint="return the network before it is fused, wrapped or changed for inference",
            )
        raise TrainError(
            f"{place} has hooks, or a forward, that it did not have before",
            hint="remove the hooks at the end of the loop; with Accelerate: return accelerator.unwrap_model(model, "
            "keep_fp32_wrapper=False)",
        )


def _check_tensors(state: Mapping[str, Tensor], before: Mapping[str, Tensor], teacher: Mapping[str, Tensor], name: str) -> None:
    """The tensors: the same names, shapes and types, finite, and other numbers than before."""
    if list(state) != list(before) and set(state) != set(before):
        missing, extra = sorted(set(before) - set(state)), sorted(set(state) - set(before))
        raise TrainError(
            f"the network that the training loop {name} returned has {plural(len(missing), 'tensor')} too few {missing[:1]} "
            f"and {len(extra)} too many {extra[:1]}",
            hint="return the network that it was given, without a wrapper",
        )
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    wrong = next((key for key in before if shapes[key] != tuple(before[key].shape)), None)
    if wrong is not None:
        whole = shapes == {key: tuple(value.shape) for key, value in teacher.items()}
        raise TrainError(
            f"the training loop {name} returned {'the sizes of the unpruned network' if whole else 'other sizes'}: {wrong} is "
            f"{shapes[wrong]}, {tuple(before[wrong].shape)} was wanted",
            hint="some trainers build the network anew from its description: have them train the module that is given",
        )
    for key, value in state.items():
        if value.dtype != before[key].dtype:
            raise TrainError(
                f"the training loop {name} returned {key} in {value.dtype}, it was {before[key].dtype}",
                hint="return model.float(), or train with autocast",
            )
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise TrainError(
                f"the training loop {name} diverged: {key} is not finite", hint="lower the learning rate, or warm up longer"
            )
    if all(torch.equal(value, before[key]) for key, value in state.items()):
        raise TrainError(
            f"the training loop {name} returned the network as it was: no weight moved",
            hint="train the module that is given, not a copy of it, and return what was trained",
        )
    if set(state) == set(teacher) and all(torch.equal(value, teacher[key]) for key, value in state.items()):
        raise TrainError(
            f"the training loop {name} returned the unpruned network's weights", hint="train and return its first argument"
        )
