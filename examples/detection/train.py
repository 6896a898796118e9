"""Train the detector: python train.py VOC OUT.pt; the same command goes on after a stop (OUT.pt.resume).

The backbone starts from ImageNet and learns more slowly than the rest. The last epoch counts; the validation split only shows
how it goes. OUT.pt is a plain state_dict.
"""

import argparse
import math
import time
from pathlib import Path

import torch
from cells import Cells, Precision, detected, load_backbone, make, together
from torch import nn
from torch.utils.data import DataLoader


def train(detector: nn.Module, cells: Cells, told: argparse.Namespace, resume: Path | None = None) -> nn.Module:
    """AdamW over `told.epochs` with a warm-up and a cosine; the backbone at `told.backbone_lr`, the rest at `told.lr`."""
    body = list(detector.backbone.body.parameters())
    rest = [p for name, p in detector.named_parameters() if not name.startswith("backbone.body.")]
    optimizer = torch.optim.AdamW(
        [{"params": body, "lr": told.backbone_lr}, {"params": rest, "lr": told.lr}], weight_decay=1e-2
    )
    generator = torch.Generator().manual_seed(told.seed)
    loader = DataLoader(cells, told.batch, shuffle=True, drop_last=True, generator=generator, collate_fn=together)
    steps = told.epochs * len(loader)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
    )
    first = 0
    if resume is not None and resume.is_file():
        kept = torch.load(resume, weights_only=True)
        detector.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        schedule.load_state_dict(kept["schedule"])
        generator.set_state(kept["generator"])
        first = kept["epoch"]
    detector.backbone.bfloat16 = told.bfloat16
    for epoch in range(first, told.epochs):
        detector.train()
        started, total = time.process_time(), 0.0
        for images, targets in loader:
            value = sum(detector(images, targets).values())
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(detector.parameters(), 10.0)
            optimizer.step()
            schedule.step()
            total += value.item()
        print(f"epoch {epoch + 1}: loss {total / len(loader):.3f}, {time.process_time() - started:.0f} CPU s", flush=True)
        if resume is not None:
            state = {"model": detector.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
            aside = resume.with_suffix(".tmp")
            torch.save({**state, "generator": generator.get_state(), "epoch": epoch + 1}, aside)
            aside.replace(resume)
    return detector


def options() -> argparse.ArgumentParser:
    """What a training is told, the base's and that after a cut."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--backbone-lr", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bfloat16", action="store_true", help="in the backbone, while training")
    return parser


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, parents=[options()], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    told = parser.parse_args()
    torch.set_num_threads(told.threads)
    torch.manual_seed(told.seed)
    detector = make()
    load_backbone(detector)
    train(detector, Cells(told.data, "train", augment=True), told, told.out.with_suffix(".pt.resume"))
    torch.save(detector.state_dict(), told.out)
    for split in ("validation", "test"):
        print(split, f"mAP50 {Precision(detected(detector, Cells(told.data, split))).of():.4f}")
