"""docs/coverage.md from results/coverage.json."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from coverage_models import DENSE, classifiers

HEAD = """# Which networks are cut exactly

Written by `benchmarks/coverage.py`; every figure is in `benchmarks/results/coverage.json`. A network is **exact** where, at
30 %, 50 % and 80 % of the channels of every group, chosen at random and by their l1 norms, the cut network computes what
the uncut one does with the removed channels' readers zeroed: the error, over the spread across inputs, in float64, at the
outputs and at every reader, is at most 1e-5; and the parameters counted from the plan are those of the cut network. Groups
that are left alone are listed below with the reason: `compress inspect` says the same.

Weights are random and the batch norms hold the statistics of the inputs; neither changes what is coupled. Images are as
small as each network allows. `prunable` is the share of the MACs, at that size, in layers that lose rows or columns.
`trace` is processor time in seconds on one thread, trial cut included. `trains` says whether a training step runs after the
cut, auxiliary heads included; "–" where the uncut network does not train on these inputs either (detectors want targets).
Parity is ONNX Runtime against torch at half of the channels; an empty cell: not run. A star: measured before
the last changes of the tracing code.
"""

REFUSALS = """## What is refused, and why

What cannot be followed stays, and what cannot be used at all is refused before any work. The three refusals that one is most
likely to meet, as printed. A transformer:

```
$ compress inspect vit.pt --arch timm:vit_tiny_patch16_224
error: VisionTransformer contains attention (blocks.0.attn); this tool cuts convolutional networks only
hint: transformers need head and token pruning, which is another trade
```

A width that is written into the code, here `x.view(-1, 32 * 16 * 16)`; the layer before it stays, the others are cut:

```
$ compress inspect net.pt --arch mynets:make_net --size 32
 layer   kind     channels     MACs    share   params   coupled in group, or why it stays
 a       conv           32    885 k    8.5 %      864   a
 b       conv           32   9.44 M   90.7 %   9.22 k   a constant in the code depends on its width; a trial cut
                                                        failed: the cut network does not run: RuntimeError: shape '[-1,
                                                        8192]' is invalid for input of size 16896
 head    linear         10   81.9 k    0.8 %   81.9 k   it makes the network's output
```

Images of another size than the network takes:

```
$ compress inspect squeezenet.pt --arch torchvision:squeezenet1_1 --size 16
error: the network does not take images of [3, 16, 16]: Given input size: (256x1x1). Calculated output size: (256x0x0). Output
size is too small
hint: give the size it was trained on with --size
```
"""


def write_page(rows: dict[str, Any], path: Path) -> None:
    rows = {name: judged(row) for name, row in rows.items()}
    houses = {
        "torchvision's classifiers": [n for n in classifiers() if n in rows],
        "torchvision's networks for segmentation and detection": [n for n in DENSE if n in rows],
        "timm": [n for n in rows if n.startswith("timm:")],
    }
    parts = [HEAD, summary(rows, houses)]
    for title, names in houses.items():
        parts += [f"## {title}\n", table([rows[n] for n in names if rows[n]["state"] == "exact"])]
        others = [rows[n] for n in names if rows[n]["state"] != "exact"]
        if others:
            parts.append("\n".join(f"- `{plain(r)}`: {r['state']}: {r['reason']}" for r in others) + "\n")
    parts += [
        agreement([rows[n] for n in houses["torchvision's classifiers"]]),
        strange(path),
        structures(),
        REFUSALS,
        left_alone(rows),
    ]
    path.write_text("\n".join(parts).rstrip() + "\n")


def judged(row: dict[str, Any]) -> dict[str, Any]:
    """A network of which no channel may go is not exact but refused."""
    if row["state"] != "exact" or row["groups"]:
        return row
    ((reason, layers),) = Counter(row["frozen"].values()).most_common(1)
    return row | {"state": "refused", "errors": {}, "reason": f"no channel may go; {layers} layers: {reason}"}


def plain(row: dict[str, Any]) -> str:
    name: str = row["name"].partition(":")[2]
    return name


def summary(rows: dict[str, Any], houses: dict[str, list[str]]) -> str:
    lines = ["| | looked at | exact | refused, with the reason | wrong | not measured |", "|---|---|---|---|---|---|"]
    for title, names in houses.items():
        states = Counter(rows[n]["state"] for n in names)
        rest = len(names) - states["exact"] - states["refused"] - states["wrong"]
        lines.append(f"| {title} | {len(names)} | {states['exact']} | {states['refused']} | {states['wrong']} | {rest} |")
    worst = max((e for r in rows.values() if r["state"] == "exact" for e in r["errors"].values()), default=0.0)
    plans = sum(len(r.get("errors", {})) for r in rows.values())
    return "\n".join(lines) + f"\n\nThe largest error of all {plans} cuts is {worst:.1e}.\n"


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| network | size | groups | prunable | trace | error at 30 %, 50 %, 80 %, random | ranked | trains | parity |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        drawn, ranked = (
            ", ".join(f"{r['errors'][f'{kind} {ratio}']:.0e}" for ratio in (0.3, 0.5, 0.8)) for kind in ("random", "ranked")
        )
        trains = {True: "yes", False: "**no**", None: "–"}[r["trains"]]
        share, seconds = f"{100 * r['prunable']:.1f} %", f"{r.get('trace_cpu_s', r['trace_s']):.1f}"
        name = f"`{plain(r)}`" + (" \\*" if r.get("earlier") else "")
        cells = (name, r["size"], r["groups"], share, seconds, drawn, ranked, trains, parity(r))
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def agreement(rows: list[dict[str, Any]]) -> str:
    """What Torch-Pruning's graph and the channel identities tell of the same networks."""
    asked = [r for r in rows if "agreement" in r]
    if not asked:
        return ""
    lines = [
        "## Two witnesses\n",
        "`benchmarks/coverage.py --agreement`: groups that Torch-Pruning's dependency graph has exactly as the",
        "channel identities have them ([ADR 5](adr/0005-two-witnesses-of-the-coupling.md)), index by index, over",
        "torchvision's classifiers; the trial cuts, and the CPU seconds of the whole trace on one thread, at the",
        "image sizes of the table above. Before, each took two trials.\n",
        "| network | groups | confirmed | trial cuts | trace | otherwise, and why |",
        "|---|---|---|---|---|---|",
    ]
    for r in asked:
        a = r["agreement"]
        reasons = Counter([*a["corrected"].values(), *(f"equal, yet tried: {why}" for why in a["tried"].values())])
        why = a["why_not"] or "; ".join(f"{count}: {reason}" for reason, count in reasons.most_common(3))
        lines.append(f"| `{plain(r)}` | {a['groups']} | {a['confirmed']} | {a['trials']} | {a['cpu_s']:.1f} | {why} |")
    groups, confirmed = (sum(r["agreement"][k] for r in asked) for k in ("groups", "confirmed"))
    whole = sum(r["agreement"]["confirmed"] == r["agreement"]["groups"] for r in asked)
    return "\n".join(lines) + f"\n\n{confirmed} of {groups} groups are confirmed; in {whole} of {len(asked)} networks, all.\n"


