"""What a million requests cost before and after, from measured rates.

    python benchmarks/cost.py runs/resnet50-smoea/report.json --price 0.05        # a run of your own
    python benchmarks/cost.py load.json --price 0.05                              # what compress serve-bench --json printed
    python benchmarks/cost.py --write docs/decide.md                              # the table of docs/decide.md

The price is that of what the rate was measured on for an hour: of one core where one thread was measured. ``--busy`` is the
share of an hour in which requests are answered. From a run's report the rate is one over the median latency, images asked one
after the other; from serve-bench it is the highest rate that kept the bound.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
BEGIN, END = "<!-- cost: begin -->\n", "<!-- cost: end -->"
OURS = (
    ("serving.json", "ResNet-50 at half of its operations, on Triton, 99 of 100 requests within 1.5 s", "no: random weights"),
    ("resnet56-1epoch.json", "ResNet-56 at half of its operations, CIFAR-10 as JPEG, one epoch", "88.0 → 86.4 %"),
)
"""File of results, what is in it, what became of the accuracy."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Requests a second of one core, before and after.

    Attributes:
        what: was measured.
        before: of the unpruned network.
        speedup: after over before.
        low: lower end of its 95 % interval.
        high: its upper end.
    """

    what: str
    before: float
    speedup: float
    low: float
    high: float


def cost(rate: float, price: float, busy: float) -> float:
    """What a million requests cost at a rate a second, a price an hour and a share of the time that is used."""
    return 1e6 / (rate * 3600 * busy) * price


def rates(found: dict[str, Any], name: str) -> Iterator[Rates]:
    """What a file of results holds: of serve-bench, of a run, or of a comparison of methods (smoea's first seed)."""
    load = found.get("load", found)
    if isinstance(load, dict) and "ratios" in load:
        base, *others = load["arms"]
        for arm in others:
            ratio = load["ratios"][arm["name"]]
            yield Rates(name or arm["name"], base["typical"], ratio["ratio"], ratio["low"], ratio["high"])
        return
    if "rows" in found:
        found = next(row for row in found["rows"] if row["method"] == "smoea")
    for clock in found["latency"]:
        what = name or f"{found['name']}, {clock['runtime']}, batch {clock['batch']}"
        yield Rates(what, clock["batch"] / clock["base_p50"], clock["speedup"], clock["low"], clock["high"])


def shown(number: float) -> str:
    """Three digits that count."""
    return f"{number:#.3g}".rstrip(".")


def row(measured: Rates, price: float, busy: float) -> str:
    """One row of the table, without its last bar."""
    before = cost(measured.before, price, busy)
    after, low, high = (before / factor for factor in (measured.speedup, measured.high, measured.low))
    now = f"{shown(measured.before)} → {shown(measured.before * measured.speedup)}"
    return f"| {measured.what} | {now} | {shown(before)} | **{shown(after)}** ({shown(low)} to {shown(high)})"


def table(files: list[tuple[Path, str, str]], price: float, busy: float) -> str:
    """Markdown."""
    lines = ["| measured | requests a second | before | after (95 %) | accuracy |", "|---|---|---|---|---|"]
    for path, name, accuracy in files:
        for measured in rates(json.loads(path.read_text()), name):
            lines.append(f"{row(measured, price, busy)} | {accuracy} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Prints the table, or puts it into a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--price", type=float, default=0.05, help="of what was measured on, an hour")
    parser.add_argument("--busy", type=float, default=0.5, help="share of the time in which requests are answered")
    parser.add_argument("--write", type=Path)
    wanted = parser.parse_args()
    if wanted.price <= 0 or not 0 < wanted.busy <= 1:
        parser.error("--price is above 0, --busy in (0, 1]")
    ours = [(FOLDER / "results" / name, what, accuracy) for name, what, accuracy in OURS]
    made = table([(path, "", "see its report") for path in wanted.files] or ours, wanted.price, wanted.busy)
    if wanted.write is None:
        print(made, end="")
        return
    head, _, rest = wanted.write.read_text().partition(BEGIN)
    wanted.write.write_text(f"{head}{BEGIN}{made}{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
