"""The same by Torch-Pruning, for comparison: python torch_pruning_l1.py last.pt OUT/pruned.pt [--macs 0.5]

Its L1 criterion, one ratio for all layers, found by bisection; blocks that chunk are rewritten for it (halves.py). Left alone
are the head's last layers, and in the attention block the layers whose widths its code fixes.
"""

import argparse
from pathlib import Path

import torch
from detector import decoded, head, save_whole
from halves import Halved, halved
from torch import nn
from ultralytics import YOLO

from benchmarks.torch_pruning_arm import l1, macs


def left_alone(model: nn.Module) -> list[str]:
    """Names of convolutions."""
    detect = head(model)
    kept = {*(branch[-1] for branch in (*detect.cv2, *detect.cv3)), detect.dfl.conv}
    for block in (module for module in model.modules() if isinstance(module, Halved) and module.replaces):
        kept.add(block.second.conv)
        for one in block.m:
            kept |= {m for m in one.attn.modules() if isinstance(m, nn.Conv2d)} | {one.ffn[1].conv}
    return [name for name, module in model.named_modules() if module in kept]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--macs", type=float, default=0.5)
    parser.add_argument("--size", type=int, default=320)
    told = parser.parse_args()
    torch.set_num_threads(1)
    plain, example = decoded(YOLO(told.checkpoint).model), torch.rand(1, 3, told.size, told.size)
    model = halved(plain).requires_grad_(True)
    assert torch.allclose(model(example), plain(example), rtol=1e-3, atol=1e-3), "the rewritten network computes something else"
    small = l1(model, [example], told.macs, 0, left=left_alone(model))
    save_whole(small, told.checkpoint, told.out)
    print(f"{told.out}: {100 * macs(small, example) / macs(model, example):.1f} % of the MACs")
