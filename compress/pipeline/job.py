"""A run's settings: defaults, then a file, then ``--set a.b=c``, then flags, resolved into one frozen job."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from compress.core import TOP1, BranchId, Figure, did_you_mean, nearest, read_json, read_text, validated
from compress.errors import ConfigError
from compress.runtime import PROVIDERS, TORCH_RUNTIMES
from compress.search import LEAST_PLANS, METHODS, MOST_PLANS, Target, last_of_each
from compress.workers import RayWanted

Recover = Literal["none", "bn", "reconstruct"]


_POINTS = 100.0
_MOST_WORKERS = 1024
_NOT_KEPT = ("workers", "auto_workers")
"""What a job does not keep: circumstances of a sitting, on which nothing that is found depends."""
_WHERE_SAID = ("dynamic_size", "train", "score_threads")


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that decides what a run does.

    Attributes:
        method: name in ``compress.search.methods.METHODS``.
        target: ``macs``, ``params``, ``latency`` (share kept; latency is ONNX Runtime's on this machine's CPU) or ``max_drop``
            (what the task's figure may lose: points of a share, else its unit).
        value: of the target: a share in (0, 1], or points, as on the command line: 1.0 allows a drop of one percentage point;
            of a figure in a unit, that unit.
        round_to: widths become multiples of this, per layer.
        auto_round: ``round_to`` is chosen from a latency table instead.
        table: file of a latency table; empty makes one, where it is needed, and keeps it for the next time.
        force: use a table that was measured in another environment.
        ignore: fnmatch patterns on module names that are left alone.
        ranking: criterion that decides which channels a width keeps; ``auto`` is the method's own.
        streams: whether coupled residual streams are cut too.
        branches: whether branches beside identity shortcuts may go, where the method can leave them out.
        prefer_fast: for a target of MACs or parameters: of plans whose errors cannot be told apart the fastest is taken.
        prefer_large: for a target of latency: of finalists whose errors cannot be told apart the one with most MACs is taken.
        finalists: plans that are trained for some steps before one is taken, where the search has several and the run trains;
            None is 8 from three epochs on and none below, 0 takes the best untrained one.
        seed: the one seed.
        budget: image-forwards of the search; None chooses by the network's size.
        stop_after: share of an evolution's generations without growth of its front's hypervolume after which it ends; 0 spends
            the whole budget. Only smoea, bicnn and cluster evolve.
        calibration: images for statistics, objectives and reconstruction; None is 256, and up to 1,024 of small ones.
        recover: what is done without training after the cut.
        zero_kernels: kernel mode after the recovery: share of its output's variance that every filter may lose by ignoring
            kernels; effective parameters only, no MACs and no time. 0 turns it off.
        realise: ``cut`` the plan's channels, then recover and fine-tune; or ``csgd``: train until clusters of filters at the
            plan's widths are equal, then trim what is redundant. The method csgd implies it.
        stage_epochs: training after every stage's cut, before the next stage is searched (SMOEA's progressive pruning); 0 cuts
            all stages at once.
        eps: strength of Centripetal SGD's pull; None takes the paper's 0.003 and raises it where the training is too short.
        epochs: fine-tuning epochs; None chooses by the number of training images, 0 turns it off.
        lr: highest learning rate of the fine-tuning.
        lr_by_budget: a fine-tuning of fewer than 300 steps takes as much less, a tenth at the least.
        batch: images a training step.
        distill: weight of the unpruned network's outputs in the fine-tuning, 0 turns it off.
        exporter: ``auto``, ``dynamo`` or ``legacy``.
        dynamic_size: ONNX files take any height and width that the network takes; they are proven at two sizes.
        runtimes: which runtimes clock the result.
        require_gpu: a GPU runtime that falls back is an error.
        latency_seconds: measuring time per runtime; 0 measures nothing.
        threads: intra-op threads while measuring.
        workers: processes that score plans, each with a network, images and caches of its own; 1 scores in this process. None,
            too, with as many threads as torch takes. ``ray``, ``ray:4`` (four actors), ``ray://HOST:PORT`` and
            ``ray://HOST:PORT/4`` are actors of a Ray cluster instead. Plan and front do not depend on it, so that a run may go
            on with others.
        auto_workers: ``workers`` is chosen from the search's size, cores and memory instead, as on the command line.
        score_threads: threads that every score is computed with, by every worker; None: 1 where workers are named, else torch's
            own number. A run keeps the number that it was begun with.
        accept_chance: go on although the unpruned network is near chance.
        options: parameters of the method's searcher.
        train: name of the user's own training loop, for people: nothing is ever imported by it.
    """

    method: str = "auto"
    target: Literal["macs", "params", "latency", "max_drop"] = "macs"
    value: float = 0.5
    round_to: int = 8
    auto_round: bool = False
    table: str = ""
    force: bool = False
    ignore: tuple[str, ...] = ()
    ranking: str = "auto"
    streams: bool = True
    branches: bool = True
    prefer_fast: bool = True
    prefer_large: bool = True
    finalists: int | None = None
    seed: int = 0
    budget: int | None = None
    stop_after: float = 0.1
    calibration: int | None = None
    recover: Recover = "reconstruct"
    zero_kernels: float = 0.0
    realise: Literal["cut", "csgd"] = "cut"
    stage_epochs: int = 0
    eps: float | None = None
    epochs: int | None = None
    lr: float = 0.02
    lr_by_budget: bool = True
    batch: int = 128
    distill: float = 0.9
    exporter: Literal["auto", "dynamo", "legacy"] = "auto"
    dynamic_size: bool = False
    runtimes: tuple[str, ...] = ("cpu",)
    require_gpu: bool = False
    latency_seconds: float = 15.0
    threads: int = 1
    workers: int | str | None = None
    auto_workers: bool = False
    score_threads: int | None = None
    accept_chance: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    train: str = ""

    def __post_init__(self) -> None:
        if self.target == "max_drop" and not 0 < self.value < math.inf:
            raise ConfigError(
                f"target max_drop is {self.value:g}, but must be above 0",
                hint="--max-drop 1.0 allows one point of accuracy, or one of the unit that the task's figure has",
            )
        _ = self.goal
        wanted = {
            "method": (self.method in METHODS, f"one of {', '.join(METHODS)}"),
            "round_to": (1 <= self.round_to <= 1024, "between 1 and 1024"),
            "finalists": (
                self.finalists in (None, 0) or LEAST_PLANS <= (self.finalists or 0) <= MOST_PLANS,
                f"0, or between {LEAST_PLANS} and {MOST_PLANS}",
            ),
            "seed": (self.seed >= 0, "0 or more"),
            "budget": (self.budget is None or self.budget >= 100, "at least 100 image-forwards"),
            "calibration": (self.calibration is None or self.calibration >= 4, "at least 4 images"),
            "epochs": (self.epochs is None or self.epochs >= 0, "0 or more"),
            "stage_epochs": (self.stage_epochs >= 0, "0 or more"),
            "eps": (self.eps is None or 0 < self.eps < 1e3, "above 0"),
            "stop_after": (0 <= self.stop_after <= 1, "in [0, 1]; 0 never stops early"),
            "zero_kernels": (0 <= self.zero_kernels < 1, "in [0, 1)"),
            "lr": (0 < self.lr < math.inf, "above 0"),
            "batch": (self.batch >= 2, "at least 2"),
            "distill": (0 <= self.distill <= 1, "in [0, 1]"),
            "latency_seconds": (0 <= self.latency_seconds <= 86_400, "between 0 and a day"),
            "threads": (self.threads >= 1, "at least 1"),
            "workers": (
                not isinstance(self.workers, int) or 1 <= self.workers <= _MOST_WORKERS,
                f"between 1 and {_MOST_WORKERS}",
            ),
            "score_threads": (self.score_threads is None or 1 <= self.score_threads <= _MOST_WORKERS, "at least 1"),
        }
        for name, (fits, rule) in wanted.items():
            if not fits:
                value = getattr(self, name)
                meant = did_you_mean(str(value), METHODS) if name == "method" else ""
                raise ConfigError(f"{name} is {value!r}, but must be {rule}", hint=meant)
        known_runtimes = (*PROVIDERS, *TORCH_RUNTIMES)
        unknown = [name for name in self.runtimes if name not in known_runtimes]
        if unknown or not self.runtimes:
            raise ConfigError(
                f"no runtime is called {', '.join(map(repr, unknown)) or 'nothing'}",
                hint=did_you_mean(unknown[0] if unknown else "", known_runtimes, f"one of {', '.join(known_runtimes)}"),
            )
        _ = self.ray
        if self.ranking not in ("auto", "l1") and not METHODS[self.method].ranks:
            raise ConfigError(
                f"ranking is {self.ranking!r}, but method {self.method} ranks channels itself",
                hint="--set options.criterion=..."
                if self.method in ("uniform", "global")
                else "see `compress methods` for its options",
            )
        if METHODS[self.method].clusters:
            object.__setattr__(self, "realise", "csgd")
        if self.finalists and self.epochs == 0:
            raise ConfigError(
                f"finalists is {self.finalists}, but epochs is 0: nothing is trained", hint="leave one of the two out"
            )
        if self.realise == "csgd" and self.epochs == 0:
            other = "" if METHODS[self.method].clusters else ", or use --realise cut"
            raise ConfigError("epochs is 0, but C-SGD is training", hint=f"leave --epochs out{other}")
        if self.realise == "csgd" and self.zero_kernels:
            raise ConfigError("zero_kernels is set, but nothing is changed after the trim of C-SGD", hint="use --realise cut")
        known = [f.name for f in fields(METHODS[self.method].searcher)]
        if self.stage_epochs:
            self._check_progressive()
        for name in self.options:
            if name not in known:
                raise ConfigError(
                    f"method {self.method} has no option {name!r}",
                    hint=did_you_mean(name, known, _whose(name, f"it has {', '.join(known)}")),
                )
        METHODS[self.method].make(**self.options)

    @property
    def ray(self) -> RayWanted | None:
        """The Ray cluster whose actors score; None where processes do.

        Raises:
            ConfigError: it is named in a way that cannot be read.
        """
        return RayWanted.read(self.workers) if isinstance(self.workers, str) else None

    @property
    def leaves_branches_out(self) -> bool:
        """Whether plans of this job may leave branches out."""
        able = METHODS[self.method].branches or bool(self.options.get("blocks"))
        return self.branches and able and self.realise == "cut" and not self.stage_epochs

    def leaving(self, branches: Sequence[BranchId]) -> tuple[BranchId, ...]:
        """Those of a network's branches that plans of this job may leave out."""
        if not self.leaves_branches_out:
            return ()
        return tuple(branches) if METHODS[self.method].branches else last_of_each(branches, int(self.options["blocks"]))

    def _check_progressive(self) -> None:
        wrong = {
            f"method {self.method}": METHODS[self.method].reader_losses or METHODS[self.method].clusters,
            f"realise {self.realise}": self.realise == "csgd",
            f"a target of {self.target}": self.target not in ("macs", "params"),
        }
        for what, is_wrong in wrong.items():
            if is_wrong:
                raise ConfigError(
                    f"stage_epochs is {self.stage_epochs}, but {what} cannot be pruned stage by stage",
                    hint="leave stage_epochs out, or use --method smoea with --macs or --params",
                )

    @property
    def goal(self) -> Target:
        """What is searched for; a drop as a fraction, as accuracy is in every figure.

        Raises:
            ConfigError: it cannot be reached by anything.
        """
        return Target(self.target, self.value / _POINTS if self.target == "max_drop" else self.value)

    def to_json(self, figure: Figure | None = TOP1) -> dict[str, Any]:
        """Plain values, as written to ``job.json``; what is only said where it is wanted is left out elsewhere.

        Args:
            figure: what a drop is of: ``unit`` says what it is counted in. Jobs of the earliest version have none.
        """
        values = {name: value for name, value in asdict(self).items() if name not in _NOT_KEPT}
        kept = {name: value for name, value in values.items() if name not in _WHERE_SAID or value}
        return kept | ({"unit": (figure or TOP1).step} if self.target == "max_drop" else {})


