"""Networks of random widths, measured, and the latency table that is made of them; what runs them is the caller's.

Whole networks are clocked in turn with the unpruned one, and their layers are timed. What is measured is kept as it comes, and
a later call goes on there.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from compress.core import (
    BranchId,
    ChannelGroup,
    Cut,
    Environment,
    GroupId,
    LatencyTable,
    Plan,
    Topology,
    append,
    canonical,
    capture,
    features,
    kind_of,
    plural,
    sizes_after,
)
from compress.errors import ConfigError
from compress.latency.protocol import measure
from compress.latency.result import Settings
from compress.latency.table_fit import Sample, fit, validate
from compress.runtime import Runtime

if TYPE_CHECKING:
    from compress.latency.profiling import Profile

NETWORKS = 20
TOGETHER = 5
"""Networks that are clocked together: the unpruned one runs once for all of them."""


class SizedNetworks(Protocol):
    """One network at any widths, as files that a runtime loads."""

    @property
    def topology(self) -> Topology:
        """Of the unpruned network."""
        ...

    @property
    def runtime(self) -> Runtime:
        """Loads what :meth:`write` wrote."""
        ...

    @property
    def suffix(self) -> str:
        """How the files' names end."""
        ...

    def write(self, plan: Plan, path: Path) -> None:
        """The network cut by a plan; whole by an empty one."""
        ...

    def layers(self, path: Path, seconds: float) -> tuple[float, ...]:
        """Seconds of each of the topology's layers, shape (layers,), timed for so long."""
        ...

    def forget(self, path: Path) -> None:
        """Removes what was written."""
        ...


@dataclass(frozen=True)
class MeasuredNetwork:
    """One network of random widths: its plan, its latency over the unpruned one's, and each layer's seconds."""

    plan: Plan
    ratio: float
    layers: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"plan": self.plan.to_json(), "ratio": self.ratio, "layers": list(self.layers)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> MeasuredNetwork:
        """That of :meth:`to_json`."""
        return MeasuredNetwork(Plan.from_json(data["plan"]), float(data["ratio"]), tuple(float(x) for x in data["layers"]))


def machine(runtime: Runtime) -> Environment:
    """The machine as a table knows it."""
    return capture(threads=runtime.threads)


def random_plan(topology: Topology, groups: Sequence[GroupId], rng: np.random.Generator) -> Plan:
    """Networks as searches make them: one has a level, its groups' widths scatter about it, most of them aligned.

    Where branches may be left out, half of the networks lack some of them, up to two thirds.
    """
    level, scatter = rng.uniform(0.35, 1.0), rng.uniform(0.05, 0.3)
    steps = (16, 8, 16, 8, 8, 4, 1) if rng.random() < 0.7 else (16, 8)
    cuts = {}
    for group_id in groups:
        group = topology.by_id[group_id]
        ratio = float(np.clip(level + scatter * rng.standard_normal(), 0.1, 1.0))
        keep = _keep(group, ratio, int(rng.choice(steps)), rng)
        if len(keep) < group.size:
            cuts[group_id] = Cut(keep)
    gone: list[BranchId] = []
    if topology.branches and rng.random() < 0.5:
        part = rng.uniform(0.1, 0.67)
        gone = [b.name for b in topology.branches if rng.random() < part]
    return canonical(topology, Plan(cuts, branches=tuple(gone)))


def _keep(group: ChannelGroup, ratio: float, step: int, rng: np.random.Generator) -> tuple[int, ...]:
    kept: list[int] = []
    for orbit in group.orbits():  # pieces of one chunk are equally large, so their widths are equal
        width = round(ratio * len(orbit) / step) * step if len(orbit) >= 2 * step else round(ratio * len(orbit))
        width = min(max(width, min(step, len(orbit))), len(orbit))
        kept += rng.choice(orbit, width, replace=False).tolist()
    return tuple(sorted(kept))


def by_layer(found: Profile, topology: Topology) -> tuple[float, ...]:
    """Seconds of each layer; what has no weight counts to the layer that runs next, at the end to the last one."""
    place: dict[str, int] = {layer.name: i for i, layer in enumerate(topology.layers)}
    times = np.zeros(len(topology.layers))
    waiting, last = 0.0, len(topology.layers) - 1
    for kernel in found.kernels:
        if kernel.module in place:
            last = place[kernel.module]
            times[last] += waiting + kernel.seconds
            waiting = 0.0
        else:
            waiting += kernel.seconds
    times[last] += waiting
    return tuple(times.tolist())


