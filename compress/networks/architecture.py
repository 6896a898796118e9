"""A network by name: from the zoo, torchvision, timm or the user's own code."""

from __future__ import annotations

import importlib.util
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from compress.core import did_you_mean, import_entrypoint, is_entrypoint
from compress.errors import CheckpointError
from compress.networks.inference import seeded

Zoo = Mapping[str, Callable[..., nn.Module]]
Scalar = int | float | str | bool

UNNAMED = "pickled:"
"""Prefix of the name of a network that came as a pickled object and that no factory is known for."""

_DOWNLOADS = (
    "weights",
    "weights_backbone",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "cache_dir",
)
_NO_INIT = ("googlenet", "inception_v3")  # their own initialisation takes half a minute and is overwritten anyway
_LARGEST = 4_000_000_000
_LARGEST_ARGUMENT = {"num_classes": 1_000_000}
_OTHERWISE = 4096


@dataclass(frozen=True, slots=True)
class Architecture:
    """What to build before tensors are put in.

    Attributes:
        name: ``resnet20`` (the zoo), ``torchvision:resnet50``, ``timm:resnet50`` or ``package.module:factory``;
            ``onnx:`` and a digest for a network that came from an ONNX file, whose structure lies beside its tensors.
        kwargs: what the factory is called with.
    """

    name: str
    kwargs: Mapping[str, Scalar] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        object.__setattr__(self, "kwargs", MappingProxyType(dict(sorted(self.kwargs.items()))))

    def __hash__(self) -> int:
        return hash((self.name, tuple(self.kwargs.items())))

    def __reduce__(self) -> tuple[Any, ...]:
        return (Architecture, (self.name, dict(self.kwargs)))

    @property
    def runs_user_code(self) -> bool:
        """Whether building it imports a module that is neither the zoo's, torchvision's nor timm's."""
        return ":" in self.name and self.name.partition(":")[0] not in ("torchvision", "timm", "onnx")

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form."""
        return {"name": self.name, "kwargs": dict(self.kwargs)}

    @staticmethod
    def from_json(data: Any) -> Architecture:
        """Reads what :meth:`to_json` wrote, as from a stranger.

        Raises:
            CheckpointError: it is something else, or an argument would download or cannot be a size.
        """
        try:
            name, kwargs = data["name"], dict(data["kwargs"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"not the description of an architecture: {error!r}") from error
        if not isinstance(name, str) or not 0 < len(name) < 200:
            raise CheckpointError("the architecture has no usable name")
        for key, value in kwargs.items():
            most = _LARGEST_ARGUMENT.get(str(key), _OTHERWISE)
            number = isinstance(value, int | float) and math.isfinite(value) and abs(value) <= most
            if key in _DOWNLOADS or not str(key).isidentifier() or not (number or isinstance(value, str)):
                raise CheckpointError(f"architecture {name!r}: the argument {str(key)[:40]!r} is not accepted from a file")
        return Architecture(name, kwargs)


def canonical(name: str, zoo: Zoo) -> str:
    """The full name of what a user typed: bare names are the zoo's, else torchvision's.

    Raises:
        CheckpointError: nothing has this name; the hint lists the nearest.
    """
    library, colon, rest = name.partition(":")
    if name in zoo or library == "timm" or (colon and library != "torchvision" and is_entrypoint(name)):
        return name
    from torchvision import models

    known = models.list_models(module=models)
    wanted = rest if library == "torchvision" else name
    if wanted in known:
        return f"torchvision:{wanted}"
    meant = did_you_mean(wanted, [*zoo, *known], most=3)
    listed = "`compress models` lists the zoo; torchvision:NAME, timm:NAME and package.module:factory work too"
    raise CheckpointError(f"no architecture is called {name!r}", hint=f"{meant} {listed}".lstrip())


def factory_of(name: str, zoo: Zoo) -> Callable[..., nn.Module]:
    """The function that makes an untrained network of a name.

    Raises:
        CheckpointError: there is none.
    """
    library, colon, rest = name.partition(":")
    if name in zoo:
        return zoo[name]
    if library == "torchvision":
        return _torchvision(canonical(name, zoo).partition(":")[2])
    if library == "timm":
        return _timm(rest)
    if name.startswith(UNNAMED):
        raise CheckpointError(
            f"the network was a pickled {name.removeprefix(UNNAMED)}, which no known factory makes",
            hint="add --arch package.module:factory, a function that returns the untrained network",
        )
    if library == "onnx":
        raise CheckpointError(
            f"the network {name} came from an ONNX file, and its structure is not beside its tensors",
            hint="give the ONNX file, or the model.safetensors of a run that pruned it",
        )
    if not colon:
        raise CheckpointError(f"no architecture is called {name!r}", hint="`compress models` lists the zoo")
    try:
        found = import_entrypoint(name)
    except ImportError as error:
        raise CheckpointError(f"--arch {name}: {error}", hint="check that it can be imported from here") from error
    if not callable(found):
        raise CheckpointError(f"--arch {name} is a {type(found).__name__}, a function that returns the network was wanted")
    return found  # type: ignore[no-any-return]


def _torchvision(name: str) -> Callable[..., nn.Module]:
    from torchvision import models

    fixed: dict[str, Any] = {"weights": None} | ({"init_weights": False} if name in _NO_INIT else {})
    return lambda **kwargs: models.get_model(name, **fixed, **kwargs)


def _timm(name: str) -> Callable[..., nn.Module]:
    if importlib.util.find_spec("timm") is None:
        raise CheckpointError(f"timm:{name} needs timm, which is not installed", hint="pip install timm")
    import timm

    if name not in timm.list_models():  # also refuses hub and folder names, which would fetch or read something
        raise CheckpointError(f"timm has no network {name!r}", hint=did_you_mean(name, timm.list_models(), most=3))
    return lambda **kwargs: timm.create_model(name, pretrained=False, **kwargs)


def accepts(factory: Callable[..., nn.Module], name: str, argument: str) -> bool:
    """Whether a factory takes an argument; torchvision and timm forward theirs, so their own names are known."""
    library = name.partition(":")[0]
    if library in ("torchvision", "timm"):
        return argument == "num_classes" or (library == "timm" and argument == "in_chans")
    try:
        return argument in inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return False


def skeleton(factory: Callable[..., nn.Module], kwargs: Mapping[str, Scalar]) -> nn.Module:
    """The network with shapes but no numbers: costs no memory, draws nothing from the generators that a caller sees."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return factory(**kwargs)
        except (NotImplementedError, RuntimeError):  # computes with tensors while it is built (torchvision's RegNet)
            from accelerate import init_empty_weights

            with init_empty_weights():
                return factory(**kwargs)


