"""A GPU's figures in one command of at most eight minutes, on a bare machine without internet.

    python benchmarks/gpu.py --wheels DIR [--data images.npz --models DIR] [--out gpu.json]
    python benchmarks/gpu.py --device cpu --tiny --out tiny.json           # the same script in its smallest form, anywhere

The machine has torch 2.11, Python 3.12, timm (and with it torchvision), onnx, NumPy, SciPy and scikit-learn; what is missing
lies as wheels in DIR, which are read and never installed. `benchmarks/gpu_inputs.py` makes all that travels (55 MiB) and names
it. Parts, in order of worth: ResNet-50, MobileNetV2, EfficientNet-B0 and DenseNet-121 at five budgets each, eager and as CUDA
graphs, fp32 and fp16, at batch 1, 8 and 64; half of the latency asked and measured; what binds the layers; ResNet-56 and VGG-14
trained for as many epochs as fit, cut by SMOEA, by Torch-Pruning's l1 and by C-SGD. A part is over after 60 seconds at the
latest; the same command goes on with the parts that are not done. What was not done is said. Writes the JSON, and tables
beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LATENCY = ("resnet50", "mobilenet_v2", "efficientnet_b0", "densenet121")
HARD = 60.0
"""Seconds after which a part is cut off."""
TINY = 600.0
"""The same of the smallest form, which busy processors make slow."""
ROOM = 0.9
"""Of a part's time: no step is begun that would, like the longest before it, end later."""


class CutOff(Exception):
    """A part's time was over in the middle of a step."""


@dataclass(frozen=True, slots=True)
class Part:
    """One of the script's parts.

    Attributes:
        seconds: that it is planned to take.
        rows: makes its rows, one a step.
    """

    name: str
    seconds: float
    rows: Callable[[], Iterator[dict[str, Any]]]


def on_the_path(wheels: Path | None, site: Path) -> None:
    """The library, and what the machine lacks, can be imported."""
    sys.path[:0] = [str(HERE.parent), str(HERE.parent / "models"), str(HERE)]
    if wheels is None:
        return
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    sys.path.append(str(site))  # what the machine has goes first


def parts_of(place: Any, networks: tuple[str, ...], held: Mapping[str, Any]) -> list[Part]:
    """In order of worth; ``held`` are those that were done before, as far as they came."""
    import gpu_inputs
    import gpu_parts

    first, seconds = networks[0], {"latency": 36.0, "asked": 40.0, "layers": 26.0, "trained": 24.0}
    if place.tiny:
        seconds = dict.fromkeys(seconds, TINY)
    found = []
    for name in networks:
        known = held.get(f"latency {name}", {"rows": []})["rows"]
        found.append(Part(f"latency {name}", seconds["latency"], partial(gpu_parts.latencies, name, place, known)))
    found.append(Part(f"asked {first}", seconds["asked"], partial(gpu_parts.asked, first, place)))
    found.append(Part(f"layers {first}", seconds["layers"], partial(gpu_parts.layers, first, place)))
    for method in gpu_inputs.METHODS:
        for name in gpu_inputs.NETWORKS[: 1 if place.tiny else None]:
            rows = partial(gpu_parts.recovered, name, method, place, ROOM * seconds["trained"])
            found.append(Part(f"trained {name} {method}", seconds["trained"], rows))
    return found


@contextmanager
def cut_off_after(seconds: float) -> Iterator[None]:
    """Raises :class:`CutOff` inside when the time is over."""

    def over(*_: object) -> None:
        raise CutOff

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.01))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def done(part: Part, until: float) -> dict[str, Any]:
    """A part's rows, as far as the time goes; ``until`` is the whole script's end by the monotonic clock."""
    started, rows, longest, why = time.monotonic(), list[dict[str, Any]](), 0.0, ""
    planned = min(part.seconds, until - started)
    rest = part.rows()
    try:
        with cut_off_after(min(max(HARD, part.seconds), until - started)):
            while True:
                began = time.monotonic()
                if rows and began - started + longest > ROOM * planned:
                    left = rows[0].get("planned", [])[len(rows) - 1 :]
                    why = f"time: stopped after {len(rows)} steps" + (f", not done: {'; '.join(left)}" if left else "")
                    break
                row = next(rest, None)
                if row is None:
                    break
                rows.append(row)
                longest = max(longest, time.monotonic() - began) if len(rows) > 1 else 0.0  # the first makes the networks
    except CutOff:
        why = f"time: cut off in step {len(rows) + 1}"
    except Exception as error:  # one part costs no other one
        why = f"{type(error).__name__}: {error}"
    return {"rows": rows, "seconds": round(time.monotonic() - started, 1), "stopped": why}


