"""Your own loop with Ultralytics' trainer: python with_ultralytics.py

A YOLO11n of a small size on generated squares; the real thing, with the pitfalls, is examples/yolo. Ultralytics is under the
AGPL-3.0; this project does not depend on it.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tiny import folder
from torch import nn
from ultralytics import YOLO

import compress

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "yolo"))

from detector import KeepsModel, head, network, training

SIZE = 64
PLACE = folder("ultralytics")


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


def train(model: nn.Module, teacher: nn.Module, data: Any, budget: Any, hooks: Any) -> nn.Module:
    """Fine-tune the cut network with Ultralytics' trainer, losses, augmentation and averaged weights (EMA).

    The arguments are those of plain_pytorch.py; images and boxes come from data.yaml, beside what the search has looked at.
    """

    class Trainer(KeepsModel):
        def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> nn.Module:
            return super().get_model(weights=model)

    head(model).export = False
    yolo = YOLO("yolo11n.yaml")
    yolo.add_callback("on_train_start", lambda trainer: hooks.gradients(trainer.optimizer))
    told = training(PLACE / "data/data.yaml", budget.folder / "ultralytics", budget.epochs, SIZE, budget.lr, budget.seed)
    yolo.train(trainer=Trainer, **told)
    model.load_state_dict(yolo.trainer.ema.ema.state_dict())
    head(model).export = True
    return model.eval()


if __name__ == "__main__":
    torch.set_num_threads(1)
    yaml = squares(PLACE / "data")
    base = YOLO("yolo11n.yaml")
    base.train(**training(yaml, PLACE / "base", 1, SIZE, 0.001, 0))
    before = network(Path(base.trainer.last), SIZE)
    data = compress.open_data(str(PLACE / "data/images/train"), preprocessing=before.preprocessing)
    flags = {"method": "uniform", "value": 0.5, "recover": "bn", "epochs": 1, "lr": 0.001, "latency_seconds": 0.0}
    result = compress.prune(before, data, compress.make_job(flags=flags), PLACE / "run", train=train, fresh=True)
    sizes = [sum(p.numel() for p in model.parameters()) for model in (before.model, result.model)]
    print(f"ultralytics: {sizes[0]:,} -> {sizes[1]:,} parameters")