def strange(page: Path) -> str:
    """The networks of tricky structure, a line a structure."""
    results = page.parent.parent / "benchmarks" / "results" / "strange_networks.json"
    if not results.exists():
        return ""
    from strange_networks import Outcome, summary

    told = json.loads(results.read_text())
    lines = [
        "## Strange networks\n",
        "`benchmarks/strange_networks.py`: networks with the structures that users report, cut at random three times each and",
        "compared in float64 with a mask that is independent of this library's own, in evaluation and training mode and at two",
        f"sizes of inputs. {told['summary']}.\n",
    ]
    return "\n".join([*lines, *summary([Outcome(**row) for row in told["networks"]])]) + "\n"


def parity(row: dict[str, Any]) -> str:
    seen = row.get("parity")
    if seen is None:
        return ""
    return f"{seen['verdict']}, {seen['error']:.0e}" if "error" in seen else seen["verdict"]


def structures() -> str:
    """The tiny networks of the tests: what of each is cut, and what is said of the rest."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    from support import structures as more
    from support.nets import ALL, traced

    lines = [
        "## Structures\n",
        "One tiny network for each, in `tests/support/{nets,structures}.py`. The slow tests compare cuts with networks",
        "whose removed channels' readers were zeroed by hand: 60 random plans for each of the first, 40 for the second.\n",
        "| structure | cut | stays, and why |",
        "|---|---|---|",
    ]
    for name in ALL:
        topology = traced(name)[1]
        cut = ", ".join(f"`{g}`" for g in topology.by_id) or "nothing"
        stays = "; ".join(f"`{x}`: {short(why)}" for x, why in topology.frozen.items() if "network's output" not in why)
        lines.append(f"| {name} | {cut} | {stays} |")
    for name, (_, pattern) in more.REFUSED.items():
        lines.append(f"| {name} | refused | {pattern.replace('.', ' ').strip()} |")
    return "\n".join(lines) + "\n"


def short(reason: str) -> str:
    """Without what the trial cut ran into, and where."""
    return reason.partition("; a trial cut failed")[0].partition(": the cut network")[0].partition(" (in ")[0]


def left_alone(rows: dict[str, Any]) -> str:
    """Layers that stay, with their reasons."""
    lines = ["## Layers that are left alone\n"]
    for row in rows.values():
        reasons: dict[str, list[str]] = {}
        for layer, reason in row.get("frozen", {}).items():
            reasons.setdefault(short(reason), []).append(layer)
        for reason, layers in reasons.items():
            more = f" and {len(layers) - 2} more" if len(layers) > 2 else ""
            lines.append(f"- `{plain(row)}`: {', '.join(f'`{x}`' for x in layers[:2])}{more}: {reason}")
    return "\n".join(lines) + "\n"
