"""Which architecture a state_dict belongs to, from its keys and shapes alone."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from compress.core import plural
from compress.errors import CheckpointError
from compress.networks.architecture import Architecture, Scalar, Zoo, accepts, factory_of, skeleton
from compress.networks.state_dicts import Form

Shape = tuple[int, ...]

# Networks of timm that hold the same tensors as one of torchvision and compute something else (blurred or averaged pools).
SIBLINGS: Mapping[str, tuple[str, ...]] = {"resnet18": ("resnetblur18",), "resnet50": ("resnetaa50", "resnetblur50")}

# Some architectures have optional parts that change their keys.
_FORMS: Mapping[str, tuple[Mapping[str, Scalar], ...]] = {
    "torchvision:googlenet": ({"aux_logits": False}, {"aux_logits": True}),
    "torchvision:inception_v3": ({"aux_logits": True}, {"aux_logits": False}),
}


@dataclass(frozen=True, slots=True)
class Match:
    """An architecture whose keys and shapes are those of a state_dict.

    Attributes:
        architecture: what was recognised.
        state: the tensors under its keys.
        form: which of the forms it was.
    """

    architecture: Architecture
    state: Mapping[str, Tensor]
    form: Form


@dataclass(frozen=True, slots=True)
class Gap:
    """How far a state_dict is from an architecture: tensors that agree, and the first that does not."""

    name: str
    equal: int
    of: int
    first: str


@dataclass(frozen=True, slots=True)
class Shapes:
    """The keys and shapes of an architecture's tensors, and which of them a file may lack."""

    name: str
    kwargs: Mapping[str, Scalar]
    own: Mapping[str, Shape]
    optional: frozenset[str]


def search(forms: Sequence[Form], names: Iterable[str], zoo: Zoo, known: dict[str, Shapes] | None = None) -> Match | Gap | None:
    """The architecture whose keys and shapes are exactly those of the tensors, or the nearest; None where there is no name.

    The number of classes and of input channels is read from the tensors that depend on it.

    Args:
        forms: the same tensors under different keys; of those that fit, the one with most taken off is taken.
        names: of architectures, the likeliest first.
        zoo: networks by name, beside the libraries'.
        known: keys and shapes of architectures that were built before; filled.

    Raises:
        CheckpointError: an architecture cannot be built.
    """
    nearest: Gap | None = None
    known = {} if known is None else known
    for name in names:
        factory = factory_of(name, zoo)
        for kwargs in _FORMS.get(name, ({},)):
            label = f"{name} {kwargs}"
            built = known[label] if label in known else _built(name, factory, kwargs)
            known[label] = built
            for form in reversed(forms):
                state = _under(form.state, built.own)
                found = _fit(built, factory, state)
                if isinstance(found, Architecture):
                    return Match(found, state, form)
                if nearest is None or _nearness(found) > _nearness(nearest):
                    nearest = found
    return nearest


def _nearness(gap: Gap) -> tuple[float, int]:
    return gap.equal / max(gap.of, 1), gap.equal


def refusal(gaps: Sequence[Gap], tensors: int, arch: str | None, inside: str = "") -> CheckpointError:
    """What to say where nothing fits: the nearest and the first difference.

    Args:
        gaps: the nearest of every place that was looked at.
        tensors: how many there are.
        arch: the architecture that was asked for.
        inside: what else the file holds.
    """
    if not gaps:
        return CheckpointError(
            f"no known network is near these {plural(tensors, 'tensor')} in size{inside}",
            hint="name the network with --arch (timm:NAME or package.module:factory)",
        )
    nearest = max(gaps, key=_nearness)
    asked = f"the tensors are not those of {nearest.name}" if arch is not None else "no known network has these tensors"
    detail = f"the nearest is {nearest.name}, " if arch is None else ""
    return CheckpointError(
        f"{asked}: {detail}{nearest.equal} of {nearest.of} agree, the first difference: {nearest.first}{inside}",
        hint="name the network with --arch (zoo name, torchvision:NAME, timm:NAME or package.module:factory); "
        "one that was pruned must be given as the file that compress saved",
    )


def doubts(name: str) -> tuple[str, ...]:
    """What else a network might be that was recognised under a name."""
    library, _, bare = name.rpartition(":")
    others = SIBLINGS.get(bare, ()) if library == "torchvision" and importlib.util.find_spec("timm") else ()
    if not others:
        return ()
    options = ", ".join(f"timm:{o}" for o in others)
    return (
        f"recognised as {name}; {options} have the same keys and shapes and compute something else: say --arch if it is one",
    )


