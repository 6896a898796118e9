"""Train the U-Net: python train.py CAMVID OUT.pt; the same command goes on after a stop (OUT.pt.resume).

The encoder starts from ImageNet and learns more slowly than the new decoder. The last epoch counts; the validation split only
shows how it goes. OUT.pt is a plain state_dict.
"""

import argparse
from pathlib import Path

import torch
from camvid import SPLITS, OnDevice, Scenes, confusion, load_encoder, loss, make, mean_overlap
from torch import nn
from torch.utils.data import DataLoader

from examples import fitting


def train(unet: nn.Module, scenes: Scenes, told: argparse.Namespace, resume: Path | None = None) -> nn.Module:
    """By :func:`examples.fitting.fit`; on a GPU images are varied there, a batch at a time. It comes back on the CPU."""
    generator = torch.Generator().manual_seed(told.seed)
    batches = (
        DataLoader(scenes, told.batch, shuffle=True, drop_last=True, generator=generator)
        if told.device == "cpu"
        else OnDevice(scenes, told.batch, told.device, generator)
    )
    unet.to(told.device, memory_format=torch.channels_last)

    def loss_of(batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        images, masks = batch
        with torch.autocast(torch.device(told.device).type, torch.bfloat16, enabled=told.bfloat16):
            logits = unet(images.contiguous(memory_format=torch.channels_last))
        return loss(logits.float(), masks)

    fitting.fit(unet, fitting.optimizer_of(unet, "encoder.", told), batches, generator, loss_of, told, resume)
    return unet.to("cpu", memory_format=torch.contiguous_format)


def options() -> argparse.ArgumentParser:
    """What a training is told, the base's and that after a cut."""
    parser = fitting.options(epochs=30, lr=1.5e-3)
    parser.add_argument("--crop", type=int, nargs=2, default=(160, 192))
    return parser


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
    unet = make()
    if told.start is None:
        load_encoder(unet)
    else:
        unet.load_state_dict(torch.load(told.start, weights_only=True))
    train(unet, Scenes(told.data, "train", tuple(told.crop)), told, told.out.with_suffix(".pt.resume"))
    torch.save(unet.state_dict(), told.out)
    for split in told.splits:
        print(split, f"mIoU {mean_overlap(confusion(unet, Scenes(told.data, split))):.4f}")
