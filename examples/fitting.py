"""The loop that trains the U-Net and the detector of this folder, on a CPU or a GPU: the base, and what is left after a cut."""

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

WARM_UP = 50
"""Steps."""
KEPT_EVERY = 20.0
"""Seconds: no state is written sooner after the one before."""


class Batches(Protocol):
    """An epoch's batches, as often as it is asked for them."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Any: ...


def options(*, epochs: int, lr: float) -> argparse.ArgumentParser:
    """What a training is told, the base's and that after a cut."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--seconds", type=float, help="the rate ends at 0 by then, should the epochs not be over")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=lr)
    parser.add_argument("--encoder-lr", type=float, default=5e-4, help="of what starts from ImageNet's weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--bfloat16", action="store_true", help="in the convolutions, while training")
    return parser


def optimizer_of(model: nn.Module, encoder: str, told: argparse.Namespace) -> torch.optim.Optimizer:
    """AdamW; the parameters below ``encoder`` learn at ``told.encoder_lr``, the rest at ``told.lr``."""
    known = [p for name, p in model.named_parameters() if name.startswith(encoder)]
    rest = [p for name, p in model.named_parameters() if not name.startswith(encoder)]
    return torch.optim.AdamW([{"params": known, "lr": told.encoder_lr}, {"params": rest, "lr": told.lr}], weight_decay=1e-2)


def fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    generator: torch.Generator,
    loss_of: Callable[[Any], Tensor],
    told: argparse.Namespace,
    resume: Path | None = None,
) -> None:
    """Train in place: a warm-up, then a cosine over the epochs, or over the seconds where these are over first.

    Args:
        generator: what orders the batches; kept with the state.
        loss_of: a batch to the loss.
        resume: where the state is kept, and taken up if there is one.
    """
    steps, begun, first = told.epochs * len(batches), time.monotonic(), 0

    def done(step: int) -> float:
        by_the_clock = (time.monotonic() - begun) / told.seconds if told.seconds else 0.0
        return min(1.0, max(step / steps, by_the_clock))

    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * done(step)))
    )
    if resume is not None and resume.is_file():
        kept = torch.load(resume, weights_only=True, map_location="cpu")
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        schedule.load_state_dict(kept["schedule"])
        generator.set_state(kept["generator"])
        first, begun = kept["epoch"], begun - kept["seconds"]
    written = time.monotonic()
    for epoch in range(first, told.epochs):
        if told.seconds and time.monotonic() - begun >= told.seconds:
            print(f"{told.seconds:g} s are over after {epoch} epochs", flush=True)
            break
        model.train()
        started, total = time.process_time(), torch.zeros((), device=told.device)
        for batch in batches:
            value = loss_of(batch)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
            total += value.detach()
        mean = total.item() / len(batches)
        print(f"epoch {epoch + 1}: loss {mean:.3f}, {time.process_time() - started:.1f} CPU s", flush=True)
        if resume is not None and (time.monotonic() - written >= KEPT_EVERY or epoch + 1 == told.epochs):
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
            aside, spent = resume.with_suffix(".tmp"), time.monotonic() - begun
            torch.save({**state, "generator": generator.get_state(), "epoch": epoch + 1, "seconds": spent}, aside)
            aside.replace(resume)
            written = time.monotonic()
