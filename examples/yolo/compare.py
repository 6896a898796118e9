"""Pruned YOLOs side by side on the test split, with paired intervals over its images:

    python compare.py data.yaml RESULT.json base=last.pt smoea=a/last.pt,b/last.pt tp-l1=c/last.pt,d/last.pt

An arm may have several checkpoints, of several seeds. Images are drawn with replacement, 1,000 times, the same for every arm;
of several seeds, mAP50 is the mean in every draw. Differences are of every pair of arms.
"""

import argparse
import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detector import decoded
from torch.utils.flop_counter import FlopCounterMode
from ultralytics import YOLO, __version__
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.utils.metrics import ap_per_class

DRAWS = 1000


class Keeping(DetectionValidator):  # type: ignore[misc]
    """Ultralytics' validator; what it counted on every image is kept."""

    counted: dict[str, list[np.ndarray]]

    def get_stats(self) -> Any:
        """As it is; the counts are cleared in it."""
        type(self).counted = {key: list(values) for key, values in self.metrics.stats.items()}
        return super().get_stats()


def counts(checkpoint: Path, data: Path, size: int) -> dict[str, list[np.ndarray]]:
    """Per image: which boxes are right at which overlap, their scores and classes, and the classes that are there."""
    told = {
        "data": data,
        "split": "test",
        "imgsz": size,
        "batch": 8,
        "device": "cpu",
        "workers": 0,
        "plots": False,
        "verbose": False,
    }
    YOLO(checkpoint).val(validator=Keeping, project=checkpoint.parent / "val", exist_ok=True, **told)
    return {key: Keeping.counted[key] for key in ("tp", "conf", "pred_cls", "target_cls")}


def precision(counted: dict[str, list[np.ndarray]], images: np.ndarray) -> float:
    """MAP50 of some images, a fraction."""
    drawn = [np.concatenate([counted[key][i] for i in images]) for key in ("tp", "conf", "pred_cls", "target_cls")]
    return float(ap_per_class(*drawn)[5][:, 0].mean())


def macs(checkpoint: Path, size: int) -> int:
    """Multiply-accumulates of one image."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        decoded(YOLO(checkpoint).model)(torch.rand(1, 3, size, size))
    return int(counter.get_total_flops() // 2)


def interval(values: np.ndarray) -> list[float]:
    """95 %, from draws."""
    return [float(x) for x in np.quantile(values, (0.025, 0.975))]


def main() -> None:
    """Measure all arms, print them, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("arms", nargs="+", help="NAME=CHECKPOINT[,CHECKPOINT...]; the unpruned network first")
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--epochs", type=int, required=True, help="of fine-tuning, to be written down")
    told = parser.parse_args()
    torch.set_num_threads(1)
    arms = {name: [Path(p) for p in paths.split(",")] for name, paths in (arm.split("=", 1) for arm in told.arms)}
    counted = {name: [counts(path, told.data, told.size) for path in paths] for name, paths in arms.items()}
    total = len(next(iter(counted.values()))[0]["tp"])
    rng = np.random.default_rng(0)
    draws = [np.arange(total), *(rng.integers(total, size=total) for _ in range(DRAWS))]
    found = {
        name: np.array([np.mean([precision(one, draw) for one in runs]) for draw in draws]) for name, runs in counted.items()
    }
    rows = {
        name: {
            "mAP50": values[0],
            "interval": interval(values[1:]),
            "seeds": len(arms[name]),
            "each": [precision(one, draws[0]) for one in counted[name]],
            "macs": macs(arms[name][0], told.size),
        }
        for name, values in found.items()
    }
    gaps = {
        f"{b} - {a}": {"difference": float(found[b][0] - found[a][0]), "interval": interval(found[b][1:] - found[a][1:])}
        for a, b in combinations(found, 2)
    }
    conditions = {"images": total, "size": told.size, "epochs": told.epochs, "draws": DRAWS, "ultralytics": __version__}
    told.result.write_text(json.dumps({**conditions, "arms": rows, "differences": gaps}, indent=1) + "\n")
    for name, row in rows.items():
        low, high = row["interval"]
        print(f"{name:12} mAP50 {100 * row['mAP50']:.1f} ({100 * low:.1f} to {100 * high:.1f}), {row['macs'] / 1e6:.0f} M MACs")
    for name, gap in gaps.items():
        low, high = gap["interval"]
        verdict = "inconclusive" if low <= 0 <= high else "differs"
        print(f"{name}: {100 * gap['difference']:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}), {verdict}")


if __name__ == "__main__":
    main()
