"""ResNets for 32-pixel images (He et al. 2016, section 4.2), with both kinds of shortcut.

Option A, the paper's choice on CIFAR, subsamples and adds channels of zeros; the projection shortcut is a 1x1
convolution with batch norm. State_dict keys are those of the CIFAR-10 checkpoints in common use.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress_models.widths import scaled


class ZeroPadShortcut(nn.Module):
    """A shortcut without weights: output channel ``j`` is input channel ``sources[j]``, or zero where that is -1.

    ``sources`` (int64, shape (out_channels,)) is a persistent buffer, so that a pruned network says itself which
    channels still meet. A checkpoint without it gets the default: all inputs in the middle, zeros on both sides.
    Replace it by assignment (``module.sources = table``), by ``load_state_dict`` or in a deep copy; any length and any
    order is exact. Writing into it in place is not seen.

    Args:
        in_channels: channels that come in.
        out_channels: channels that go out, at least ``in_channels``.
        stride: every stride-th row and column is taken.
    """

    is_channel_map = True
    sources: Tensor

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        if out_channels < in_channels:
            raise ValueError(f"a zero-padded shortcut cannot go from {in_channels} to {out_channels} channels")
        self.stride = stride
        self._run: tuple[int, int, int, int] | None = None
        before = (out_channels - in_channels) // 2
        table = torch.full((out_channels,), -1, dtype=torch.int64, device="cpu")
        table[before : before + in_channels] = torch.arange(in_channels, device="cpu")
        self._run = _single_run(table)
        self.register_buffer("sources", table)

    # Reading a buffer's values inside forward would stall a GPU and break graph capture, so what forward needs to know
    # of them is kept beside the buffer, and renewed on each of the three ways by which a table gets in.
    def __setattr__(self, name: str, value: Any) -> None:
        if name == "sources" and isinstance(value, Tensor) and not value.is_meta:
            self._run = _single_run(value)
        super().__setattr__(name, value)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if not self.sources.is_meta:
            self._run = _single_run(self.sources)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in, h, w) to (n, out, ceil(h/stride), ceil(w/stride))."""
        x = x[:, :, :: self.stride, :: self.stride]
        if self._run is not None:
            before, first, last, after = self._run
            return F.pad(x[:, first:last], (0, 0, 0, 0, before, after))
        with_zero_in_front = F.pad(x, (0, 0, 0, 0, 1, 0))
        return torch.index_select(with_zero_in_front, 1, self.sources + 1)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        key = prefix + "sources"
        table = state_dict.setdefault(key, self.sources)
        if isinstance(table, Tensor) and table.shape == self.sources.shape:
            self.sources = table.to(device=self.sources.device, dtype=torch.int64).clone()
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """Sizes, for ``print(model)``."""
        return f"out_channels={len(self.sources)}, stride={self.stride}"


def _single_run(table: Tensor) -> tuple[int, int, int, int] | None:
    """``(zeros before, first input, last input + 1, zeros after)`` if the inputs stand in one ascending run."""
    sources = table.tolist()
    places = [j for j, source in enumerate(sources) if source >= 0]
    if not places or [sources[j] - sources[places[0]] for j in places] != list(range(len(places))):
        return None
    if places[-1] - places[0] + 1 != len(places):
        return None
    return places[0], sources[places[0]], sources[places[-1]] + 1, len(sources) - 1 - places[-1]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, projection: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module
        if stride == 1 and in_channels == out_channels:
            self.shortcut = nn.Identity()
        elif projection:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
            )
        else:
            self.shortcut = ZeroPadShortcut(in_channels, out_channels, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """The block's output: relu(residual + shortcut)."""
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        out: Tensor = self.relu2(y + self.shortcut(x))
        return out


class CifarResNet(nn.Module):
    """A 3x3 stem, three stages of 16, 32 and 64 channels, a linear layer; depth = 6 * blocks + 2."""

    def __init__(self, blocks: int, num_classes: int, in_channels: int, width: float, projection: bool) -> None:
        super().__init__()
        first, second, third = (scaled(c, width) for c in (16, 32, 64))
        self.conv1 = nn.Conv2d(in_channels, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.relu = nn.ReLU()
        self.layer1 = _stage(first, first, blocks, 1, projection)
        self.layer2 = _stage(first, second, blocks, 2, projection)
        self.layer3 = _stage(second, third, blocks, 2, projection)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(third, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, c, h, w) to logits (n, num_classes)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(torch.flatten(self.pool(x), 1))
        return logits


def _stage(in_channels: int, out_channels: int, blocks: int, stride: int, projection: bool) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride, projection)
    return nn.Sequential(first, *(BasicBlock(out_channels, out_channels, 1, projection) for _ in range(blocks - 1)))


def resnet20(num_classes: int = 10, in_channels: int = 3, width: float = 1.0) -> CifarResNet:
    """ResNet-20, option A: 0.27 M parameters, 40.6 M MACs at 32 pixels."""
    return CifarResNet(3, num_classes, in_channels, width, projection=False)


def resnet32(num_classes: int = 10, in_channels: int = 3, width: float = 1.0) -> CifarResNet:
    """ResNet-32, option A."""
    return CifarResNet(5, num_classes, in_channels, width, projection=False)


def resnet44(num_classes: int = 10, in_channels: int = 3, width: float = 1.0) -> CifarResNet:
    """ResNet-44, option A."""
    return CifarResNet(7, num_classes, in_channels, width, projection=False)


def resnet56(num_classes: int = 10, in_channels: int = 3, width: float = 1.0) -> CifarResNet:
    """ResNet-56, option A: 0.85 M parameters, 125 M MACs at 32 pixels."""
    return CifarResNet(9, num_classes, in_channels, width, projection=False)


def resnet110(num_classes: int = 10, in_channels: int = 3, width: float = 1.0) -> CifarResNet:
    """ResNet-110, option A."""
    return CifarResNet(18, num_classes, in_channels, width, projection=False)


def resnet20p(num_classes: int = 10, in_channels: int = 3, width: float = 1.0) -> CifarResNet:
    """ResNet-20 with projection shortcuts."""
    return CifarResNet(3, num_classes, in_channels, width, projection=True)


def resnet32p(num_classes: int = 10, in_channels: int = 3, width: float = 1.0) -> CifarResNet:
    """ResNet-32 with projection shortcuts."""
    return CifarResNet(5, num_classes, in_channels, width, projection=True)


def resnet44p(num_classes: int = 10, in_channels: int = 3, width: float = 1.0) -> CifarResNet:
    """ResNet-44 with projection shortcuts."""
    return CifarResNet(7, num_classes, in_channels, width, projection=True)


def resnet56p(num_classes: int = 10, in_channels: int = 3, width: float = 1.0) -> CifarResNet:
    """ResNet-56 with projection shortcuts."""
    return CifarResNet(9, num_classes, in_channels, width, projection=True)


def resnet110p(num_classes: int = 10, in_channels: int = 3, width: float = 1.0) -> CifarResNet:
    """ResNet-110 with projection shortcuts."""
    return CifarResNet(18, num_classes, in_channels, width, projection=True)
