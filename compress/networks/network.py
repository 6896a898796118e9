"""A trained network and what is known about it: from a file or from memory."""

from __future__ import annotations

import json
from dataclasses import dataclass

from torch import nn

from compress.core import Plan
from compress.data import Data, Preprocessing, preset_for
from compress.networks.architecture import UNNAMED, Architecture
from compress.networks.checkpoint import Loaded, state_digest
from compress.surgery import cuttable

_NO_PLAN = Plan()


@dataclass(frozen=True)
class Network:
    """A trained network and what is known about it.

    Attributes:
        model: unpruned (or pruned before), evaluation mode.
        name: for people and for the run's folder.
        architecture: how to build it.
        preprocessing: how its images are prepared.
        digest: of its tensors.
        plan: what had been cut before it came here.
        warnings: what loading it had to guess.
    """

    model: nn.Module
    name: str
    architecture: Architecture
    preprocessing: Preprocessing
    digest: str
    plan: Plan = _NO_PLAN
    warnings: tuple[str, ...] = ()


def network_from(loaded: Loaded, *, preprocessing: Preprocessing | None = None, name: str = "") -> Network:
    """A loaded file as a network; preprocessing as given, else as the file says, else the architecture's preset."""
    chosen = preprocessing or loaded.preprocessing or preset_for(loaded.architecture.name)
    return Network(
        loaded.model,
        name or loaded.architecture.name,
        loaded.architecture,
        chosen,
        loaded.digest,
        loaded.plan,
        loaded.warnings,
    )


def network_of(model: nn.Module, preprocessing: Preprocessing, name: str = "") -> Network:
    """A module that is already in memory; its files are reloaded with ``--arch package.module:factory``."""
    kind, model = type(model), cuttable(model)
    architecture = Architecture(f"{UNNAMED}{kind.__module__}.{kind.__qualname__}", {})
    return Network(model, name or kind.__name__, architecture, preprocessing, state_digest(model.state_dict()))


def identity(network: Network, data: Data | None) -> dict[str, str]:
    """What a run's scores and files stand on; another one of these is another run."""
    told = {
        "network": network.digest,
        "architecture": json.dumps(network.architecture.to_json(), sort_keys=True),
        "preprocessing": json.dumps(network.preprocessing.to_json(), sort_keys=True),
    }
    return told | ({f"data.{k}": v for k, v in data.digests.items()} if data is not None else {})
