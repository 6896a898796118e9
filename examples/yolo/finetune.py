"""Fine-tune a pruned YOLO with Ultralytics' own trainer, export it, and let Ultralytics' own predictor run the file:

    python finetune.py pruned.pt data.yaml OUT [--epochs 15]    # goes on after a stop

The trainer is KeepsModel (detector.py): it trains the network it is given instead of building the original from its yaml. Every
weight is averaged over the steps (EMA) in a copy of the pruned network, and the checkpoint holds that copy whole, so that
nothing else has to know of the new widths. export() and predict() fuse batch norms into convolutions: prune before, not after.
"""

import argparse
from pathlib import Path

import torch
import yaml
from detector import KeepsModel, in_bfloat16, training
from torch import nn
from ultralytics import YOLO


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    """Of every tensor."""
    return {key: tensor.shape for key, tensor in model.state_dict().items()}


def finetune(pruned: Path, settings: dict[str, object]) -> Path:
    """Ultralytics' training of the network in a checkpoint, as it is; its last checkpoint.

    Raises:
        RuntimeError: what came back is another architecture.
    """
    before = shapes(YOLO(pruned).model)
    last = Path(str(settings["project"])) / str(settings["name"]) / "weights" / "last.pt"
    if not last.is_file():
        YOLO(pruned).train(trainer=KeepsModel, **settings)
    elif YOLO(last).ckpt["epoch"] >= 0:  # it was stopped; of an ended training it is -1
        YOLO(last).train(trainer=KeepsModel, resume=True)
    if shapes(YOLO(last).model) != before:
        raise RuntimeError(f"{last} holds another network than {pruned}")
    return last


def agreement(checkpoint: Path, onnx: Path, images: list[Path], size: int) -> float:
    """The largest difference, in pixels, between what Ultralytics' predictor finds with the network and with its file.

    By itself (`rect`) it shows the network images without most of the margin, but a file always squares.
    """
    worst = 0.0
    told = {"imgsz": size, "rect": False, "device": "cpu", "verbose": False}
    for given, wanted in zip(*(YOLO(path, task="detect")(images, **told) for path in (onnx, checkpoint)), strict=True):
        if len(given.boxes) != len(wanted.boxes):
            raise RuntimeError(f"{wanted.path}: {len(wanted.boxes)} boxes of the network, {len(given.boxes)} of the file")
        if len(given.boxes):
            worst = max(worst, float((given.boxes.xyxy - wanted.boxes.xyxy).abs().max()))
    return worst


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pruned", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--lr", type=float, default=0.001)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bfloat16", action="store_true")
    told = parser.parse_args()
    torch.set_num_threads(told.threads)
    if told.bfloat16:
        in_bfloat16()
    last = finetune(told.pruned, training(told.data, told.out, told.epochs, told.size, told.lr, told.seed))
    onnx = Path(YOLO(last).export(format="onnx", imgsz=told.size, device="cpu"))
    test = sorted((Path(yaml.safe_load(told.data.read_text())["path"]) / "images/test").glob("*"))[:8]
    print(f"{onnx}: boxes within {agreement(last, onnx, test, told.size):.2g} pixels of the network's on {len(test)} images")
