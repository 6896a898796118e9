"""What the example's commands share: a YOLO of Ultralytics as this project sees it, and as Ultralytics wants it back.

Ultralytics is under the AGPL-3.0: whoever distributes what is built with it, or offers it over a network, takes on its terms.
This project does not depend on it; this example does.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.modules import C2f, Detect
from ultralytics.nn.tasks import BaseModel

import compress

GREY = (114, 114, 114)
"""What Ultralytics fills the margin with."""


class KeepsModel(DetectionTrainer):  # type: ignore[misc]
    """Ultralytics' trainer, but for one thing: it trains the network it is given.

    The trainer itself rebuilds the network from its yaml, at the original widths, and copies what fits: of a pruned network
    nearly nothing. It trains on without an error, and the result is the unpruned architecture, trained from scratch.
    """

    def get_model(self, cfg: Any = None, weights: nn.Module | None = None, verbose: bool = True) -> nn.Module:
        """The network of the checkpoint, whole."""
        if weights is None:
            raise ValueError("the checkpoint holds no network: save it as save_whole() does")
        for parameter in weights.parameters():
            parameter.requires_grad_(parameter.is_floating_point())  # of a checkpoint's, none does
        return weights


def decoded(model: nn.Module) -> nn.Module:
    """A copy whose answer is the decoded boxes and scores alone, (images, 4 + classes, places).

    Otherwise the head gives its feature maps back beside them, and no channel that makes an output can go.
    """
    model = copy.deepcopy(model).float().eval()
    if any(getattr(module, "bn", None) is None for module in model.modules() if type(module).__name__ == "Conv"):
        raise ValueError("the network is fused: val(), predict() and export() do that; prune what YOLO(path).model gives")
    head(model).export = True
    return model


def head(model: nn.Module) -> Detect:
    """The layer that detects."""
    return next(module for module in model.modules() if isinstance(module, Detect))


def network(checkpoint: Path, size: int) -> compress.Network:
    """What is pruned: the averaged (EMA) weights of a checkpoint, in float32, on square images of 0..1."""
    example = torch.rand(1, 3, size, size)
    prepared = compress.Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (size, size))
    return compress.network_of(decoded(YOLO(checkpoint).model), prepared, checkpoint.stem, example=example)


def save_whole(model: nn.Module, original: Path, path: Path) -> None:
    """Write a pruned network as a checkpoint of Ultralytics, the module whole: a state_dict fits no yaml any more.

    What Ultralytics' loader puts on a network (class names, task, training arguments) comes from the original checkpoint.
    """
    model = copy.deepcopy(model)
    head(model).export = False
    for block in (module for module in model.modules() if isinstance(module, C2f)):
        block.c = block.cv1.conv.out_channels // 2  # read by forward_split() only, which nothing but Ultralytics' export calls
    kept = torch.load(original, map_location="cpu", weights_only=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {"epoch": -1, "optimizer": None, "ema": None, "updates": None, "train_args": kept["train_args"]}
    torch.save({**told, "model": model.half(), "version": kept.get("version"), "date": kept.get("date")}, path)


def letterboxed(images: Path, out: Path, size: int) -> Path:
    """Write images as Ultralytics shows them to the network: scaled to fit, the margin grey."""
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(images.glob("*.jpg")):
        picture = Image.open(path).convert("RGB")
        scale = size / max(picture.size)
        small = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BILINEAR)
        whole = Image.new("RGB", (size, size), GREY)
        whole.paste(small, ((size - small.width) // 2, (size - small.height) // 2))
        whole.save(out / f"{path.stem}.png")
    return out


def training(data: Path, out: Path, epochs: int, size: int, lr: float, seed: int) -> dict[str, Any]:
    """Settings of Ultralytics' trainer for a small data set on a CPU, of the base and after a cut alike.

    Every batch is an optimiser step (`nbs`): 64 images a step, the default, leave too few steps. The last epoch counts.
    """
    return {
        "data": data,
        "project": out.resolve().parent,
        "name": out.name,
        "exist_ok": True,
        "epochs": epochs,
        "imgsz": size,
        "batch": 8,
        "nbs": 8,
        "optimizer": "AdamW",
        "lr0": lr,
        "cos_lr": True,
        "warmup_epochs": min(3, epochs / 5),
        "flipud": 0.5,
        "close_mosaic": max(1, epochs // 8),
        "patience": 0,
        "device": "cpu",
        "workers": 0,
        "amp": False,
        "plots": False,
        "cache": "ram",
        "val": False,
        "seed": seed,
    }


def in_bfloat16() -> None:
    """From here on, layers of networks in training compute in bfloat16; what they give back is float32 again.

    Ultralytics' own mixed precision is for GPUs only. It reaches every layer through this one method.
    """
    plain = BaseModel._predict_once

    def predict(self: BaseModel, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.training):
            found = plain(self, *args, **kwargs)
        return _to_float(found)

    BaseModel._predict_once = predict


def _to_float(raw: Any) -> Any:
    if isinstance(raw, Tensor):
        return raw.float() if raw.is_floating_point() else raw
    if isinstance(raw, dict):
        return {key: _to_float(value) for key, value in raw.items()}
    return type(raw)(_to_float(value) for value in raw) if isinstance(raw, list | tuple) else raw