EARLIER: Mapping[str, Any] = {
    "branches": False,
    "prefer_fast": False,
    "prefer_large": False,
    "finalists": 0,
    "stop_after": 0.0,
    "lr_by_budget": False,
}
"""How jobs of earlier versions went about what they do not mention."""


def _whose(option: str, otherwise: str) -> str:
    """Which methods have an option that this one lacks, or one of a name like it."""
    options = {name: [f.name for f in fields(method.searcher)] for name, method in METHODS.items()}
    having = [name for name, names in options.items() if option in names]
    if having:
        return f"{', '.join(having)} {'have' if len(having) > 1 else 'has'} it: --method {having[0]}"
    if not (alike := nearest(option, [o for names in options.values() for o in names])):
        return otherwise
    return f"did you mean {alike[0]!r} of {', '.join(name for name, names in options.items() if alike[0] in names)}?"


def stored_values(held: Mapping[str, Any]) -> dict[str, Any]:
    """A stored job's values as :class:`Job` takes them today.

    Where a drop has no unit, it is a fraction, of an earlier version; nor did those leave branches out, go by time,
    train finalists, or stop before their budget was spent.
    """
    held = {**EARLIER, **held}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in held.items() if name != "unit"}
    drop = values.get("value")
    if values.get("target") == "max_drop" and "unit" not in held and isinstance(drop, int | float):
        values["value"] = round(drop * _POINTS, 9)
    return values


