"""LeNet-5 (LeCun et al. 1998) with ReLU and max-pooling: two convolutions, a flatten and three linear layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compress_models.widths import scaled


class LeNet(nn.Module):
    """The only network of the zoo whose channels go through a flatten into a linear layer."""

    def __init__(self, num_classes: int, in_channels: int, width: float, size: int) -> None:
        super().__init__()
        first, second = scaled(6, width), scaled(16, width)
        side = (size // 2 - 4) // 2
        if side < 1:
            raise ValueError(f"LeNet needs images of at least 12 pixels, not {size}")
        self.conv1 = nn.Conv2d(in_channels, first, 5, padding=2)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(first, second, 5)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(second * side * side, scaled(120, width))
        self.relu3 = nn.ReLU()
        self.fc2 = nn.Linear(scaled(120, width), scaled(84, width))
        self.relu4 = nn.ReLU()
        self.fc3 = nn.Linear(scaled(84, width), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, c, size, size) to logits (n, num_classes)."""
        x = self.pool1(self.relu1(self.conv1(x)))
        x = self.pool2(self.relu2(self.conv2(x)))
        x = self.relu3(self.fc1(torch.flatten(x, 1)))
        logits: Tensor = self.fc3(self.relu4(self.fc2(x)))
        return logits


def lenet(num_classes: int = 10, in_channels: int = 1, width: float = 1.0, size: int = 28) -> LeNet:
    """LeNet-5: 62 thousand parameters at 28 pixels."""
    return LeNet(num_classes, in_channels, width, size)
