"""Prune the detector by several methods and compare them on the test split: python compare.py VOC DETECTOR.pt WORK RESULT.json

Ours (`smoea`, `uniform`) search without labels on the training images; Torch-Pruning cuts by the filters' L1 norms at one ratio
for all layers. Batch norms are re-estimated after both. Then, with `--epochs`, every arm is
trained alike. Intervals are from 1,000 draws of the test images, the same for every arm. What is done already in WORK is kept.
"""

import argparse
import copy
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from cells import SIZE, Cells, Dense, Precision, detected, make, pictures
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
    """Cut where this project decides, batch norms re-estimated.

    Not by ``compress.prune``: without labels it compares outputs, and a ruined detector, which finds nothing, is nearer to
    most of the 14,400 anchors' answers than one that finds something.
    """
    flags = {"method": method, "value": share, **search, "epochs": 0, "latency_seconds": 0.0}
    decision = compress.decide(network, data, compress.make_job(flags=flags), folder)
    return reestimate(compress.cut(network.model, decision.topology, decision.plan), in_batches(data))


def in_batches(data: compress.Data) -> list[Tensor]:
    """The images that batch norms are re-estimated on, by ours and theirs alike."""
    return list(torch.split(data.calibration.images(64), 8))


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
    detector = make()
    detector.load_state_dict(torch.load(told.weights, weights_only=True))
    example = torch.rand(1, 3, *SIZE)
    network = compress.network_of(Dense(detector.eval()), PREPROCESSING, "bccd-detector", example=example)
    data = compress.open_data(str(pictures(told.data, told.work / "pictures")), preprocessing=PREPROCESSING)
    batches = in_batches(data)
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
        cells = Cells(told.data, "train", augment=True)
        for name in [name for name in arms if name != "base"]:
            arms[f"{name}, trained"] = kept(
                told.work / f"{name}-{told.epochs}-epochs.pt",
                lambda name=name: Dense(train(copy.deepcopy(arms[name].detector), cells, told)),
            )
    test = Cells(told.data, "test")
    rng = np.random.default_rng(0)
    draws = [rng.integers(len(test), size=len(test)).tolist() for _ in range(DRAWS)]
    scored = {name: Precision(detected(model.detector, test)) for name, model in arms.items()}
    points = {name: one.of() for name, one in scored.items()}
    found = {name: np.array([one.of(draw) for draw in draws]) for name, one in scored.items()}
    whole = macs(network.model, example)
    rows = {
        name: {
            "mAP50": points[name],
            "interval": interval(found[name]),
            "drop": points["base"] - points[name],
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
            f"{name:22} {100 * row['macs']:5.1f} % of the MACs: mAP50 {100 * row['mAP50']:.1f}, "
            f"drop {100 * row['drop']:.1f} points ({100 * low:.1f} to {100 * high:.1f})"
        )


if __name__ == "__main__":
    main()
