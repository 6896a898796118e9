"""Draws docs/equal-time.svg: accuracy left at equal measured time, from results/latency_search.json.

python benchmarks/equal_time_picture.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results" / "latency_search.json"
PICTURE = FOLDER.parent / "docs" / "equal-time.svg"
NAMES = {"resnet56": "ResNet-56, CIFAR-10", "efficientnet-lite0": "EfficientNet-Lite0, ImageNet"}
WIDTH, LEFT, RIGHT, TOP, ROW = 880, 270, 40, 96, 62
LOW, HIGH, STEP = 20, 95, 10
TITLE = "Accuracy left at equal measured time, without training"
NOTE = "Top-1 on test images with 95 % intervals; ONNX Runtime on a CPU, one thread. CIFAR-10 as JPEG, 250 images of ImageNet."

STYLE = """
    svg { font: 15px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
    .paper { fill: #ffffff; } .text { fill: #1f2328; } .quiet { fill: #57606a; font-size: 13px; }
    .grid { stroke: #d0d7de; } .base { stroke: #57606a; stroke-width: 2; stroke-dasharray: 4 3; }
    .ours { fill: #1f6feb; stroke: #1f6feb; } .theirs { fill: #bc4c00; stroke: #bc4c00; }
    @media (prefers-color-scheme: dark) {
      .paper { fill: #0d1117; } .text { fill: #e6edf3; } .quiet { fill: #9198a1; }
      .grid { stroke: #30363d; } .base { stroke: #9198a1; }
      .ours { fill: #58a6ff; stroke: #58a6ff; } .theirs { fill: #f0883e; stroke: #f0883e; }
    }
"""


def x(percent: float) -> float:
    """Where a percentage stands."""
    return LEFT + (percent - LOW) / (HIGH - LOW) * (WIDTH - LEFT - RIGHT)


def dot(arm: dict[str, Any], kind: str, y: float) -> Iterator[str]:
    """One accuracy with its interval and its figure."""
    low, high = (100 * bound for bound in arm["interval"])
    value = 100 * arm["top1"]
    ends = f'x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y}" y2="{y}"'
    yield f'<line class="{kind}" {ends} stroke-width="3" stroke-linecap="round"/>'
    if kind == "ours":
        yield f'<circle class="ours" cx="{x(value):.1f}" cy="{y}" r="6.5"/>'
    else:
        yield f'<rect class="theirs" x="{x(value) - 6:.1f}" y="{y - 6}" width="12" height="12"/>'
    place = f'x="{x(high) + 8:.1f}"' if kind == "ours" else f'x="{x(low) - 8:.1f}" text-anchor="end"'
    yield f'<text class="{kind}" style="stroke: none" {place} y="{y + 5}" font-weight="600">{value:.1f}</text>'


def picture(results: dict[str, Any]) -> str:
    """The drawing as text."""
    rows = [(key.split()[0], facts) for key, facts in results["against"].items()]
    bottom = TOP + ROW * len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 56}" role="img" aria-label="{TITLE}">',
        f"  <style>{STYLE}  </style>",
        f'<rect class="paper" width="{WIDTH}" height="{bottom + 56}" rx="8"/>',
        f'<text class="text" x="24" y="34" font-size="18" font-weight="600">{TITLE}</text>',
        '<circle class="ours" cx="30" cy="58" r="6.5"/><text class="text" x="44" y="63">smaller-convnets</text>'
        '<rect class="theirs" x="190" y="52" width="12" height="12"/><text class="text" x="210" y="63">Torch-Pruning</text>'
        '<line class="base" x1="334" x2="334" y1="50" y2="66"/><text class="text" x="344" y="63">before</text>',
    ]
    for percent in range(LOW, HIGH + 1, STEP):
        parts.append(f'<line class="grid" x1="{x(percent):.1f}" x2="{x(percent):.1f}" y1="{TOP - 8}" y2="{bottom}"/>')
        parts.append(f'<text class="quiet" x="{x(percent):.1f}" y="{bottom + 20}" text-anchor="middle">{percent} %</text>')
    for number, (name, facts) in enumerate(rows):
        y, base = TOP + ROW * number + 12, x(100 * facts["base"]["top1"])
        ours, theirs = facts["ours"], facts["theirs"]
        parts.append(f'<text class="text" x="24" y="{y + 8}">{NAMES[name]}</text>')
        times = f"{ours['latency']:.2f} and {theirs['latency']:.2f} of the time"
        parts.append(f'<text class="quiet" x="24" y="{y + 28}">{times}</text>')
        parts.append(f'<line class="base" x1="{base:.1f}" x2="{base:.1f}" y1="{y - 12}" y2="{y + 36}"/>')
        parts += [*dot(ours["reconstructed"], "ours", y), *dot(theirs["batch norm"], "theirs", y + 24)]
    parts.append(f'<text class="quiet" x="24" y="{bottom + 42}">{NOTE}</text>')
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    """Writes it."""
    PICTURE.write_text(picture(json.loads(RESULTS.read_text())))
    print(PICTURE)


if __name__ == "__main__":
    main()
