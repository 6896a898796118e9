"""Your own loop with Lightning: python with_lightning.py

The cut network becomes a member of a LightningModule; it is the member that is given back, not the module around it.
"""

import warnings
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from tiny import run
from torch import Tensor, nn
from torch.utils.data import DataLoader


class FineTuning(lightning.LightningModule):  # type: ignore[misc]
    """The cut network beside the unpruned one, which only answers."""

    def __init__(self, model: nn.Module, teacher: nn.Module, budget: Any, hooks: Any) -> None:
        super().__init__()
        self.model = model
        self.teacher = (teacher,)  # in a tuple, so that it is no part of what is trained, saved and switched to training mode
        self.budget, self.hooks = budget, hooks

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """The loss of one batch."""
        images, labels = batch
        logits = self.model(images)
        with torch.no_grad():
            wanted = self.teacher[0].to(self.device)(images).softmax(1)
        return F.cross_entropy(logits, labels) + F.cross_entropy(logits, wanted)

    def configure_optimizers(self) -> Any:
        """SGD with a cosine."""
        optimizer = torch.optim.SGD(self.model.parameters(), self.budget.lr, momentum=0.9, weight_decay=1e-4)
        self.hooks.gradients(optimizer)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def train(model: nn.Module, teacher: nn.Module, data: Any, budget: Any, hooks: Any) -> nn.Module:
    """Fine-tune the cut network; the arguments are those of plain_pytorch.py."""
    lightning.seed_everything(budget.seed, verbose=False)
    loader = DataLoader(data.train, budget.batch, shuffle=True, drop_last=True)
    model.train()  # Lightning keeps the modes it finds
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(max_epochs=budget.epochs, accelerator="cpu", devices=1, **quiet)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on the number of the loader's workers
        trainer.fit(FineTuning(model, teacher, budget, hooks), loader)
    teacher.cpu()
    return model.cpu().eval()


if __name__ == "__main__":
    run(train, "lightning")
