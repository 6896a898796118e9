"""Train the reference network of the demonstration on scikit-learn's handwritten digits, and write its model card.

    python benchmarks/train_reference.py [--out models/checkpoints] [--epochs 40]

Three seeds, the last epoch of each; the checkpoint is seed 0's, whatever the others reach. The division of the images is
the same for all, and the one that `compress prune --data digits` sees. The test split is read once a seed, at the end.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path

import torch
from compress_models import MODELS

from compress.core import Accuracy
from compress.data import Data, open_data, preset_for
from compress.evaluation import accuracy
from compress.networks import Architecture, save, seeded
from compress.recovery import Schedule, fit

SEEDS = (0, 1, 2)
NAME = "digits_net"


def percent(found: Accuracy) -> str:
    low, high = found.interval
    return f"{100 * found.top1:.2f} % ({found.correct} of {found.total}; 95 %: {100 * low:.2f} to {100 * high:.2f})"


def card(data: Data, schedule: Schedule, rows: list[tuple[int, Accuracy, Accuracy]], digest: str, parameters: int) -> str:
    sizes = ",\n  ".join(f"{split.name} {len(split)} (`{split.digest}`)" for split in data.splits)
    table = "\n".join(f"| {seed} | {percent(validation)} | {percent(test)} |" for seed, validation, test in rows)
    s = schedule
    return f"""# digits-net

The network of the demonstration: `{NAME}` of `compress_models`, {parameters:,} parameters, for 8-pixel grey images of
handwritten digits. It is there to be pruned in a minute on any machine, not to be a record.

- **File**: `digits-net.safetensors`, tensors and JSON, nothing pickled; digest `{digest}`.
- **Data**: scikit-learn's `load_digits` (1,797 images of the UCI set "Optical Recognition of Handwritten Digits", Alpaydin
  and Kaynak 1998, CC BY 4.0), pixels scaled to [0, 1], then mean 0.5, deviation 0.5. Divided once, images and digest:
  {sizes}.
- **Protocol**: SGD, {s.epochs} epochs, Nesterov momentum {s.momentum}, learning rate {s.lr} after a warm-up of
  {s.warmup_epochs:g} epochs and then a cosine to 0, batch {s.batch}, weight decay {s.weight_decay}, float32,
  images as they are. The last epoch's weights, never the best epoch's. The file holds seed 0.
- **Command**: `python benchmarks/train_reference.py`

| seed | validation | test |
|---|---|---|
{table}

**Limits**: 1,797 images from one source; the intervals are wide, and differences of a point between networks mean
nothing here. Not for reading digits in earnest. Licence: that of this project.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "models" / "checkpoints")
    parser.add_argument("--epochs", type=int, default=40)
    args = parser.parse_args()

    preprocessing = preset_for(NAME)
    data = open_data("digits", preprocessing=preprocessing)
    assert data.train is not None
    rows, kept = [], None
    for seed in SEEDS:
        schedule = Schedule(args.epochs, lr=0.05, batch=64, warmup_epochs=1.0, precision="fp32", augment=False, seed=seed)
        with seeded(seed):
            model = MODELS[NAME]()
        start = time.perf_counter()
        model = fit(model, data.train, schedule)
        rows.append((seed, accuracy(model, data.validation), accuracy(model, data.test)))
        print(
            f"seed {seed}: validation {percent(rows[-1][1])}, test {percent(rows[-1][2])}, {time.perf_counter() - start:.0f} s"
        )
        kept = kept or (model, schedule)
    assert kept is not None
    model, schedule = kept
    metadata = {
        "schedule": asdict(schedule),
        "data": data.digests,
        "accuracy": {"validation": rows[0][1].top1, "test": rows[0][2].top1, "test_interval": list(rows[0][2].interval)},
        "torch": torch.__version__,
    }
    digest = save(
        args.out / "digits-net.safetensors",
        model,
        architecture=Architecture(NAME),
        preprocessing=preprocessing,
        metadata=metadata,
    )
    parameters = sum(p.numel() for p in model.parameters())
    (args.out / "digits-net.md").write_text(card(data, schedule, rows, digest, parameters))


if __name__ == "__main__":
    main()
