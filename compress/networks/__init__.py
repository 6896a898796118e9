"""Files into networks: checkpoints, architectures, and weights that are read as data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.core import lazy

if TYPE_CHECKING:
    from compress.networks.architecture import Architecture as Architecture
    from compress.networks.architecture import accepts as accepts
    from compress.networks.architecture import canonical as canonical
    from compress.networks.architecture import factory_of as factory_of
    from compress.networks.architecture import skeleton as skeleton
    from compress.networks.architecture import untrained as untrained
    from compress.networks.checkpoint import Loaded as Loaded
    from compress.networks.checkpoint import load as load
    from compress.networks.checkpoint import save as save
    from compress.networks.checkpoint import state_digest as state_digest
    from compress.networks.checks import preflight as preflight
    from compress.networks.checks import random_rows as random_rows
    from compress.networks.hub import Repository as Repository
    from compress.networks.inference import autocast as autocast
    from compress.networks.inference import channels_last as channels_last
    from compress.networks.inference import computes_bf16 as computes_bf16
    from compress.networks.inference import computing_with as computing_with
    from compress.networks.inference import frozen_copy as frozen_copy
    from compress.networks.inference import in_batches as in_batches
    from compress.networks.inference import logits_of as logits_of
    from compress.networks.inference import placed as placed
    from compress.networks.inference import seeded as seeded
    from compress.networks.network import TASK as TASK
    from compress.networks.network import Network as Network
    from compress.networks.network import identity as identity
    from compress.networks.network import network_from as network_from
    from compress.networks.network import network_of as network_of
    from compress.networks.pretrained import from_pretrained as from_pretrained
    from compress.networks.purpose import recognised as recognised
    from compress.networks.remote import is_remote as is_remote
    from compress.networks.remote import short_name as short_name
    from compress.networks.tensor_file import file_state_digest as file_state_digest
else:  # so that a name that is gone is an error to a type checker, and not Any
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "architecture": "Architecture accepts canonical factory_of skeleton untrained",
            "checkpoint": "Loaded load save state_digest",
            "checks": "preflight random_rows",
            "hub": "Repository",
            "inference": "autocast channels_last computes_bf16 computing_with frozen_copy in_batches logits_of placed seeded",
            "network": "Network TASK identity network_from network_of",
            "pretrained": "from_pretrained",
            "purpose": "recognised",
            "remote": "is_remote short_name",
            "tensor_file": "file_state_digest",
        },
    )
