"""Your own loop in plain PyTorch: python plain_pytorch.py"""

from typing import Any

import torch
import torch.nn.functional as F
from tiny import run
from torch import nn
from torch.utils.data import DataLoader


def train(model: nn.Module, teacher: nn.Module, data: Any, budget: Any, hooks: Any) -> nn.Module:
    """Fine-tune the cut network on labels and on the unpruned network's answers.

    Args:
        model: the cut network; it is given back, trained.
        teacher: the unpruned one, in evaluation mode.
        data: as the run got it; its splits are data sets for a DataLoader.
        budget: epochs, lr, batch, seed.
        hooks: what the method does between gradients and step (C-SGD); nothing for most.
    """
    shuffled = torch.Generator().manual_seed(budget.seed)
    loader = DataLoader(data.train, budget.batch, shuffle=True, drop_last=True, generator=shuffled)
    optimizer = torch.optim.SGD(model.parameters(), budget.lr, momentum=0.9, weight_decay=1e-4)
    hooks.gradients(optimizer)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, budget.epochs * len(loader)))
    model.train()
    for _ in range(budget.epochs):
        for images, labels in loader:
            logits = model(images)
            with torch.no_grad():
                wanted = teacher(images).softmax(1)
            loss = F.cross_entropy(logits, labels) + F.cross_entropy(logits, wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


if __name__ == "__main__":
    run(train, "plain-pytorch")