def make_job(file: str | Path | None = None, settings: Sequence[str] = (), flags: Mapping[str, Any] | None = None) -> Job:
    """Resolves a job.

    Args:
        file: TOML with the names of :class:`Job`, searcher parameters under ``[options]``; or the ``job.json`` of a run.
        settings: ``name=value`` or ``options.name=value``, in TOML's notation.
        flags: values given on the command line; None means not given.

    Raises:
        ConfigError: unknown names, wrong types, values out of range.
    """
    values = {} if file is None else read_settings(Path(file))
    for text in settings:
        _merge(values, _parse(text))
    given = {k: v for k, v in (flags or {}).items() if v is not None}
    values.update({"auto_round": False} | given if "round_to" in given else given)
    if values.get("workers") == "auto":
        del values["workers"]
        values["auto_workers"] = True
    if values.get("round_to") == "auto":
        del values["round_to"]
        values["auto_round"] = True
    options = values.get("options", {})
    if isinstance(options, Mapping) and "squeeze" in options and not {"target", "value"} & values.keys():
        values |= {"target": "macs", "value": 1.0}  # the widths are given, no budget is to be met
    if values.get("realise") == "cut" and METHODS.get(values.get("method", ""), METHODS["smoea"]).clusters:
        raise ConfigError(
            f"realise is cut, but the clusters of {values['method']} are nothing that could be cut before it trains",
            hint="leave --realise out, or take its widths with another method: --method uniform",
        )
    known = [f.name for f in fields(Job)]
    for name in values:
        if name not in known:
            raise ConfigError(f"unknown setting {name!r}", hint=did_you_mean(name, known, f"known: {', '.join(known)}"))
    return validated(Job, values)


def read_settings(file: Path) -> dict[str, Any]:
    """A file's names and values, not checked: TOML, or the ``job.json`` of a run.

    Raises:
        ConfigError: it is neither.
    """
    if file.suffix == ".json":
        hint = "give the job.json of a run, or a TOML file with lines of name = value"
        held = read_json(file, hint=hint).get("job")
        if not isinstance(held, dict):
            raise ConfigError(f"{file} is no job.json of a run: it has no job", hint=hint)
        return stored_values(held)
    try:
        return tomllib.loads(read_text(file))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{file}: not a readable TOML file: {error or type(error).__name__}", hint="write lines of name = value"
        ) from error


def _parse(text: str) -> dict[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text!r} is not of the form name=value", hint="as in --set options.population=20")
    for right in (value, repr(value)):
        try:
            return tomllib.loads(f"{name} = {right}")
        except (ValueError, RecursionError):
            continue
    raise ConfigError(f"--set {text[:80]!r} is not of the form name=value", hint="as in --set options.population=20")


def _merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
