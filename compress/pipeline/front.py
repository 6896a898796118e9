"""A search's front: which of its points is made real, and its file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from compress.core import CONFIDENCE, ERROR, Cost, Figure, Plan, images_needed, plural, read_json, upper, write, write_json
from compress.errors import ConfigError, PlanError, SearchError
from compress.report import front_svg
from compress.search import Fidelity, Front, Point, Space, Target, knee
from compress.tasks import Classification, Task

FRONT = "front.json"
_NEAR = 0.005
"""How far below a wanted share a front's point is taken for it, where another plan costs no search."""


def choose(
    front: Front,
    target: Target,
    share: Callable[[Plan], float],
    base_error: float,
    judged: int = 0,
    task: Task = Classification(),  # noqa: B008  # frozen
) -> tuple[Point, str]:
    """The point of a front that a target asks for, and why it was taken.

    A budget takes the most accurate point within it; an accuracy takes the cheapest point within the allowed drop. Without
    labels the errors are disagreements with the unpruned network on ``judged`` images, and it is the upper end of their
    interval that has to be within the drop (``compress.core.statistics``).
    """
    if target.kind == "max_drop" and judged and task.bounded is not None and task.bounded.share:
        bounds = [_bound(p.error, judged, exact=task.names_one_label) for p in front]
        certified = [i for i, bound in enumerate(bounds) if bound <= target.value]
        if certified:
            drop = f"{100 * bounds[certified[0]]:.2f} points"
            agreed = f"disagrees so rarely on {plural(judged, 'image')} that the drop is at most {drop}"
            return front[certified[0]], f"the cheapest of {plural(len(certified), 'point')}; before fine-tuning it {agreed}"
        best = min(front, key=lambda p: p.error)
        few = (
            f"; {plural(judged, 'image')} cannot, {images_needed(target.value)} could"
            if judged < images_needed(target.value)
            else ""
        )
        return best, f"no point can be certified before fine-tuning{few}; the one that disagrees least was taken"
    if target.kind == "max_drop":
        allowed = [p for p in front if p.error <= base_error + target.value]
        if allowed:
            return allowed[0], f"the cheapest of {plural(len(allowed), 'point')} within the allowed drop before fine-tuning"
        best = min(front, key=lambda p: p.error)
        return best, f"no point is within the allowed drop before fine-tuning; the most accurate of {len(front)} was taken"
    within = [p for p in front if share(p.plan) <= target.value + 1e-9]
    if not within:
        raise SearchError(
            f"the search found nothing within {target.kind} {target.value:g}; "
            f"its cheapest point keeps {share(front[0].plan):.3f}",
            hint="a larger --budget, a smaller --round-to, or --method uniform, which meets every reachable target",
        )
    best = min(within, key=lambda p: (p.error, share(p.plan)))
    reason = f"the most accurate of {plural(len(within), 'point')} within the budget"
    if share(best.plan) < target.value - target.slack and target.value < 1:
        reason += f"; it keeps {share(best.plan):.3f}, further below {target.value:g} than {target.slack:g}, "
        reason += "since nothing nearer to it that was tried scored better"
    return best, reason


def _bound(error: float, judged: int, *, exact: bool) -> float:
    """The upper end of the interval of a share of changed answers; see :func:`compress.core.bounded_mean`."""
    if not math.isfinite(error):
        return 1.0
    if exact:
        return upper(round(error * judged), judged)
    return upper(math.ceil(error * judged - 1e-9), judged, 1 - (1 - CONFIDENCE) / math.e)


def save_front(
    folder: Path, front: Front, chosen: Point, space: Space, told: Mapping[str, str], counted: Figure = ERROR
) -> None:
    """Writes ``front.json``, with what is ``told`` of the choice, and its picture; errors are ``counted`` so."""
    whole = space.cost.whole
    points = []
    for i, p in enumerate(front):
        share = p.cost.share_of(whole)
        entry: dict[str, Any] = {
            "index": i,
            "macs": p.cost.macs,
            "params": p.cost.params,
            "macs_share": share.macs,
            "params_share": share.params,
        }
        if share.latency is not None:
            entry["latency"] = entry["latency_share"] = share.latency
        points.append({**entry, "error": p.error, "fidelity": p.fidelity.value, "plan": p.plan.to_json()})
    picked, bend = front.index(chosen), knee(front, space.target.kind)
    write(folder / "front.svg", front_svg(points, picked, bend, counted))
    write_json(
        folder / FRONT,
        {"points": points, "chosen": picked, "knee": bend, "target": space.target.kind, **told},
    )


