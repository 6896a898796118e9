"""Fine-tune an unpruned network on other images, e.g. a CIFAR-10 ResNet on JPEG-compressed images.

    python benchmarks/adapt_cifar.py MODEL DATA --out OUT.safetensors [--epochs 6] [--seed 0]

The state is kept beside the result, so the same command goes on after an interruption. The test split is read once, when
training is over.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path

from compress_models import MODELS

from compress.data import open_data, preset_for
from compress.evaluation import accuracy
from compress.networks import load, save
from compress.recovery import EpochDone, Schedule, TrainingEvent, fit


def listen(event: TrainingEvent) -> None:
    if isinstance(event, EpochDone):
        print(
            f"epoch {event.epoch}/{event.epochs}: loss {event.loss:.4f}, training accuracy {100 * event.accuracy:.2f} %, "
            f"{event.seconds:.0f} s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arch", help="where it cannot be recognised")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    loaded = load(args.model, zoo=MODELS, arch=args.arch)
    preprocessing = loaded.preprocessing or preset_for(loaded.architecture.name)
    # The division of the images does not follow the training seed: every run holds out the same ones.
    data = open_data(args.data, preprocessing=preprocessing)
    assert data.train is not None
    schedule = Schedule(args.epochs, lr=args.lr, batch=args.batch, seed=args.seed)
    before = accuracy(loaded.model, data.validation, precision="auto")
    print(f"{loaded.architecture.name}: validation {100 * before.top1:.2f} % before", flush=True)
    start = time.perf_counter()
    state = args.out.with_name(args.out.name + ".state")
    model = fit(loaded.model, data.train, schedule, state_dir=state, listen=listen)
    after, test = accuracy(model, data.validation), accuracy(model, data.test)
    low, high = test.interval
    metadata = {
        "parent": loaded.digest,
        "schedule": asdict(schedule),
        "data": data.digests,
        "accuracy": {
            "validation_before": before.top1,
            "validation": after.top1,
            "test": test.top1,
            "test_interval": [low, high],
        },
    }
    save(args.out, model, architecture=loaded.architecture, preprocessing=preprocessing, plan=loaded.plan, metadata=metadata)
    print(f"validation {100 * after.top1:.2f} % after {time.perf_counter() - start:.0f} s")
    print(f"test {100 * test.top1:.2f} % ({100 * low:.2f} to {100 * high:.2f}, {test.total} images) -> {args.out.name}")


if __name__ == "__main__":
    main()
