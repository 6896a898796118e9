"""A trained network and what is known about it: from a file or from memory."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from compress.core import Plan
from compress.data import Data, Preprocessing, preset_for
from compress.errors import ConfigError, ModelError, one_line
from compress.networks.architecture import UNNAMED, Architecture
from compress.networks.checkpoint import Loaded, state_digest
from compress.networks.onnx_network import named
from compress.signature import Signature, taking_rows
from compress.surgery import cuttable
from compress.tasks import Outputs, Task, built_in, task_named, task_of

_NO_PLAN = Plan()
TASK = "task"
"""What a file's metadata calls the name of its task."""


@dataclass(frozen=True)
class Network:
    """A trained network and what is known about it.

    Attributes:
        model: unpruned (or pruned before), evaluation mode.
        name: for people and for the run's folder.
        architecture: how to build it.
        preprocessing: how its images are prepared; None where it takes something else than images.
        digest: of its tensors.
        plan: what had been cut before it came here.
        warnings: what loading it had to guess.
        signature: what it takes, where an example says so. Where that is more than one tensor, the model takes rows.
        task: what it is for; None where it has to be recognised.
    """

    model: nn.Module
    name: str
    architecture: Architecture
    preprocessing: Preprocessing | None
    digest: str
    plan: Plan = _NO_PLAN
    warnings: tuple[str, ...] = ()
    signature: Signature | None = None
    task: Task | None = None

    @property
    def purpose(self) -> Task:
        """What it is for; of a network that nobody said or recognised it of, that its outputs stay what they are."""
        return self.task or Outputs()

    @property
    def shape(self) -> tuple[int, ...]:
        """One input as searching and cutting see it: (channels, height, width) of an image, or the length of a row."""
        if self.signature is not None:
            return self.signature.shape
        assert self.preprocessing is not None
        return self.preprocessing.shape

    def rows(self, batch: Any) -> Tensor:
        """What the network is called with for a batch of its task, as the tensor that searching and cutting see."""
        args, kwargs = self.purpose.inputs(batch)
        if self.signature is not None:
            return self.signature.packed(args, kwargs)
        if len(args) != 1 or kwargs or not isinstance(args[0], Tensor):
            raise ConfigError("a batch calls the network with more than one tensor", hint="give an example of its inputs")
        return args[0]

    @property
    def takes_images(self) -> bool:
        """Whether it is called with one tensor, so that images can be given."""
        return self.signature is None or self.signature.plain


def network_from(
    loaded: Loaded, *, preprocessing: Preprocessing | None = None, name: str = "", example: Any = None, task: Any = None
) -> Network:
    """A loaded file as a network.

    Args:
        loaded: from :func:`compress.load`.
        preprocessing: of its images; by default as the file says, else the architecture's preset.
        name: by default the architecture's.
        example: what one call takes, see :func:`network_of`.
        task: what it is for, see :func:`network_of`; by default a built-in task that the file names.

    Raises:
        ModelError: it does not run on the example.
    """
    if example is None and preprocessing is None and loaded.preprocessing is None:
        example = loaded.example
    preset = None if example is not None else preset_for(loaded.architecture.name)
    model, signature = _called(loaded.model, example)
    return Network(
        model=model,
        name=name or loaded.architecture.name,
        architecture=loaded.architecture,
        preprocessing=_agreed(preprocessing or loaded.preprocessing or preset, signature),
        digest=loaded.digest,
        plan=loaded.plan,
        warnings=loaded.warnings,
        signature=signature,
        task=_named(loaded.metadata) if task is None else task_of(task),
    )


def _named(metadata: Mapping[str, Any]) -> Task | None:
    """The task that a file names, where it is one of ours: what else it may name is never imported."""
    said = metadata.get(TASK)
    return task_named(said) if isinstance(said, str) and built_in(said) else None


def network_of(
    model: nn.Module, preprocessing: Preprocessing | None = None, name: str = "", *, example: Any = None, task: Any = None
) -> Network:
    """A module that is already in memory; its files are reloaded with ``--arch package.module:factory``.

    Args:
        model: in any mode: a copy in evaluation mode is taken, and the model stays as it is.
        preprocessing: of its images; not needed where an example is given.
        name: by default the class's.
        example: what one call takes: a tensor; a tuple of arguments, with a dict of keyword arguments at its end; a dict
            of keyword arguments, or, where ``forward`` has one argument, whatever structure that is. Tensors have a batch
            of one or more. It says how the inputs of ONNX files are called and what shapes they have.
        task: what it is for: a name of ``compress.tasks.TASKS`` (``segmentation``, ``regression:unit=px``), or an object or
            class with members of :class:`compress.Task`. Without it, it is recognised where that is certain: class logits.

    Raises:
        ConfigError: neither preprocessing nor an example says what the network takes.
        ModelError: it does not run on the example, or cannot be copied.
    """
    if preprocessing is None and example is None:
        raise ConfigError(
            "nothing says what the network takes",
            hint="give preprocessing= where it takes images, or example= with inputs that it runs on",
        )
    kind = type(model)
    taken, signature = _called(_evaluating(cuttable(model)), example)
    architecture = Architecture(f"{UNNAMED}{kind.__module__}.{kind.__qualname__}", {})
    return Network(
        model=taken,
        name=name or kind.__name__,
        architecture=architecture,
        preprocessing=_agreed(preprocessing, signature),
        digest=state_digest(taken.state_dict()),
        signature=signature,
        task=None if task is None else task_of(task),
    )


def _evaluating(model: nn.Module) -> nn.Module:
    """The model, or a copy in evaluation mode where any part of it is in training mode."""
    return _copied(model).eval() if any(module.training for module in model.modules()) else model


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:  # locks, open files, tensors that belong to a graph
        raise ModelError(
            f"{type(model).__name__} cannot be copied: {type(error).__name__}: {one_line(error)}",
            hint="attributes that cannot be copied have to go; call model.eval() where only the mode is meant",
        ) from error


def _called(model: nn.Module, example: Any) -> tuple[nn.Module, Signature | None]:
    """The network as everything after it calls it: with one tensor."""
    if example is None:
        return model, None
    signature = named(model, Signature.of(_evaluating(model), example))
    return (model if signature.plain else taking_rows(_copied(model), signature)), signature


def _agreed(preprocessing: Preprocessing | None, signature: Signature | None) -> Preprocessing | None:
    """Pre-processing is of images: of one tensor, of the example's shape.

    Raises:
        ConfigError: it says another shape than the example.
    """
    if preprocessing is None or signature is None:
        return preprocessing
    if not signature.plain:
        return None
    if preprocessing.shape != signature.shape:
        raise ConfigError(
            f"the example has the shape {signature.shape}, pre-processing gives {preprocessing.shape}",
            hint="give one of them, or make both say the same",
        )
    return preprocessing


def identity(network: Network, data: Data | None) -> dict[str, str]:
    """What a run's scores and files stand on; another one of these is another run."""
    told = {
        "network": network.digest,
        "architecture": json.dumps(network.architecture.to_json(), sort_keys=True),
        "preprocessing": json.dumps(network.preprocessing and network.preprocessing.to_json(), sort_keys=True),
    }
    if network.purpose.spec != "classification":  # which was the only task once
        told["task"] = network.purpose.spec
    if network.signature is not None:
        told["inputs"] = json.dumps(network.signature.to_json(), sort_keys=True)
    return told | ({f"data.{k}": v for k, v in data.digests.items()} if data is not None else {})
