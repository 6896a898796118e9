"""What a network is for, where nobody said: class logits are recognised where they are certain, nothing else is guessed."""

from __future__ import annotations

from dataclasses import replace

import torch

from compress.data import Data
from compress.networks.architecture import UNNAMED
from compress.networks.network import Network
from compress.signature import first_tensor
from compress.tasks import Classification, Outputs

_CATALOGUES = ("torchvision.models.", "timm.models.", "compress_models.")
_OTHERS = ("torchvision.models.detection", "torchvision.models.segmentation", "torchvision.models.optical_flow")


def recognised(network: Network, data: Data | None) -> tuple[Network, str]:
    """The network with its task, and a sentence where it had to be taken for ``outputs``.

    A network is a classifier where it returns (images, classes), two classes or more, and either its images have as many
    classes, or it comes from a catalogue of classifiers. Images without labels make no classifier.

    Args:
        network: one whose task is known stays as it is.
        data: its images.
    """
    if network.task is not None:
        return network, ""
    width = _columns(network)
    labelled = data is not None and data.labelled
    certain = width >= 2 and ((data is not None and labelled and 2 <= len(data.classes) <= width) or _catalogued(network))
    if certain:
        return replace(network, task=Classification()), ""
    if width == 1:
        second = " of the second class" if labelled else ""
        cure = f"--task binary if its one output is a logit{second}, --task regression if it is a number"
    elif width >= 2:
        cure = "--task classification if its outputs are class logits, --task regression, multilabel or another if not"
    else:
        cure = "--task segmentation, restoration, detection or another if they can be scored"
    said = f"what the network is for is not known, so its outputs are to stay what they are (task outputs); {cure}"
    return replace(network, task=Outputs()), said


def _columns(network: Network) -> int:
    """How many numbers it returns an image, where that is a row; 0 for anything else."""
    rows = torch.zeros(2, *network.shape) if network.signature is None else network.signature.rows(2)
    try:
        with torch.no_grad():
            first = first_tensor(network.model(rows))
    except Exception:
        return 0  # whatever forward raises is told where the network is looked at
    return int(first.shape[1]) if first.dim() == 2 and len(first) == 2 else 0


def _catalogued(network: Network) -> bool:
    """Whether it comes from the zoo, or from torchvision's or timm's classifiers."""
    name, made_by = network.architecture.name, network.architecture.kwargs
    if made_by.get("num_classes") == 0:  # features
        return False
    if name.startswith(UNNAMED):
        module = name.removeprefix(UNNAMED)
        return module.startswith(_CATALOGUES) and not module.startswith(_OTHERS)
    return ":" not in name or name.startswith(("torchvision:", "timm:"))
