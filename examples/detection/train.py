"""Train the detector: python train.py VOC OUT.pt; the same command goes on after a stop (OUT.pt.resume).

The backbone starts from ImageNet and learns more slowly than the rest. The last epoch counts; the validation split only shows
how it goes. OUT.pt is a plain state_dict.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from cells import SPLITS, Cells, Precision, detected, load_backbone, make, together
from torch import Tensor, nn
from torch.utils.data import DataLoader

from examples import fitting

LONGEST = 10.0
"""Norm of a step's gradient."""


def train(detector: nn.Module, cells: Cells, told: argparse.Namespace, resume: Path | None = None) -> nn.Module:
    """By :func:`examples.fitting.fit`, its gradients cut off at :data:`LONGEST`. It comes back on the CPU."""
    generator = torch.Generator().manual_seed(told.seed)
    loader = DataLoader(cells, told.batch, shuffle=True, drop_last=True, generator=generator, collate_fn=together)
    detector.to(told.device)
    detector.backbone.bfloat16 = told.bfloat16
    optimizer = fitting.optimizer_of(detector, "backbone.body.", told)
    optimizer.register_step_pre_hook(lambda *_: void(nn.utils.clip_grad_norm_(detector.parameters(), LONGEST)))

    def loss_of(batch: tuple[list[Tensor], list[dict[str, Any]]]) -> Tensor:
        images, targets = batch
        there = [{key: value.to(told.device) for key, value in target.items()} for target in targets]
        losses: dict[str, Tensor] = detector(images, there)
        return torch.stack(list(losses.values())).sum()

    fitting.fit(detector, optimizer, loader, generator, loss_of, told, resume)
    return detector.to("cpu")


def void(_: object) -> None:
    """A hook changes a step's arguments unless it gives None back."""


def options() -> argparse.ArgumentParser:
    """What a training is told, the base's and that after a cut."""
    return fitting.options(epochs=25, lr=2e-3)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, parents=[options()], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--start", type=Path, help="an earlier OUT.pt to go on from, instead of ImageNet's weights")
    parser.add_argument("--splits", nargs="*", choices=SPLITS, default=["validation", "test"], help="to score at the end")
    told = parser.parse_args()
    torch.set_num_threads(told.threads)
    torch.manual_seed(told.seed)
    detector = make()
    if told.start is None:
        load_backbone(detector)
    else:
        detector.load_state_dict(torch.load(told.start, weights_only=True))
    train(detector, Cells(told.data, "train", augment=True, device=told.device), told, told.out.with_suffix(".pt.resume"))
    torch.save(detector.state_dict(), told.out)
    for split in told.splits:
        print(split, f"mAP50 {Precision(detected(detector, Cells(told.data, split))).of():.4f}")