def of_torchvision(state: Mapping[str, Tensor]) -> Iterator[str]:
    """Names of torchvision's networks that such tensors may be of, those with the nearest number of parameters first."""
    from torchvision import models

    learnt = {k: t for k, t in state.items() if not k.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    size = sum(t.numel() for t in learnt.values())
    # torchvision records sizes for 1000 classes; any linear layer may be the head with another number of them.
    sizes = {size} | {size + (1000 - t.shape[0]) * (t.shape[1] + 1) for t in learnt.values() if t.dim() == 2}

    def distance(name: str) -> float:
        known = [w.meta["num_params"] for w in models.get_model_weights(name)]
        return min(abs(known[0] - s) for s in sizes) if known else float("inf")

    names = sorted(models.list_models(module=models), key=distance)
    # Neither a network of a third of the size nor one of twenty times the size is it, or a nearest that helps anyone.
    for name in names:
        known = next((w.meta["num_params"] for w in models.get_model_weights(name)), size)
        if min(sizes) / 3 <= known <= 20 * max(sizes):
            yield f"torchvision:{name}"


def optional_keys(model: nn.Module) -> frozenset[str]:
    """Entries that a state_dict may lack: counters that old batch norms did not have, and default channel tables."""
    tables = {
        f"{name}.sources" if name else "sources" for name, m in model.named_modules() if getattr(m, "is_channel_map", False)
    }
    return frozenset(k for k in model.state_dict() if k.endswith("num_batches_tracked")) | tables


def _built(name: str, factory: Callable[..., nn.Module], kwargs: Mapping[str, Scalar]) -> Shapes:
    try:
        model = skeleton(factory, kwargs)
        own = {k: tuple(t.shape) for k, t in model.state_dict().items() if isinstance(t, Tensor)}
        return Shapes(name, kwargs, own, optional_keys(model))
    except Exception as error:  # a factory is anybody's code
        raise CheckpointError(
            f"{name} cannot be built with {kwargs}: {type(error).__name__}: {error}",
            hint="give a function that returns the network and needs no arguments",
        ) from error


def _under(state: Mapping[str, Tensor], own: Mapping[str, Shape]) -> Mapping[str, Tensor]:
    """The tensors under the one attribute that holds all of the architecture's, where they were saved without it."""
    prefix = ""
    while True:
        parts = {k[len(prefix) :].partition(".")[0] for k in own}
        if len(parts) != 1 or any(k[len(prefix) :] in parts for k in own):
            break
        prefix += f"{parts.pop()}."
        if own.keys() >= (named := {prefix + k: v for k, v in state.items()}).keys():
            return named
    return state


def _fit(built: Shapes, factory: Callable[..., nn.Module], state: Mapping[str, Tensor]) -> Architecture | Gap:
    for _ in range(2):
        gap = _compare(built.name, built.own, built.optional, state)
        if not gap.first:
            return Architecture(built.name, built.kwargs)
        if set(built.own) - built.optional - set(state) or set(state) - set(built.own):
            return gap
        learnt = _arguments(built.own, state, factory, built.name)
        if not learnt or learnt.items() <= built.kwargs.items():
            return gap
        built = _built(built.name, factory, {**built.kwargs, **learnt})
    return gap


def _compare(name: str, own: Mapping[str, Shape], optional: frozenset[str], state: Mapping[str, Tensor]) -> Gap:
    # A key that the other side lacks is seldom the first difference that helps: shapes of common keys come first in order.
    equal, first = 0, ""
    for key, shape in own.items():
        there = tuple(state[key].shape) if key in state else None
        if there == shape:
            equal += 1
        elif not first and (there is not None or key not in optional):
            seen = "missing" if there is None else str(there)
            first = f"{key} is {seen}, {name} has {shape}"
    extra = next((k for k in state if k not in own), None)
    if not first and extra is not None:
        first = f"{extra[:100]} is {tuple(state[extra].shape)}, {name} has none"
    return Gap(name, equal, len(set(own) - optional | set(state)), first)


def _arguments(
    own: Mapping[str, Shape], state: Mapping[str, Tensor], factory: Callable[..., nn.Module], name: str
) -> dict[str, Scalar]:
    """Numbers of classes and input channels, from the tensors that differ in their first or second dimension only."""
    differ = {k: (s, tuple(state[k].shape)) for k, s in own.items() if k in state and tuple(state[k].shape) != s}
    classes = {b[0] for a, b in differ.values() if a[1:] == b[1:] and len(a) == len(b)}
    channels = {b[1] for a, b in differ.values() if len(a) == len(b) == 4 and a[0] == b[0] and a[2:] == b[2:]}
    learnt: dict[str, Scalar] = {}
    if len(classes) == 1 and accepts(factory, name, "num_classes"):
        learnt["num_classes"] = int(*classes)
    incoming = next((a for a in ("in_channels", "in_chans") if accepts(factory, name, a)), None)
    if len(channels) == 1 and incoming is not None:
        learnt[incoming] = int(*channels)
    return learnt