def untrained(architecture: Architecture, zoo: Zoo, seed: int) -> nn.Module:
    """A network with fresh weights, to be trained; the seed decides them, and no generator that a caller sees moves.

    Raises:
        CheckpointError: the name is unknown or the factory fails.
    """
    factory = factory_of(architecture.name, zoo)
    try:
        with seeded(seed):
            return factory(**architecture.kwargs).float()
    except Exception as error:  # a factory is anybody's code
        raise CheckpointError(
            f"{architecture.name} cannot be built with {dict(architecture.kwargs)}: {type(error).__name__}: {error}",
            hint="check the name and its arguments",
        ) from error


@contextmanager
def _at_most(tensors: int | None, name: str) -> Iterator[None]:
    """Inside, a factory that goes on making layers beyond those of the file is stopped."""
    if tensors is None:
        yield
        return
    most, made = 4 * tensors + 1000, 0  # layers may be made and replaced

    def count(module: nn.Module, key: str, parameter: nn.Parameter | None) -> None:
        nonlocal made
        made += parameter is not None
        if made > most:
            raise CheckpointError(f"{name} has more than {most} parameters, the file holds {tensors} tensors")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def build(architecture: Architecture, zoo: Zoo, *, tensors: int | None = None) -> nn.Module:
    """A network that waits for its tensors, on the CPU, in evaluation mode.

    Parameters of the zoo's, torchvision's and timm's networks are on the meta device: initialising them takes longer than
    reading a file. Buffers are real, because some are in no state_dict. The user's own factory may do as it likes and is
    built for real.

    Args:
        architecture: what to build.
        zoo: factories by name.
        tensors: how many there are to be put in, where its arguments come from a file: no factory works beyond that.

    Raises:
        CheckpointError: the name is unknown, the factory fails or the network would be absurdly large.
    """
    factory = factory_of(architecture.name, zoo)
    kwargs = dict(architecture.kwargs)
    try:
        with torch.random.fork_rng(devices=[]), _at_most(tensors, architecture.name):
            if architecture.runs_user_code:
                model = factory(**kwargs)
            else:
                from accelerate import init_empty_weights

                size = sum(p.numel() for p in skeleton(factory, kwargs).state_dict().values())
                if size > _LARGEST:
                    raise CheckpointError(f"{architecture.name} with {kwargs} has {size} numbers, at most {_LARGEST} are built")
                with init_empty_weights(include_buffers=False):
                    model = factory(**kwargs)
    except CheckpointError:
        raise
    except Exception as error:  # a factory is anybody's code
        raise CheckpointError(
            f"{architecture.name} cannot be built with {kwargs}: {type(error).__name__}: {error}",
            hint="check the name and its arguments",
        ) from error
    if not isinstance(model, nn.Module):
        raise CheckpointError(f"{architecture.name} returned a {type(model).__name__}, a torch.nn.Module was wanted")
    return model.float().eval()
