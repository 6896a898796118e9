"""What a report tells of the networks that were not chosen: a front that was clocked, plans that were trained for a while."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """A network of the front, clocked; shares of the base, latency with its 95 % interval.

    Attributes:
        index: on the front.
        macs: multiply-accumulates.
        activations: numbers that convolutions and linear layers write.
        latency: by the clock that decides.
        low: lower end of its interval.
        high: upper end.
    """

    index: int
    macs: float
    activations: float
    latency: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class FrontLatency:
    """MACs against latency over a front.

    Attributes:
        runtime: e.g. ``ort-cpu``.
        batch: images a call.
        threads: intra-op threads.
        rounds: in which every network ran once.
        points: cheapest first.
        by_macs: Spearman's rank correlation of latency and MACs; None where it cannot be told.
        by_activations: the same with activations.
        slower: (fewer MACs, more MACs): points of which the first is certainly slower all the same.
        flags: what makes the figures doubtful.
    """

    runtime: str
    batch: int
    threads: int
    rounds: int
    points: tuple[FrontPoint, ...]
    by_macs: float | None
    by_activations: float | None
    slower: tuple[tuple[int, int], ...]
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FinalistScore:
    """What a plan was worth after a short training, on validation images.

    Attributes:
        steps: of the training.
        error: in what the search's errors are counted in; None where the training came to nothing.
        low: lower end of its 95 % interval over the images; None where it is not known.
        high: upper end.
    """

    steps: int
    error: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Finalist:
    """A plan that was trained for some steps before one was taken.

    Attributes:
        name: where it comes from.
        plan: its digest.
        macs: share that it keeps.
        latency: share that it keeps by the run's latency table; None without one.
        untrained: its error before, recovered as the result was.
        scores: round by round, as far as it came.
        won: whether it was taken.
    """

    name: str
    plan: str
    macs: float
    latency: float | None
    untrained: float | None
    scores: tuple[FinalistScore, ...]
    won: bool = False


@dataclass(frozen=True, slots=True)
class Finalists:
    """The last choice of a search, by short trainings of equal length, seed and images.

    Attributes:
        rows: the one first that would have been taken without.
        steps: of all trainings together.
        image_forwards: what they cost: forward, backward and the teacher's, recovery and judging.
        images: validation images of a score.
        why: why that one was taken.
    """

    rows: tuple[Finalist, ...]
    steps: int
    image_forwards: float
    images: int
    why: str = ""
