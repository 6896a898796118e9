"""Prune the U-Net by several methods and compare them on the test split: python compare.py CAMVID UNET.pt WORK RESULT.json

Ours (`smoea`, `uniform`) search without labels on the training images and are recovered by least squares; Torch-Pruning cuts by
the filters' L1 norms at one ratio for all layers, and its batch norms are re-estimated. Then, with `--epochs`, every arm is
trained alike. Intervals are from 1,000 draws of the test images, the same for every arm. What is done already in WORK is kept.
"""

import argparse
import copy
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from camvid import SIZE, Scenes, confusion, make, mean_overlap, padded_pictures
from torch import Tensor, nn
from train import options, train

import compress
from benchmarks.torch_pruning_arm import l1, macs
from compress.coupling import trace
from compress.recovery import reestimate

DRAWS = 1000
PREPROCESSING = compress.Preprocessing((127 / 255,) * 3, (128 / 255,) * 3, SIZE)


def ours(
    network: compress.Network, data: compress.Data, method: str, share: float, folder: Path, search: dict[str, int | None]
) -> nn.Module:
    """Cut and recovered by this project, without labels and without training."""
    flags = {"method": method, "value": share, **search, "epochs": 0, "latency_seconds": 0.0}
    return compress.prune(network, data, compress.make_job(flags=flags), folder).model


def theirs(network: compress.Network, batches: list[Tensor], share: float, left: list[str]) -> nn.Module:
    """Cut by Torch-Pruning, batch norms re-estimated."""
    return reestimate(l1(network.model, batches, share, 0, left=left), batches)


def kept(path: Path, make_it: Callable[[], nn.Module]) -> nn.Module:
    """The module in the file, made first where there is none."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(make_it(), path)
    found: nn.Module = torch.load(path, weights_only=False)  # of our own making, in our own folder
    return found


def interval(values: np.ndarray) -> list[float]:
    """95 %, from draws."""
    return [float(x) for x in np.quantile(values, (0.025, 0.975))]


def draws_of(counts: Tensor, drawn: Tensor) -> np.ndarray:
    """MIoU of every draw, (draws,); a draw says how often each image occurs, (draws, images)."""
    tables = torch.einsum("di,iab->dab", drawn.double(), counts.double())
    return np.array([mean_overlap(table) for table in tables])


def main() -> None:
    """Prune, train, measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, parents=[options()], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.7, 0.5], help="of the MACs")
    parser.add_argument("--budget", type=int, help="image-forwards of a search")
    parser.add_argument("--calibration", type=int, help="images of a search and of least squares")
    parser.add_argument("--threads", type=int, default=1)
    parser.set_defaults(epochs=0)
    told = parser.parse_args()
    torch.set_num_threads(told.threads)
    unet = make()
    unet.load_state_dict(torch.load(told.weights, weights_only=True))
    example = torch.rand(1, 3, *SIZE)
    network = compress.network_of(unet.eval(), PREPROCESSING, "camvid-unet", example=example)
    pictures = padded_pictures(told.data, told.work / "pictures")
    data = compress.open_data(str(pictures), preprocessing=PREPROCESSING)
    batches = list(torch.split(data.calibration.images(64), 8))
    left = sorted(trace(network.model, example).frozen)
    search = {"budget": told.budget, "calibration": told.calibration}
    arms: dict[str, nn.Module] = {"base": network.model}
    for share in told.shares:
        for method in ("smoea", "uniform"):
            name = f"{method}-{share:g}"
            arms[name] = kept(
                told.work / f"{name}.pt",
                lambda method=method, share=share, name=name: ours(network, data, method, share, told.work / name, search),
            )
        arms[f"tp-l1-{share:g}"] = kept(
            told.work / f"tp-l1-{share:g}.pt", lambda share=share: theirs(network, batches, share, left)
        )
    if told.epochs:
        scenes = Scenes(told.data, "train", tuple(told.crop))
        for name in [name for name in arms if name != "base"]:
            arms[f"{name}, trained"] = kept(
                told.work / f"{name}-{told.epochs}-epochs.pt", lambda name=name: train(copy.deepcopy(arms[name]), scenes, told)
            )
    test = Scenes(told.data, "test")
    rng = torch.Generator().manual_seed(0)
    picked = torch.randint(len(test), (DRAWS, len(test)), generator=rng)
    drawn = torch.stack([torch.bincount(one, minlength=len(test)) for one in picked])
    counts = {name: confusion(model, test) for name, model in arms.items()}
    found = {name: draws_of(table, drawn) for name, table in counts.items()}
    whole = macs(network.model, example)
    rows = {
        name: {
            "mIoU": mean_overlap(counts[name]),
            "interval": interval(found[name]),
            "drop": mean_overlap(counts["base"]) - mean_overlap(counts[name]),
            "drop_interval": interval(found["base"] - found[name]),
            "macs": macs(model, example) / whole,
        }
        for name, model in arms.items()
    }
    conditions = {"images": len(test), "draws": DRAWS, "epochs": told.epochs, "lr": told.lr, "macs": whole, "seed": told.seed}
    told.result.write_text(json.dumps({**conditions, **search, "network": network.digest, "arms": rows}, indent=1) + "\n")
    for name, row in rows.items():
        low, high = row["drop_interval"]
        print(
            f"{name:22} {100 * row['macs']:5.1f} % of the MACs: mIoU {100 * row['mIoU']:.1f}, "
            f"drop {100 * row['drop']:.1f} points ({100 * low:.1f} to {100 * high:.1f})"
        )


if __name__ == "__main__":
    main()
