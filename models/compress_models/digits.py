"""A small residual network for 8-pixel handwritten digits: the demonstration that runs anywhere in a minute."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compress_models.widths import scaled


def _conv_norm(in_channels: int, out_channels: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False), nn.BatchNorm2d(out_channels)]


class Residual(nn.Module):
    """relu(x + conv-bn-relu-conv-bn(x)), same width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_conv_norm(channels, channels), nn.ReLU(), *_conv_norm(channels, channels))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        out: Tensor = self.relu(x + self.body(x))
        return out


class DigitsNet(nn.Module):
    """Stem (16), stage of 32 with a residual block, stage of 64 with a residual block, linear layer."""

    def __init__(self, num_classes: int, in_channels: int, width: float) -> None:
        super().__init__()
        stem, low, high = (scaled(c, width) for c in (16, 32, 64))
        self.stem = nn.Sequential(*_conv_norm(in_channels, stem), nn.ReLU())
        self.stage1 = nn.Sequential(*_conv_norm(stem, low), nn.ReLU(), Residual(low))
        self.stage2 = nn.Sequential(*_conv_norm(low, high, stride=2), nn.ReLU(), Residual(high))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(high, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, c, h, w) to logits (n, num_classes)."""
        x = self.stage2(self.stage1(self.stem(x)))
        logits: Tensor = self.classifier(torch.flatten(self.pool(x), 1))
        return logits


def digits_net(num_classes: int = 10, in_channels: int = 1, width: float = 1.0) -> DigitsNet:
    """A residual network for 8-pixel images: 0.12 M parameters, 2.9 M MACs at 8 pixels."""
    return DigitsNet(num_classes, in_channels, width)