def relative_times(base: Path, files: Mapping[str, Path], runtime: Runtime, seconds: float, seed: int) -> dict[str, float]:
    """Time of each file over the base's, in turn, by the clock that decides (CPU time on one thread)."""
    settings = Settings(budget_seconds=seconds, precision=0.004, min_rounds=12, loads=2, seed=seed)
    found = measure(base, files, runtime=runtime, settings=settings)
    return {name: 1 / found.ratios[name].decisive.ratio for name in files}


def collect(
    source: SizedNetworks,
    groups: Sequence[GroupId],
    *,
    kept: Path | None = None,
    networks: int = NETWORKS,
    seconds: float = 3.0,
    seed: int = 0,
    listen: Callable[[int, int], None] = lambda done, all_: None,
) -> list[MeasuredNetwork]:
    """Measures networks of random widths, the unpruned one first.

    Args:
        source: makes the networks and says what their layers take.
        groups: that may be cut.
        kept: a file where every network is written as soon as it is measured, and read from again.
        networks: how many, beside the unpruned one.
        seconds: of measuring each.
        seed: of the widths.
        listen: is told how many are done, of how many.
    """
    rng = np.random.default_rng([seed, 77])
    plans = [random_plan(source.topology, groups, rng) for _ in range(networks)]
    done = _read(kept)
    with tempfile.TemporaryDirectory(prefix="compress-table-") as name:
        folder = Path(name)
        base, whole = folder / f"base{source.suffix}", Plan()
        source.write(whole, base)
        if whole.digest not in done:
            done[whole.digest] = MeasuredNetwork(whole, 1.0, source.layers(base, seconds))
            _write(kept, done[whole.digest])
        left = [p for p in plans if p.digest not in done]
        for start in range(0, len(left), TOGETHER):
            now = left[start : start + TOGETHER]
            files = {p.digest: folder / f"{p.digest}{source.suffix}" for p in now}
            for plan in now:
                source.write(plan, files[plan.digest])
            ratios = relative_times(base, files, source.runtime, seconds * (len(now) + 2), seed)
            for plan in now:
                layers = source.layers(files[plan.digest], seconds)
                done[plan.digest] = MeasuredNetwork(plan, ratios[plan.digest], layers)
                _write(kept, done[plan.digest])
                source.forget(files[plan.digest])
            listen(len(done) - 1, networks)
    return [done[p.digest] for p in (whole, *dict.fromkeys(plans))]


def _read(kept: Path | None) -> dict[str, MeasuredNetwork]:
    """What an earlier call measured; a torn last line is measured again."""
    found: dict[str, MeasuredNetwork] = {}
    if kept is None or not kept.exists():
        return found
    for line in kept.read_text(encoding="utf-8").splitlines():
        try:
            one = MeasuredNetwork.from_json(json.loads(line))
        except (ValueError, KeyError, TypeError):
            continue
        found[one.plan.digest] = one
    return found


def _write(kept: Path | None, one: MeasuredNetwork) -> None:
    if kept is not None:
        append(kept, json.dumps(one.to_json()) + "\n")


def table_of(
    topology: Topology, measured: Sequence[MeasuredNetwork], runtime: Runtime, block: int, batch: int = 1
) -> LatencyTable:
    """A table from measured networks; its error is of networks that a fit did not see.

    Raises:
        ConfigError: fewer than six networks were measured.
    """
    if len(measured) < 7:
        raise ConfigError(
            f"{plural(len(measured) - 1, 'network')} measured, a table needs 6 or more", hint="leave --networks out"
        )
    kinds = [kind_of(topology, layer) for layer in topology.layers]
    samples = [Sample(features(topology, sizes_after(topology, m.plan), block), np.array(m.layers), m.ratio) for m in measured]
    made = fit(samples, kinds)
    here = machine(runtime)
    package = "torch" if runtime.name.startswith("torch-") else "onnxruntime"
    library = next((f"{name} {version}" for name, version in here.versions if name.startswith(package)), package)
    return LatencyTable(
        topology=topology.digest,
        environment=here.digest,
        machine=f"{_device(here, runtime)}, threads {runtime.threads or 'by default'}, {library}",
        runtime=runtime.name,
        batch=batch,
        block=block,
        layers=tuple(layer.name for layer in topology.layers),
        coefficients=tuple(tuple(row) for row in made.coefficients.tolist()),
        constant=made.constant,
        error=validate(samples, kinds),
        seconds=float(sum(measured[0].layers)),
    )


def _device(here: Environment, runtime: Runtime) -> str:
    """What runs it, for people."""
    on_gpu = bool(getattr(runtime, "on_gpu", False))
    return here.gpus[0].name if on_gpu and here.gpus else here.cpu
