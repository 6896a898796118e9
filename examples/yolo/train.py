"""Train YOLO11n with Ultralytics' own trainer: python train.py data.yaml OUT; the same command goes on after a stop.

Processors with bfloat16 train faster with it (`--bfloat16`; weights, loss and statistics stay float32).
"""

import argparse
from pathlib import Path

import torch
from detector import in_bfloat16, training
from ultralytics import YOLO

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--lr", type=float, default=0.0015)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--weights", type=Path, help="start from this checkpoint, with a new schedule")
    parser.add_argument("--bfloat16", action="store_true")
    told = parser.parse_args()
    torch.set_num_threads(told.threads)
    if told.bfloat16:
        in_bfloat16()
    last = told.out.resolve() / "weights" / "last.pt"
    if last.is_file():
        YOLO(last).train(resume=True)
    else:
        settings = training(told.data, told.out, told.epochs, told.size, told.lr, told.seed)
        YOLO(told.weights or "yolo11n.yaml").train(**settings)