def read_front(folder: Path, again: str) -> Front:
    """The points of a run's ``front.json``.

    Raises:
        ConfigError: there are none, or they are damaged; the hint says what to do ``again``.
    """
    data = read_json(folder / "front.json", hint=again)
    try:
        front = tuple(
            Point(
                Plan.from_json(p["plan"]),
                float(p["error"]),
                Cost(int(p["macs"]), int(p["params"]), p.get("latency")),
                Fidelity(p["fidelity"]),
            )
            for p in data["points"]
        )
    except (ValueError, KeyError, TypeError, OverflowError, PlanError) as error:
        raise ConfigError(f"{folder / 'front.json'} is damaged: {error!r:.100}", hint=again) from error
    if not front:
        raise ConfigError(f"{folder / 'front.json'} has no points", hint=again)
    return front


class SharesWanted(TypedDict, total=False):
    """A share that a point is to keep at most."""

    macs: float | None
    params: float | None
    latency: float | None


class PointAsked(SharesWanted, total=False):
    """Which point of a front a caller asks for: exactly one."""

    index: int | None
    by: str | None


@dataclass(frozen=True, slots=True)
class PointWanted:
    """Which point of a front is asked for: exactly one of these.

    Attributes:
        index: its number.
        by: ``knee``: where accuracy begins to cost more than it saves.
        share: the most accurate one within it.

    Raises:
        ConfigError: none or several are given, or another ``by``.
    """

    index: int | None = None
    by: str | None = None
    share: Target | None = None

    @staticmethod
    def of(asked: PointAsked) -> PointWanted:
        """From what a caller gave; None is as good as not given.

        Raises:
            ConfigError: it is none, several, or out of range.
        """
        index, by = asked.get("index"), asked.get("by")
        given = [(kind, value) for kind, value in asked.items() if value is not None and kind not in ("index", "by")]
        if sum(x is not None for x in (index, by)) + len(given) != 1:
            raise ConfigError("give exactly one of --index, --by, --macs, --params, --latency")
        if by is not None and by != "knee":
            raise ConfigError(f"--by {by!r} is not known", hint="--by knee")
        return PointWanted(index, by, Target(*given[0]) if given else None)  # type: ignore[arg-type]

    def flags(self) -> dict[str, Any]:
        """As the command line has it."""
        shares = {} if self.share is None else {self.share.kind: self.share.value}
        return {"index": self.index, "by": self.by, **shares}

    def near(self, front: Front, whole: Cost) -> bool:
        """Whether the front has a point just within the share."""
        assert self.share is not None
        shares = (self.share.share(p.cost.share_of(whole)) for p in front)
        return any(self.share.value - _NEAR <= share <= self.share.value for share in shares)

    def among(self, front: Front, whole: Cost, target: str) -> int:
        """Index of the point that is asked for.

        Args:
            front: of the run.
            whole: what the unpruned network costs.
            target: the run's, for the knee.

        Raises:
            ConfigError: there is no such point.
        """
        if self.index is not None:
            if not 0 <= self.index < len(front):
                raise ConfigError(f"there is no point {self.index}; the front has 0 to {len(front) - 1}", hint="see front.json")
            return self.index
        if self.share is None:
            return knee(front, target)
        shares = [self.share.share(p.cost.share_of(whole)) for p in front]
        within = [i for i, s in enumerate(shares) if s <= self.share.value]
        if not within:
            raise ConfigError(
                f"no point of the front keeps at most {self.share.value:g} of the {self.share.kind}; "
                f"the least is {min(shares):.3f}",
                hint=f"--{self.share.kind} {min(shares) + 5e-4:.3f}, or a new search",
            )
        return min(within, key=lambda i: front[i].error)
