"""Prune a YOLO: python prune.py last.pt data.yaml OUT [--macs 0.5]; writes OUT/pruned.pt, which YOLO() loads.

The search needs no labels: it goes by the decoded boxes and scores on the training images. `finetune.py` comes next.
"""

import argparse
from pathlib import Path

import torch
import yaml
from detector import letterboxed, network, save_whole

import compress

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--macs", type=float, default=0.5)
    parser.add_argument("--method", default="smoea")
    parser.add_argument("--budget", type=int, help="image-forwards of the search")
    parser.add_argument("--calibration", type=int, help="images of the search")
    parser.add_argument(
        "--recover", default="bn", help="before the fine-tuning; reconstruct solves layer by layer, for minutes"
    )
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    told = parser.parse_args()
    torch.set_num_threads(told.threads)
    train = Path(yaml.safe_load(told.data.read_text())["path"]) / "images/train"
    before = network(told.checkpoint, told.size)
    data = compress.open_data(str(letterboxed(train, told.out / "images", told.size)), preprocessing=before.preprocessing)
    flags = {
        "method": told.method,
        "value": told.macs,
        "budget": told.budget,
        "calibration": told.calibration,
        "seed": told.seed,
    }
    flags |= {"recover": told.recover, "epochs": 0, "latency_seconds": 0.0}
    result = compress.prune(before, data, compress.make_job(flags=flags), told.out / "run")
    save_whole(result.model, told.checkpoint, told.out / "pruned.pt")
    print(f"{told.out / 'pruned.pt'}: {100 * result.report.reached:.1f} % of the MACs")
