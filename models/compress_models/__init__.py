"""The zoo: networks for small images, one family a file, every name written out.

A factory takes ``num_classes`` and, where it makes sense, ``in_channels`` and ``width`` (a factor on every layer's
channels), and returns an untrained ``nn.Module``. Torch is the only dependency.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import nn

from compress_models.densenet import densenet40
from compress_models.digits import digits_net
from compress_models.lenet import lenet
from compress_models.mobilenet import mobilenetv2_cifar
from compress_models.resnet import (
    resnet20,
    resnet20p,
    resnet32,
    resnet32p,
    resnet44,
    resnet44p,
    resnet56,
    resnet56p,
    resnet110,
    resnet110p,
)
from compress_models.vgg import vgg14

MODELS: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {
        "vgg14": vgg14,
        "resnet20": resnet20,
        "resnet32": resnet32,
        "resnet44": resnet44,
        "resnet56": resnet56,
        "resnet110": resnet110,
        "resnet20p": resnet20p,
        "resnet32p": resnet32p,
        "resnet44p": resnet44p,
        "resnet56p": resnet56p,
        "resnet110p": resnet110p,
        "mobilenetv2_cifar": mobilenetv2_cifar,
        "densenet40": densenet40,
        "lenet": lenet,
        "digits_net": digits_net,
    }
)
"""Name -> factory."""

__all__ = ["MODELS", *MODELS]
