"""ShuffleNet's fixed splits and shuffles written as tables of channels, so that its stages can be cut too.

Code that halves and interleaves whatever arrives is right at one width only: after a cut other channels would meet. The
table says which channel goes where, is in the state_dict, and is cut like any other tensor.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from compress.surgery.parametrizations import folded


def cuttable(model: nn.Module) -> nn.Module:
    """The same function in a form whose channels can be cut: a copy, or the model itself where nothing has to change.

    Weights that hooks compute are made plain (``folding.folded``); the units of torchvision's ShuffleNetV2 get their splits
    and shuffles as tables. Networks from ``load`` and ``network_of`` are in this form already; before ``trace`` of your own
    call it yourself.
    """
    plain = folded(model)
    if not any(_is_shuffle_unit(m) for m in plain.modules()):
        return plain
    result = copy.deepcopy(plain) if plain is model else plain
    for module in [m for m in result.modules() if _is_shuffle_unit(m)]:
        made = _made(module)
        tables = {"shuffle": torch.arange(made).view(2, -1).T.flatten()}
        if module.stride == 1:
            tables |= {"straight": torch.arange(made // 2), "through": torch.arange(made // 2, made)}
        device = next(module.parameters()).device
        for name, table in tables.items():
            module.add_module(name, ChannelMap(table.to("cpu" if device.type == "meta" else device)).train(module.training))
        module.__class__ = ShuffleUnit  # children, keys, hooks and mode stay
    return result


class ChannelMap(nn.Module):
    """Output channel ``j`` is input channel ``sources[j]``."""

    is_channel_map = True
    sources: Tensor

    def __init__(self, sources: Tensor) -> None:
        super().__init__()
        self.register_buffer("sources", sources)

    def forward(self, x: Tensor) -> Tensor:
        """The channels of the table, in its order."""
        return x.index_select(1, self.sources)


class ShuffleUnit(nn.Module):
    """What torchvision's ``InvertedResidual`` of ShuffleNetV2 becomes."""

    stride: int
    straight: ChannelMap
    through: ChannelMap
    shuffle: ChannelMap
    branch1: nn.Module
    branch2: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """One half goes straight on, the other through the branch; then both are interleaved."""
        one, two = (self.straight(x), self.through(x)) if self.stride == 1 else (self.branch1(x), x)
        result: Tensor = self.shuffle(torch.cat((one, self.branch2(two)), dim=1))
        return result


def _is_shuffle_unit(module: nn.Module) -> bool:
    kind = type(module)
    return kind.__module__ == "torchvision.models.shufflenetv2" and kind.__name__ == "InvertedResidual"


def _made(unit: Any) -> int:
    """Channels that leave the unit: two halves."""
    width: int = next(m for m in reversed(unit.branch2) if isinstance(m, nn.Conv2d)).out_channels
    return 2 * width
