"""One file in a comparison: loading it, warming it up, taking samples."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import ConfigError, ModelError
from compress.latency.result import ArmResult, ClockKind, Settings
from compress.latency.statistics import percentiles, settled
from compress.runtime import Array, Feed, Runtime, Session, SessionInput, arrays_of, inputs_of

FEWEST_WARM_UPS = 2
LARGEST_SIDE = 1 << 24


@dataclass(slots=True)
class Arm:
    """A file, or an open session, and the samples taken of it so far."""

    name: str
    source: Path | Session
    session: Session | None = None
    run: Callable[[], object] | None = None
    shape: tuple[int, ...] = ()
    load_seconds: float | None = None
    first_run_seconds: float | None = None
    settled: bool = True
    finite: bool = True
    typical: float = 0.0
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def open(self) -> Session:
        """The session as last loaded."""
        assert self.session is not None
        return self.session

    def samples(self, clock: ClockKind) -> list[float]:
        """Seconds per run by that clock."""
        return self.cpu if clock == "cpu" else self.wall

    def load(self, stack: ExitStack, runtime: Runtime, settings: Settings) -> None:
        """Open the file for as long as the stack lives; an open session stays what it is."""
        started = time.perf_counter()
        self.session = stack.enter_context(runtime.load(self.source)) if isinstance(self.source, Path) else self.source
        loaded = time.perf_counter()
        feed = noise(self.session, self.name, settings)
        self.shape = tuple(size for array in arrays_of(feed) for size in array.shape)
        first = time.perf_counter()
        outputs = self.session.run(feed)  # checked: what does not fit is told in words
        if self.load_seconds is None:
            self.load_seconds = loaded - started if isinstance(self.source, Path) else 0.0
            self.first_run_seconds = time.perf_counter() - first
            self.finite = all(np.isfinite(output).all() for output in outputs)
        self.run = self.session.prepare(feed, settings.transfer)

    def warm_up(self, clock: ClockKind, most_seconds: float) -> int:
        """Run until the median settles, because first runs allocate and clocks rise; returns how many runs that took."""
        assert self.run is not None
        timer = time.thread_time if clock == "cpu" else time.perf_counter
        started, times = time.perf_counter(), list[float]()
        while not settled(times):
            if len(times) >= FEWEST_WARM_UPS and time.perf_counter() - started > most_seconds:
                self.settled = False
                break
            before = timer()
            self.run()
            times.append(max(timer() - before, 1e-9))
        self.typical = float(np.median(times[-5:]))
        return len(times)

    def sample(self, repeats: int, clock: ClockKind) -> None:
        """Time ``repeats`` runs by both clocks; what a device times by its own events counts as wall time."""
        assert self.run is not None
        run, cpu_timer = self.run, time.thread_time if clock == "cpu" else time.process_time
        by_events: Callable[[int], float] | None = getattr(run, "device_seconds", None)
        wall, cpu = time.perf_counter(), cpu_timer()
        if by_events is not None:
            seconds = by_events(repeats)
            cpu, wall = cpu_timer() - cpu, seconds
        else:
            for _ in range(repeats):
                run()
            cpu, wall = cpu_timer() - cpu, time.perf_counter() - wall
        self.wall.append(wall / repeats)
        self.cpu.append(max(cpu, 1e-9) / repeats)

    def result(self, repeats: int, settings: Settings) -> ArmResult:
        """Everything measured, frozen."""
        latency, session = percentiles(self.wall), self.open
        return ArmResult(
            name=self.name,
            load_seconds=self.load_seconds or 0.0,
            first_run_seconds=self.first_run_seconds or 0.0,
            wall=tuple(self.wall),
            cpu=tuple(self.cpu),
            inner_repeats=repeats,
            latency=latency,
            images_per_second=settings.batch / latency.p50,
            providers=session.providers,
            placement=session.placement,
            options=session.options,
            fallback=session.fallback,
            parity=session.metadata.get("parity", ""),
        )


def noise(session: Session, name: str, settings: Settings) -> Feed:
    """Normal noise in the session's shapes, the same numbers for every arm; one array an input, where there are several.

    What a file's own record of its inputs says (sizes that it leaves open, ranges of whole numbers, what has no batch) is
    kept.

    Raises:
        ModelError: the file is for another batch or image size.
        ConfigError: the file leaves its image size open and none is given.
    """
    rng, told = np.random.default_rng(settings.seed), _told(session)
    inputs = inputs_of(session)
    alone = len(inputs) == 1
    arrays = tuple(_made(one, told.get(one.name, {}), name, settings, rng, alone=alone) for one in inputs)
    return arrays[0] if alone else arrays


def _made(
    one: SessionInput, told: Mapping[str, Any], name: str, settings: Settings, rng: np.random.Generator, *, alone: bool
) -> Array:
    """One input."""
    if told.get("batched") is False:
        shape = tuple(size or 1 for size in one.shape)
        return np.asarray(told.get("values", np.zeros(shape)), dtype=one.dtype).reshape(shape)
    first, rest = (one.shape or (None,))[0], list(one.shape[1:])
    if first not in (None, settings.batch):
        raise ModelError(
            f"{name} was exported for a batch of {first}, {settings.batch} is wanted",
            hint=f"measure with --batch {first}, or export it with a dynamic batch",
        )
    recorded: list[int | None] = list(told.get("shape", rest))
    wanted = recorded if len(recorded) == len(rest) else rest
    if settings.image is not None and alone:
        wanted = list(settings.image)
    if len(wanted) != len(rest) or any(have not in (None, want) for have, want in zip(rest, wanted, strict=True)):
        raise ModelError(f"{name} takes images of {rest}, {wanted} is wanted", hint="export both from the same example")
    if None in wanted:
        sides = ["any" if size is None else size for size in one.shape]
        raise ConfigError(f"{name} leaves its input size open: {sides}", hint="give the image's size, e.g. --image 3,224,224")
    values: Array = rng.standard_normal((settings.batch, *(int(size or 1) for size in wanted)))
    if "range" in told:
        low, high = told["range"]
        values = rng.integers(int(low), int(high) + 1, values.shape)
    elif (one.dtype.itemsize > 1 and one.dtype.kind in "iu") or one.dtype.kind == "b":  # places in a table: the first is there
        values = np.zeros_like(values)
    elif np.issubdtype(one.dtype, np.integer):
        values = (np.abs(values) * 40).clip(0, 127)
    return np.ascontiguousarray(values.astype(one.dtype))


def _told(session: Session) -> dict[str, Mapping[str, Any]]:
    """A file's own record of its inputs, by name; nothing where it has none, or a stranger's that cannot be read."""
    try:
        found = json.loads(session.metadata.get("inputs", "[]"))
        kept = [entry for entry in found if isinstance(entry, dict) and isinstance(entry.get("name"), str)]
        return {entry["name"]: entry for entry in kept if _usable(entry)}
    except (ValueError, TypeError, AttributeError):
        return {}


def _usable(entry: Mapping[str, Any]) -> bool:
    shape, span = entry.get("shape", []), entry.get("range", [0, 0])
    sides = isinstance(shape, list) and all(isinstance(size, int) and 0 <= size <= LARGEST_SIDE for size in shape)
    ends = isinstance(span, list) and len(span) == 2 and all(isinstance(end, int) and abs(end) < 2**31 for end in span)
    return sides and ends and span[0] <= span[1] and isinstance(entry.get("values", []), list)
