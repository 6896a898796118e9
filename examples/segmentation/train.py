"""Train the U-Net: python train.py CAMVID OUT.pt; the same command goes on after a stop (OUT.pt.resume).

The encoder starts from ImageNet and learns more slowly than the new decoder. The last epoch counts; the validation split only
shows how it goes. OUT.pt is a plain state_dict.
"""

import argparse
import math
import time
from pathlib import Path

import torch
from camvid import Scenes, confusion, load_encoder, loss, make, mean_overlap
from torch import nn
from torch.utils.data import DataLoader


def train(unet: nn.Module, scenes: Scenes, told: argparse.Namespace, resume: Path | None = None) -> nn.Module:
    """AdamW over `told.epochs` with a warm-up and a cosine; the encoder at `told.encoder_lr`, the rest at `told.lr`."""
    encoder = list(unet.encoder.parameters())
    rest = [p for name, p in unet.named_parameters() if not name.startswith("encoder.")]
    optimizer = torch.optim.AdamW(
        [{"params": encoder, "lr": told.encoder_lr}, {"params": rest, "lr": told.lr}], weight_decay=1e-2
    )
    generator = torch.Generator().manual_seed(told.seed)
    loader = DataLoader(scenes, told.batch, shuffle=True, drop_last=True, generator=generator)
    steps = told.epochs * len(loader)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
    )
    first = 0
    if resume is not None and resume.is_file():
        kept = torch.load(resume, weights_only=True)
        unet.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        schedule.load_state_dict(kept["schedule"])
        generator.set_state(kept["generator"])
        first = kept["epoch"]
    unet.to(memory_format=torch.channels_last)
    for epoch in range(first, told.epochs):
        unet.train()
        started, total = time.process_time(), 0.0
        for images, masks in loader:
            with torch.autocast("cpu", torch.bfloat16, enabled=told.bfloat16):
                logits = unet(images.to(memory_format=torch.channels_last))
            value = loss(logits.float(), masks)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
            total += value.item()
        print(f"epoch {epoch + 1}: loss {total / len(loader):.3f}, {time.process_time() - started:.0f} CPU s", flush=True)
        if resume is not None:
            state = {"model": unet.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
            aside = resume.with_suffix(".tmp")
            torch.save({**state, "generator": generator.get_state(), "epoch": epoch + 1}, aside)
            aside.replace(resume)
    return unet.to(memory_format=torch.contiguous_format)


def options() -> argparse.ArgumentParser:
    """What a training is told, the base's and that after a cut."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--encoder-lr", type=float, default=5e-4)
    parser.add_argument("--crop", type=int, nargs=2, default=(160, 192))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bfloat16", action="store_true")
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
    unet = make()
    load_encoder(unet)
    train(unet, Scenes(told.data, "train", tuple(told.crop)), told, told.out.with_suffix(".pt.resume"))
    torch.save(unet.state_dict(), told.out)
    for split in ("validation", "test"):
        print(split, f"mIoU {mean_overlap(confusion(unet, Scenes(told.data, split))):.4f}")
