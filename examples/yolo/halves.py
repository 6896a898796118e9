"""Ultralytics' blocks that chunk an activation in two, with a convolution for each half instead; they compute the same.

Torch-Pruning needs this: it takes the channels of the two halves for others than they are, and asks for some that do not exist.
This project does not: it cuts C2f, C3k2 and their like as they are.
"""

import copy

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import C2PSA, C2f, Conv


class Halved(nn.Module):
    """C2f, C3k2 or C2PSA with two convolutions in place of its first one.

    Args:
        block: whose layers are taken over.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        width = block.cv1.conv.out_channels // 2
        self.first, self.second = half(block.cv1, slice(0, width)), half(block.cv1, slice(width, 2 * width))
        self.m, self.cv2, self.replaces = block.m, block.cv2, isinstance(block, C2PSA)
        for name in ("f", "i", "type", "np"):  # where the block stands among the others
            setattr(self, name, getattr(block, name))

    def forward(self, x: Tensor) -> Tensor:
        """As the block does."""
        parts = [self.first(x), self.second(x)]
        if self.replaces:
            parts[1] = self.m(parts[1])
        else:
            for module in self.m:
                parts.append(module(parts[-1]))
        found: Tensor = self.cv2(torch.cat(parts, 1))
        return found


def half(conv: Conv, channels: slice) -> Conv:
    """Some of the channels that a convolution with batch norm makes."""
    part = copy.deepcopy(conv)
    part.conv.out_channels = part.bn.num_features = channels.stop - channels.start
    for module in (part.conv, part.bn):
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if tensor.dim():
                kept = tensor[channels].detach().clone()
                setattr(module, name, nn.Parameter(kept) if isinstance(tensor, nn.Parameter) else kept)
    return part


def halved(model: nn.Module) -> nn.Module:
    """The same network with every such block replaced."""
    model = copy.deepcopy(model)
    for index, block in enumerate(model.model):
        if isinstance(block, C2f | C2PSA):
            model.model[index] = Halved(block)
    return model
