"""Comparisons with raw samples and pages taken apart, for the tests of the report's page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser

import numpy as np

from compress.core.environment import Environment
from compress.latency.result import ArmResult, LatencyResult, Ratio, Settings
from compress.latency.statistics import LatencyVerdict, percentiles

HERE = Environment("Linux", "x86_64", "3.11", "a processor", ("avx2",), 2, 2, None, 0.5, 1, (("numpy", "2"),), ())
SPEEDS = {"base": 100e-6, "base again": 100e-6, "pruned": 70e-6}


def comparison(
    arms: Mapping[str, float] = SPEEDS, *, runtime: str = "ort-cpu", batch: int = 1, rounds: int = 60, fallback: str = ""
) -> LatencyResult:
    """A comparison as :func:`compress.latency.protocol.measure` makes it, of seeded samples around known speeds."""
    rng = np.random.default_rng(0)
    made = []
    for name, seconds in arms.items():
        wall = tuple(float(x) for x in seconds * (1 + 0.02 * rng.standard_normal(rounds) ** 2))
        facts = {"placement": {"CPUExecutionProvider": 3}, "options": {"threads": "1"}, "fallback": fallback}
        providers = ("CPUExecutionProvider",)
        per_second = batch / float(np.median(wall))
        made.append(ArmResult(name, 0.01, 0.001, wall, wall, 1, percentiles(wall), per_second, providers, **facts))
    base = arms["base"]

    def ratio(x: float, verdict: LatencyVerdict) -> Ratio:
        return Ratio(x, 0.99 * x, 1.01 * x, x, 0.99 * x, 1.01 * x, verdict, "cpu", 1.01)

    ratios = {name: ratio(base / s, LatencyVerdict.DIFFERENT) for name, s in arms.items() if not name.startswith("base")}
    settings = Settings(batch=batch)
    return LatencyResult(
        tuple(made), ratios, ratio(1.0, LatencyVerdict.SAME), rounds, 1.0, "budget", runtime, HERE, (), settings
    )


@dataclass
class Page(HTMLParser):
    """What a browser would find: elements with their attributes, and the text outside scripts and styles."""

    source: str = ""
    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self._inside = ""
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else self._inside

    def handle_endtag(self, tag: str) -> None:
        self._inside = "" if tag == self._inside else self._inside

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def ids(self) -> list[str]:
        return [a["id"] for _, a in self.elements if a.get("id")]  # type: ignore[misc]
