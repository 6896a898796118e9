"""Every score is written down before it is used, so that a killed run goes on where it stopped.

The searcher is deterministic; replayed over the journal it asks the same questions and is sent the same answers, without
evaluation. No optimiser is ever saved.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

from compress.core import Figure, Plan, append, plural, read_bytes
from compress.errors import CompressError, SearchError
from compress.search.base import Ask, Score, Told
from compress.search.front import Recovery

T = TypeVar("T")
_LARGEST = 2**30
_LONGEST = 1e9


@dataclass(frozen=True, slots=True)
class Asked:
    """Event: a request was answered.

    Attributes:
        fidelity: of the request.
        stage: of the request.
        asked: plans in it.
        fresh: plans that were evaluated now.
        distinct: plans that this search had not asked for before, whoever evaluated them.
        earlier: seconds that earlier sittings spent on evaluating them.
        spent: image-forwards so far, journalled ones included.
        budget: image-forwards allowed.
        best: lowest error in the request.
        recovery: of the request.
        images: of the request.
        worked: image-forwards that this sitting spent: without those of plans whose scores were read.
        candidates: different plans that this search has asked for.
        stages: of the search; 0 where that is not known.
        counted: what the errors of whole networks are; None where that is not known.
    """

    fidelity: str
    stage: int
    asked: int
    fresh: int
    distinct: int
    earlier: float
    spent: float
    budget: float
    best: float
    recovery: Recovery = "bn"
    images: int = 0
    worked: float = 0.0
    candidates: int = 0
    stages: int = 0
    counted: Figure | None = None


Evaluate = Callable[[Ask], Sequence[Score]]
"""Scores for every plan of a request."""


class Journal:
    """Scores by key, appended to a file of JSON lines; a torn last line is forgotten.

    Args:
        path: the file, or None to remember within the process only.
        context: digest of everything a score depends on besides plan and fidelity: weights, data, seed, settings.
    """

    def __init__(self, path: Path | None, context: str) -> None:
        self.path = path
        self.context = context
        self.scores: dict[str, Score] = {}
        self.earlier: dict[str, float] = {}
        """Seconds of the evaluations that were read from the file."""
        if path is not None and path.exists():
            self._read(path)

    def _read(self, path: Path) -> None:
        try:
            data = read_bytes(path, most=_LARGEST)
            whole = data[: data.rfind(b"\n") + 1]
            if len(whole) != len(data) and not path.is_symlink():
                with path.open("r+b") as file:
                    file.truncate(len(whole))
        except OSError as error:
            raise CompressError(f"{path} cannot be read: {error.strerror or error}", hint="start over with --fresh") from error
        for line in whole.splitlines():
            found = _entry(line)
            if found is not None:
                self.scores[found[0]], self.earlier[found[0]] = found[1:]

    def key(self, ask: Ask, plan: Plan) -> str:
        """Names one evaluation."""
        settings = [ask.fidelity.value, ask.stage, ask.images, ask.recovery, *([ask.steps] if ask.steps else [])]
        text = json.dumps([self.context, plan.to_json(), *settings], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def add(self, entries: Sequence[tuple[str, Score, dict[str, Any]]]) -> None:
        """Appends scores and makes sure that they are on the disk."""
        for key, score, _ in entries:
            self.scores[key] = score
        if self.path is None or not entries:
            return
        append(self.path, "".join(_line({"key": k, **_told(s), **more}) for k, s, more in entries))


def _told(score: Score) -> dict[str, Any]:
    return {"error": score.error} | ({} if score.interval is None else {"interval": list(score.interval)})


def _line(entry: dict[str, Any]) -> str:
    text = json.dumps(entry)
    return json.dumps({**entry, "check": zlib.crc32(text.encode())}) + "\n"


def _entry(line: bytes) -> tuple[str, Score, float] | None:
    """Key, score and seconds of a line; a damaged one is none: it costs an evaluation, and cannot change what is chosen."""
    try:
        entry = json.loads(line)
        check = entry.pop("check", None)
        key, error, seconds, ends = entry["key"], entry["error"], entry.get("seconds", 0.0), entry.get("interval")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if check is not None and check != zlib.crc32(json.dumps(entry).encode()):
        return None
    pair = [] if ends is None else ends
    if not isinstance(pair, list) or len(pair) not in (0, 2):
        return None
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in (error, seconds, *pair))
    if not isinstance(key, str) or not numbers or not 0 <= seconds < _LONGEST:
        return None
    return key, Score(float(error), (float(pair[0]), float(pair[1])) if pair else None), float(seconds)


def drive(
    search: Generator[Ask | Told, Sequence[Score], T],
    evaluate: Evaluate,
    journal: Journal,
    *,
    price: Callable[[Ask], float] = lambda ask: 0.0,
    budget: float = float("inf"),
    listen: Callable[[Asked], None] = lambda event: None,
    tell: Callable[[Told], None] = lambda told: None,
) -> T:
    """Runs a searcher to its end, and gives what it found: a front.

    Args:
        search: a searcher's generator.
        evaluate: scores plans.
        journal: remembers them.
        price: image-forwards that one plan of a request costs.
        budget: image-forwards the searcher promised to keep within; told in events, enforced by the searchers' contract.
        listen: is told after every request.
        tell: is told what the searcher says about itself.

    Raises:
        SearchError: the evaluation did not score every plan.
    """
    spent = worked = 0.0
    seen: set[str] = set()
    answer: Sequence[Score] | None = None
    while True:
        try:
            ask = next(search) if answer is None else search.send(answer)
        except StopIteration as end:
            found: T = end.value
            return found
        if isinstance(ask, Told):
            tell(ask)
            answer = ()
            continue
        keys = [journal.key(ask, plan) for plan in ask.plans]
        missing = {k: p for k, p in zip(keys, ask.plans, strict=True) if k not in journal.scores}
        first = set(keys) - seen
        seen |= first
        earlier = sum(journal.earlier.get(k, 0.0) for k in first)
        if missing:
            start = perf_counter()
            scores = evaluate(replace(ask, plans=tuple(missing.values())))
            if len(scores) != len(missing):
                raise SearchError(f"the evaluation scored {len(scores)} of {plural(len(missing), 'plan')}")
            seconds = (perf_counter() - start) / len(missing)
            more = {"fidelity": ask.fidelity.value, "stage": ask.stage, "seconds": round(seconds, 6)}
            journal.add([(k, s, {**more, "plan": p.digest}) for (k, p), s in zip(missing.items(), scores, strict=True)])
        answer = [journal.scores[k] for k in keys]
        spent += price(ask) * len(set(keys))
        worked += price(ask) * len(missing)
        errors = [s.error for s in answer if s.error == s.error]
        listen(
            Asked(
                fidelity=ask.fidelity.value,
                stage=ask.stage,
                asked=len(keys),
                fresh=len(missing),
                distinct=len(first),
                earlier=earlier,
                spent=spent,
                budget=budget,
                best=min(errors, default=float("nan")),
                recovery=ask.recovery,
                images=ask.images,
                worked=worked,
                candidates=len(seen),
            )
        )
