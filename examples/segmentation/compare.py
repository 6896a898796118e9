"""Prune the U-Net to shares of its latency by several methods, train all alike, compare them on the test split.

    python compare.py CAMVID UNET.pt WORK RESULT.json --latency 0.7 0.5 --epochs 4

The arms and the steps: ``examples/arms.py``. What is done already in WORK is kept.
"""

import argparse

import numpy as np
import torch
from camvid import SIZE, Scenes, confusion, make, mean_overlap, padded_pictures
from torch import Tensor, nn
from train import options, train

import compress
from benchmarks.equal_latency_arms import Budget
from examples import arms

PREPROCESSING = compress.Preprocessing((127 / 255,) * 3, (128 / 255,) * 3, SIZE)


def draws_of(counts: Tensor, drawn: Tensor) -> np.ndarray:
    """MIoU of every draw, (draws,); a draw says how often each image occurs, (draws, images)."""
    tables = torch.einsum("di,iab->dab", drawn.double(), counts.double())
    return np.array([mean_overlap(table) for table in tables])


def main() -> None:
    """Prune, clock, train, measure, print, write."""
    told = arms.options(options(), __doc__ or "").parse_args()
    torch.set_num_threads(1)
    unet = make()
    unet.load_state_dict({name: value.float() for name, value in torch.load(told.weights, weights_only=True).items()})
    network = compress.network_of(unet.eval(), PREPROCESSING, "camvid-unet", example=torch.rand(1, 3, *SIZE))
    pictures = padded_pictures(told.data, told.work / "pictures")
    data = compress.open_data(str(pictures), preprocessing=PREPROCESSING)
    budget = Budget(last=told.clock, networks=told.networks, forwards=told.budget)
    bench = arms.Widths(network=network, data=data, work=told.work, budget=budget)

    def trained(model: nn.Module, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        scenes = Scenes(told.data, "train", tuple(told.crop))
        return train(model, scenes, argparse.Namespace(**{**vars(told), "seed": seed}))

    def figure(model: nn.Module) -> tuple[float, np.ndarray]:
        counts = confusion(model, Scenes(told.data, "test"))
        picked = torch.randint(len(counts), (arms.DRAWS, len(counts)), generator=torch.Generator().manual_seed(0))
        drawn = torch.stack([torch.bincount(one, minlength=len(counts)) for one in picked])
        return mean_overlap(counts), draws_of(counts, drawn)

    arms.Comparison(told=told, bench=bench, train=trained, figure=figure, unit="mIoU").run()


if __name__ == "__main__":
    main()
