"""Prune the detector to shares of its latency by several methods, train all alike, compare them on the test split.

    python compare.py VOC DETECTOR.pt WORK RESULT.json --latency 0.7 0.5 --epochs 3

The arms and the steps: ``examples/arms.py``. What is done already in WORK is kept. Clocked is what is cut, backbone, pyramid
and head; not the suppression of overlapping boxes.
"""

import argparse

import numpy as np
import torch
from cells import SIZE, Cells, Dense, Precision, detected, make, pictures
from torch import nn
from train import options, train

import compress
from benchmarks.equal_latency_arms import Budget
from examples import arms

PREPROCESSING = compress.Preprocessing((127 / 255,) * 3, (128 / 255,) * 3, SIZE)


def main() -> None:
    """Prune, clock, train, measure, print, write."""
    told = arms.options(options(), __doc__ or "").parse_args()
    torch.set_num_threads(1)
    detector = make()
    detector.load_state_dict({name: value.float() for name, value in torch.load(told.weights, weights_only=True).items()})
    network = compress.network_of(Dense(detector.eval()), PREPROCESSING, "bccd-detector", example=torch.rand(1, 3, *SIZE))
    data = compress.open_data(str(pictures(told.data, told.work / "pictures")), preprocessing=PREPROCESSING)
    budget = Budget(last=told.clock, networks=told.networks, forwards=told.budget)
    bench = arms.Widths(network=network, data=data, work=told.work, budget=budget)

    def trained(model: nn.Module, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        cells = Cells(told.data, "train", augment=True, device=told.device)
        return Dense(train(model.detector, cells, argparse.Namespace(**{**vars(told), "seed": seed})))

    def figure(model: nn.Module) -> tuple[float, np.ndarray]:
        cells = Cells(told.data, "test")
        scored, rng = Precision(detected(model.detector, cells)), np.random.default_rng(0)
        draws = [rng.integers(len(cells), size=len(cells)).tolist() for _ in range(arms.DRAWS)]
        return scored.of(), np.array([scored.of(draw) for draw in draws])

    arms.Comparison(told=told, bench=bench, train=trained, figure=figure, unit="mAP50").run()


if __name__ == "__main__":
    main()
