"""Your own loop with Hugging Face's Trainer and a ResNet of transformers: python with_transformers.py

The network answers with a structure, not with a tensor, and so does the pruned one. Its config keeps the widths before the cut:
from_pretrained() would build the unpruned network and refuse the tensors. Keep what the run writes, or export.
"""

from typing import Any

import torch
import torch.nn.functional as F
from tiny import PATTERNS, folder, run
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments


def make() -> nn.Module:
    """A small ResNet of transformers, random weights: a factory for ``--arch``."""
    config = ResNetConfig(
        embedding_size=16,
        hidden_sizes=[32, 64],
        depths=[1, 2],
        layer_type="basic",
        num_labels=len(PATTERNS),
        downsample_in_first_stage=False,
    )
    return ResNetForImageClassification(config)


class Named(Dataset[dict[str, Any]]):
    """A split as Trainer wants it: dicts with the names of the network's arguments."""

    def __init__(self, split: Any) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, label = self.split[index]
        return {"pixel_values": image, "labels": int(label)}


class Distilling(Trainer):  # type: ignore[misc]
    """Trainer with the unpruned network's answers in its loss."""

    teacher: nn.Module

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any) -> Any:
        """The network's own loss on labels, and cross-entropy with the teacher's answers."""
        given = model(**inputs)
        with torch.no_grad():
            wanted = self.teacher.to(given.logits.device)(inputs["pixel_values"]).logits.softmax(1)
        loss = given.loss + F.cross_entropy(given.logits, wanted)
        return (loss, given) if return_outputs else loss


def train(model: nn.Module, teacher: nn.Module, data: Any, budget: Any, hooks: Any) -> nn.Module:
    """Fine-tune the cut network; the arguments are those of plain_pytorch.py."""
    told = TrainingArguments(
        output_dir=str(folder("transformers") / "trainer"),
        num_train_epochs=budget.epochs,
        per_device_train_batch_size=budget.batch,
        seed=budget.seed,
        dataloader_drop_last=True,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    optimizer = torch.optim.SGD(model.parameters(), budget.lr, momentum=0.9, weight_decay=1e-4)
    hooks.gradients(optimizer)
    trainer = Distilling(model, told, train_dataset=Named(data.train), optimizers=(optimizer, None))
    trainer.teacher = teacher
    trainer.train()
    return model.cpu().eval()


if __name__ == "__main__":
    run(train, "transformers", make())
