"""MobileNetV2 for small images (Sandler et al. 2018): the stem and the first stages keep the resolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compress_models.widths import scaled

# expansion, channels, blocks, stride of the first block; ImageNet's strides in the stem and the second stage become 1
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def _conv_norm(in_channels: int, out_channels: int, size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out_channels)]


class InvertedResidual(nn.Module):
    """Expand (1x1), filter each channel (3x3 depthwise), project (1x1); a shortcut where the shapes allow it."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [*_conv_norm(in_channels, hidden, 1), nn.ReLU6()]
        layers += [*_conv_norm(hidden, hidden, 3, stride, groups=hidden), nn.ReLU6(), *_conv_norm(hidden, out_channels, 1)]
        self.conv = nn.Sequential(*layers)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        y: Tensor = self.conv(x)
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """Stem, seventeen inverted residuals, a 1x1 head and a linear layer."""

    def __init__(self, num_classes: int, in_channels: int, width: float) -> None:
        super().__init__()
        channels = scaled(32, width)
        layers: list[nn.Module] = [*_conv_norm(in_channels, channels, 3), nn.ReLU6()]
        for expansion, wanted, blocks, stride in _STAGES:
            out = scaled(wanted, width)
            for block in range(blocks):
                layers.append(InvertedResidual(channels, out, stride if block == 0 else 1, expansion))
                channels = out
        last = scaled(1280, max(1.0, width))
        layers += [*_conv_norm(channels, last, 1), nn.ReLU6()]
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(last, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, c, h, w) to logits (n, num_classes)."""
        logits: Tensor = self.classifier(torch.flatten(self.pool(self.features(x)), 1))
        return logits


def mobilenetv2_cifar(num_classes: int = 10, in_channels: int = 3, width: float = 1.0) -> MobileNetV2:
    """MobileNetV2 for 32-pixel images: 2.2 M parameters, 88 M MACs."""
    return MobileNetV2(num_classes, in_channels, width)
