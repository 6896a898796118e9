"""DenseNet for 32-pixel images (Huang et al. 2017, table 2): every layer reads all layers before it in its block."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compress_models.widths import scaled


class DenseLayer(nn.Module):
    """BN, ReLU, 3x3 convolution; its ``growth`` channels are appended to what it read."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU()
        self.conv = nn.Conv2d(in_channels, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) to (n, c + growth, h, w)."""
        return torch.cat([x, self.conv(self.relu(self.norm(x)))], 1)


class DenseNet(nn.Module):
    """Three dense blocks with transitions (1x1 convolution, average pool) between them; no bottleneck."""

    def __init__(self, layers_per_block: int, growth: int, num_classes: int, in_channels: int, first: int) -> None:
        super().__init__()
        channels = first
        layers: list[nn.Module] = [nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)]
        for block in range(3):
            for _ in range(layers_per_block):
                layers.append(DenseLayer(channels, growth))
                channels += growth
            layers += [nn.BatchNorm2d(channels), nn.ReLU()]
            if block < 2:
                layers += [nn.Conv2d(channels, channels, 1, bias=False), nn.AvgPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, c, h, w) to logits (n, num_classes)."""
        logits: Tensor = self.classifier(torch.flatten(self.pool(self.features(x)), 1))
        return logits


def densenet40(num_classes: int = 10, in_channels: int = 3, width: float = 1.0) -> DenseNet:
    """DenseNet-40 with growth 12: 1.02 M parameters, 265 M MACs at 32 pixels."""
    return DenseNet(12, scaled(12, width), num_classes, in_channels, scaled(16, width))
