"""What is left of networks whose branches all go: ONNX nodes, layers, parameters, and whether the file computes the same.

    python benchmarks/branches.py [NETWORK ...] [--size 64] [--out FILE]

Networks are torchvision's, or timm's as ``timm:NAME``, with random weights.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from compress.core import Plan, count, write_json
from compress.coupling import trace
from compress.export import export, export_verified
from compress.surgery import cut

FAMILIES = (
    "resnet18", "mobilenet_v2", "efficientnet_b0", "regnet_y_400mf", "convnext_tiny", "timm:cspdarknet53", "timm:ghostnet_100",
)  # fmt: skip


def network(name: str) -> nn.Module:
    """A network with random weights, in evaluation mode."""
    torch.manual_seed(0)
    if name.startswith("timm:"):
        import timm

        made: nn.Module = timm.create_model(name.removeprefix("timm:"), pretrained=False)
    else:
        from torchvision import models

        made = models.get_model(name, weights=None)
    return made.eval()


def nodes(path: Path) -> dict[str, int]:
    """Nodes of a file by kind."""
    return dict(Counter(node.op_type for node in onnx.load(path).graph.node))


def measured(name: str, size: int) -> dict[str, Any]:
    """One network with all its branches, and without any."""
    model = network(name)
    topology = trace(model, torch.zeros(1, 3, size, size))
    plan = Plan(branches=tuple(b.name for b in topology.branches))
    small = cut(model, topology, plan)
    images = torch.randn(10, 3, size, size, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        export(model, images, before)
        _, parity = export_verified(small, images, after)
        kinds = nodes(before), nodes(after)
    share = count(topology, plan).share_of(count(topology))
    return {
        "branches": len(topology.branches),
        "whole_modules": sum(len(b.modules) == 1 and b.modules[0].codes[0] == 0 for b in topology.branches),
        "kept": dict(topology.kept_branches),
        "macs": share.macs,
        "params": share.params,
        "nodes": [sum(k.values()) for k in kinds],
        "conv": [k.get("Conv", 0) + k.get("Gemm", 0) + k.get("MatMul", 0) for k in kinds],
        "add": [k.get("Add", 0) for k in kinds],
        "parity": str(parity.verdict),
    }


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=list(FAMILIES))
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found = {}
    print("| network | branches | MACs left | ONNX nodes | layers | additions | parity |\n|---|---|---|---|---|---|---|")
    for name in args.networks:
        one = found[name] = measured(name, args.size)
        pairs = " | ".join(f"{a} → {b}" for a, b in (one["nodes"], one["conv"], one["add"]))
        print(f"| {name} | {one['branches']} | {100 * one['macs']:.1f} % | {pairs} | {one['parity']} |", flush=True)
    if args.out:
        write_json(args.out, {"size": args.size, "networks": found})


if __name__ == "__main__":
    main()