def tables(held: dict[str, Any]) -> str:
    """Markdown of everything that was measured."""
    lines = [f"# {held['device']}", "", f"torch {held['torch']}, Python {held['python']}, {held['seconds']:.0f} s in all."]
    for name, part in held["parts"].items():
        lines += ["", f"## {name}", ""]
        kind, rows = name.split()[0], part["rows"]
        if kind == "latency" and rows:
            arms = list(rows[0]["shares"])
            heads = [arm if "%" in arm else f"{arm} ({rows[0]['shares'][arm]:.0%})" for arm in arms]
            lines += [f"| runtime | batch | base | {' | '.join(heads)} |", "|---|---|---|" + "---|" * len(arms)]
            for row in rows[1:]:
                cells = [row.get("failed", "")]
                if "arms" in row:
                    cells = [f"{row['base'] * 1e3:.3f} ms", *map(_cell, row["arms"].values())]
                lines.append(f"| {row['runtime']} | {row['batch']} | {' | '.join(cells)} |")
        elif rows:
            heads = list(dict.fromkeys(key for row in rows for key in row))
            lines += [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
            lines += [f"| {' | '.join(_plain(row.get(key, '')) for key in heads)} |" for row in rows]
        lines += ["", f"{part['seconds']} s" + (f"; {part['stopped']}" if part["stopped"] else "")]
    if held["skipped"]:
        lines += ["", "## Not done", "", *(f"- {name}: {why}" for name, why in held["skipped"].items())]
    return "\n".join(lines) + "\n"


def _cell(arm: dict[str, Any]) -> str:
    return f"{arm['speedup'][0]:.2f}× {'' if arm['verdict'] == 'different' else arm['verdict']}".strip()


def _plain(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value) if isinstance(value, dict) else str(value)


def together(before: dict[str, Any] | None, found: dict[str, Any]) -> dict[str, Any]:
    """A part that went on: its first row tells of all, a latency's others are added to those of before."""
    if before is None or not before["rows"] or "shares" not in before["rows"][0] or not found["rows"]:
        return found
    rows = [found["rows"][0], *before["rows"][1:], *found["rows"][1:]]
    return found | {"rows": rows, "seconds": round(before["seconds"] + found["seconds"], 1)}


def missing_for(part: Part, given: argparse.Namespace) -> str:
    """Why a part cannot be done; empty where it can."""
    if not part.name.startswith("trained"):
        return ""
    if given.data is None:
        return "no --data"
    plan = given.plans / f"{part.name.split()[1]}-{part.name.split()[2]}.json"
    if not plan.is_file():
        return f"no plan {plan.name}: benchmarks/gpu_inputs.py plans"
    return "" if given.models is not None or given.tiny else "no --models"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="everything as small as it goes")
    parser.add_argument("--wheels", type=Path, help="folder of wheels that this machine lacks: gpu_inputs.py wheels")
    parser.add_argument("--data", type=Path, help="images: gpu_inputs.py data")
    parser.add_argument("--models", type=Path, help="trained weights: gpu_inputs.py models")
    parser.add_argument("--plans", type=Path, default=HERE / "gpu_plans")
    parser.add_argument("--networks", nargs="+", default=list(LATENCY))
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    given = parser.parse_args()
    until = time.monotonic() + 60 * given.minutes - 10  # importing came before, writing comes after
    on_the_path(given.wheels, given.out.with_suffix(".site"))
    import torch

    if given.device == "cuda" and not torch.cuda.is_available():
        sys.exit(f"torch {torch.__version__} sees no CUDA device here; --device cpu --tiny proves that the script runs")
    if given.device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
        torch.set_num_threads(1)
    import gpu_parts

    from compress.core import capture, write, write_json

    place = gpu_parts.Place(given.device, given.tiny, given.data, given.models, given.plans)
    held: dict[str, Any] = json.loads(given.out.read_text()) if given.out.exists() else {"parts": {}, "seconds": 0.0}
    here = capture()
    name = torch.cuda.get_device_name() if given.device == "cuda" else here.cpu
    held |= {"device": name, "tiny": given.tiny, "torch": torch.__version__, "python": here.python, "skipped": {}}
    held["environment"] = here.to_json()
    started = time.monotonic()
    parts = parts_of(place, tuple(given.networks), held["parts"])
    for part in sorted(parts, key=lambda part: part.name in held["parts"]):  # those that were not begun come first
        before = held["parts"].get(part.name)
        if before is not None and not before["stopped"]:
            continue
        why = missing_for(part, given) or ("the time is over" if until - time.monotonic() < min(10.0, part.seconds / 2) else "")
        if why:
            held["skipped"][part.name] = why
            continue
        print(f"{part.name} ...", file=sys.stderr, flush=True)
        held["parts"][part.name] = together(before, done(part, until))
        write_json(given.out, held)
    held["seconds"] += round(time.monotonic() - started, 1)
    write_json(given.out, held)
    write(given.out.with_suffix(".md"), tables(held).encode())
    print(tables(held))


if __name__ == "__main__":
    main()
