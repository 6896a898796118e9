"""VGG for 32-pixel images: thirteen convolutions with batch norm and one linear layer (Simonyan and Zisserman 2015).

The single linear layer is the usual CIFAR form; pruning papers call it VGG-14 (or, counting otherwise, VGG-16).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compress_models.widths import scaled

_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG(nn.Module):
    """Stages of 3x3 convolutions, each closed by a max-pool; keys ``features.N.*`` and ``classifier.*``."""

    def __init__(self, stages: tuple[tuple[int, ...], ...], num_classes: int, in_channels: int, width: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for stage in stages:
            for out in stage:
                made = scaled(out, width)
                layers += [nn.Conv2d(channels, made, 3, padding=1, bias=False), nn.BatchNorm2d(made), nn.ReLU()]
                channels = made
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, c, h, w), sides of at least 32, to logits (n, num_classes)."""
        x = self.pool(self.features(x))
        logits: Tensor = self.classifier(torch.flatten(x, 1))
        return logits


def vgg14(num_classes: int = 10, in_channels: int = 3, width: float = 1.0) -> VGG:
    """VGG-14: 14.7 M parameters, 313 M MACs at 32 pixels."""
    return VGG(_STAGES, num_classes, in_channels, width)
