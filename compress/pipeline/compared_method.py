"""What a comparison compares: methods by name, others' pruners, and what all their runs share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from compress.core import did_you_mean
from compress.data import Data
from compress.errors import ConfigError
from compress.evaluation import CRITERIA
from compress.networks import Network
from compress.pipeline.external import Prune
from compress.pipeline.job import Job
from compress.recovery import OwnLoop
from compress.search import METHODS

TORCH_PRUNING = "benchmarks.torch_pruning_arm"
"""Where the arms of Torch-Pruning's own pruner are: the library may not import it for this."""
Reopen = Callable[[], tuple[Network, Data | None]]
"""Opens network and images again in another process; picklable: a function at the top of a module, or a ``partial`` of one."""


@dataclass(frozen=True)
class ComparedMethod:
    """One method in a comparison.

    Attributes:
        name: in the table.
        method: of ``METHODS``; empty for an arm.
        options: the method's own.
        arm: somebody else's pruner.
        origin: where an arm comes from, ``package.module:function``.
    """

    name: str
    method: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    arm: Prune | None = None
    origin: str = ""

    def job(self, shared: Job, seed: int) -> Job:
        """What one run of it does."""
        method = self.method or "uniform"
        ranking = shared.ranking if METHODS[method].ranks else Job(method=method).ranking
        return replace(shared, method=method, options=dict(self.options), seed=seed, ranking=ranking)


def entry(
    name: str, options: Mapping[str, Any] | None = None, arms: Mapping[str, tuple[str, Prune]] | None = None
) -> ComparedMethod:
    """A method by its name: of ``METHODS``, a criterion (``uniform`` by it), ``global-`` and a criterion, or an arm.

    Args:
        name: e.g. ``smoea``, ``l1``, ``global-taylor``, ``tp-group-norm``.
        options: the method's own.
        arms: name -> (where it comes from, the pruner).

    Raises:
        ConfigError: nothing has that name.
    """
    given = dict(options or {})
    if arms is not None and name in arms:
        origin, arm = arms[name]
        return ComparedMethod(name=name, arm=arm, origin=origin)
    if name in METHODS:
        return ComparedMethod(name=name, method=name, options=given)
    for prefix, method in (("global-", "global"), ("uniform-", "uniform"), ("", "uniform")):
        criterion = name.removeprefix(prefix)
        if name.startswith(prefix) and criterion in CRITERIA:
            return ComparedMethod(name=name, method=method, options={**given, "criterion": criterion})
    if name.startswith("tp-"):
        function = name.removeprefix("tp-").replace("-", "_")
        raise ConfigError(
            f"{name} is a pruner of Torch-Pruning, which compress does not run by itself",
            hint=f"add, in the root of this project's repository: --arm {name}={TORCH_PRUNING}:{function}",
        )
    known = [*METHODS, *CRITERIA, *(f"global-{c}" for c in CRITERIA), *(arms or ())]
    hint = did_you_mean(name, known, f"one of {', '.join(known)}, or another pruner with --arm {name}=...")
    raise ConfigError(f"there is no method {name!r}", hint=hint)


@dataclass(frozen=True)
class MethodComparison:
    """What is compared, under which protocol.

    Attributes:
        job: what all runs share; its method, options and seed are each run's own. Without a word about finalists there are
            none: methods are compared by what each finds itself.
        entries: from :func:`entry`.
        seeds: of the runs.
        reference: the entry that the others are set against on the same test images; added where nothing is the same.
        train: the user's own training loop, for all of them.
        reopen: opens network and images again; with it the runs themselves are spread over the job's workers, each computed
            by one process with ``score_threads`` threads from its beginning to its end. Without it each run's search is.
    """

    job: Job
    entries: Sequence[ComparedMethod]
    seeds: Sequence[int]
    reference: str = "uniform"
    train: OwnLoop | None = None
    reopen: Reopen | None = None

    @property
    def spreads_runs(self) -> bool:
        """Whether runs go side by side where there are several workers; nothing that is found depends on how many."""
        return self.reopen is not None and isinstance(self.job.workers, int)

    def checked(self) -> MethodComparison:
        """The same with its reference among the entries.

        Raises:
            ConfigError: an entry or a seed is there twice, or a setting does not fit a method.
        """
        entries, reference = self.entries, self.reference
        if reference not in [e.name for e in entries]:
            wanted = entry(reference)
            twin = next((e for e in entries if _same(e, wanted)), None)
            entries, reference = (entries, twin.name) if twin else ([*entries, wanted], reference)
        names = [e.name for e in entries]
        if len(set(names)) < len(names) or len(set(self.seeds)) < len(self.seeds) or not self.seeds:
            raise ConfigError(
                f"methods {', '.join(names)} and seeds {', '.join(map(str, self.seeds))}: each must be there once"
            )
        if self.job.target != "macs" and any(e.arm for e in entries):
            raise ConfigError("somebody else's pruners are asked for a share of the MACs", hint="give --macs")
        return replace(self, entries=entries, reference=reference)


def _same(one: ComparedMethod, other: ComparedMethod) -> bool:
    """Whether two names mean the same search: ``uniform`` and ``l1`` do, and need not run twice."""
    if one.arm or other.arm or one.method != other.method:
        return False
    made = [METHODS[e.method].make(**e.options) for e in (one, other)]
    return bool(made[0] == made[1])
