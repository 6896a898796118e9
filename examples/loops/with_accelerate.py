"""Your own loop with Accelerate: python with_accelerate.py

Accelerate wraps the network; what is given back is the network itself.
"""

from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import set_seed
from tiny import run
from torch import nn
from torch.utils.data import DataLoader


def train(model: nn.Module, teacher: nn.Module, data: Any, budget: Any, hooks: Any) -> nn.Module:
    """Fine-tune the cut network; the arguments are those of plain_pytorch.py."""
    set_seed(budget.seed)
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    optimizer = torch.optim.SGD(model.parameters(), budget.lr, momentum=0.9, weight_decay=1e-4)
    hooks.gradients(optimizer)
    loader = DataLoader(data.train, budget.batch, shuffle=True, drop_last=True)
    wrapped, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    teacher = teacher.to(accelerator.device)
    wrapped.train()
    for _ in range(budget.epochs):
        for images, labels in loader:
            logits = wrapped(images)
            with torch.no_grad():
                wanted = teacher(images).softmax(1)
            loss = F.cross_entropy(logits, labels) + F.cross_entropy(logits, wanted)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
    teacher.cpu()
    return accelerator.unwrap_model(wrapped).cpu().eval()


if __name__ == "__main__":
    run(train, "accelerate")
