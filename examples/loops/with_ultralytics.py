"""Your own loop with Ultralytics' trainer: python with_ultralytics.py

A YOLO11n of a small size on generated squares; the real thing, with the pitfalls, is examples/yolo. Ultralytics is under the
AGPL-3.0; this project does not depend on it.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tiny import folder
from ultralytics import YOLO

import compress

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "yolo"))

from detector import KeepsModel, network, save_whole, training

SIZE = 64


def squares(out: Path, images: int = 16) -> Path:
    """Pictures of one bright square each, in Ultralytics' layout; the path of data.yaml."""
    rng = np.random.default_rng(0)
    for part in ("images", "labels"):
        (out / part / "train").mkdir(parents=True, exist_ok=True)
    for i in range(images):
        picture = rng.integers(0, 90, (SIZE, SIZE, 3), dtype=np.uint8)
        side, left, top = rng.integers(16, 28), *rng.integers(2, 30, 2)
        picture[top : top + side, left : left + side] = 230
        Image.fromarray(picture).save(out / f"images/train/{i}.png")
        shares = " ".join(f"{x / SIZE:.4f}" for x in (left + side / 2, top + side / 2, side, side))
        (out / f"labels/train/{i}.txt").write_text(f"0 {shares}\n")
    told = out / "data.yaml"
    told.write_text(f"path: {out.resolve()}\ntrain: images/train\nval: images/train\nnames:\n  0: square\n")
    return told


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = folder("ultralytics")
    yaml = squares(place / "data")
    base = YOLO("yolo11n.yaml")
    base.train(**training(yaml, place / "base", 1, SIZE, 0.001, 0))
    checkpoint = Path(base.trainer.last)
    before = network(checkpoint, SIZE)
    data = compress.open_data(str(place / "data/images/train"), preprocessing=before.preprocessing)
    job = compress.make_job(flags={"method": "uniform", "value": 0.5})
    decision = compress.decide(before, data, job, place / "run", fresh=True)
    save_whole(compress.cut(before.model, decision.topology, decision.plan), checkpoint, place / "pruned.pt")
    pruned = YOLO(place / "pruned.pt")
    pruned.train(trainer=KeepsModel, **training(yaml, place / "trained", 1, SIZE, 0.001, 0))
    sizes = [sum(p.numel() for p in YOLO(path).model.parameters()) for path in (checkpoint, pruned.trainer.last)]
    print(f"ultralytics: {sizes[0]:,} -> {sizes[1]:,} parameters")
