"""What has to hold before a search: data that fits the network, criteria that exist, a target in reach, right answers."""

from __future__ import annotations

import math

import numpy as np

from compress.core import LatencyTable, Listen, Measured, Table, Topology, did_you_mean, near_chance, plural
from compress.data import Data
from compress.errors import ConfigError, DataError, ModelError, SearchError, TaskError
from compress.evaluation import CRITERIA, score_on
from compress.networks import Network
from compress.pipeline.inspection import reach
from compress.pipeline.job import Job
from compress.pipeline.run import Run, measured


def check_structure(network: Network, data: Data) -> None:
    """A network of several inputs wants batches of their structure.

    Raises:
        ConfigError: the data has another one.
    """
    if network.signature is None or network.takes_images:
        return
    try:
        network.rows(next(iter(data.validation.batches(1, limit=1))))
    except (ModelError, DataError) as error:
        raise ConfigError(
            f"the network takes {network.signature.describe()}, images are one of these at the most",
            hint="give batches of this structure with compress.data_from, or leave --data out: the search then goes by the "
            "outputs on random inputs of the example's structure",
        ) from error


def check_criteria(job: Job) -> None:
    """Every criterion that the job names has to be there.

    Raises:
        ConfigError: one is not.
    """
    named = {"ranking": () if job.ranking == "auto" else (job.ranking,)}
    for option in ("criterion", "seeds"):
        value = job.options.get(option, ())
        named[f"options.{option}"] = (value,) if isinstance(value, str) else tuple(value)
    for setting, names in named.items():
        for name in names:
            if name not in CRITERIA:
                raise ConfigError(
                    f"{setting}: {name!r} is no criterion",
                    hint=did_you_mean(name, CRITERIA, f"there are {', '.join(CRITERIA)}"),
                )


def check_target(topology: Topology, job: Job, table: LatencyTable | None, listen: Listen) -> None:
    """Shows what can be reached before any work, and refuses what cannot.

    Raises:
        SearchError: the target is below the least; the nearest reachable one is named.
    """
    kinds = ("macs", "params") if table is None else ("macs", "params", "latency")
    least = {kind: reach(topology, job, kind, table=table) for kind in kinds}
    rows = []
    for kind, low in least.items():
        wanted = f"{job.value:.3f}" if job.target == kind else ""
        rows.append((kind, f"{low:.3f}", "1.000", wanted, "" if not wanted else ("yes" if job.value >= low else "no")))
    listen(Table("what can be reached (share kept)", ("", "least", "most", "wanted", "reachable?"), tuple(rows)))
    if job.target in least and job.value < least[job.target]:
        low = least[job.target]
        without = " and without the branches that may go" if job.leaves_branches_out and topology.branches else ""
        raise SearchError(
            f"--{job.target} {job.value:g} cannot be reached: with widths in {job.round_to}s{without} at least {low:.3f} of "
            f"the {job.target} are left",
            hint=f"the nearest reachable target is --{job.target} {np.ceil(low * 1000) / 1000:.3f}; "
            "a smaller --round-to reaches lower",
        )


_OPPOSITE = (
    "its answers are the opposite of the labels: the first class folder in alphabetical order is 0, the second 1; "
    "--labels FILE with lines of `folder label` says otherwise"
)


def base_score(run: Run) -> tuple[Measured, ...]:
    """The unpruned network's score; near chance means that something is fed wrongly.

    Raises:
        DataError: it is near chance.
        TaskError: it is no number.
    """
    data, job, task = run.data, run.job, run.task
    if data is None or not run.scored:
        return ()
    figure = task.figure
    assert figure is not None
    with run.clock.phase(f"base {figure.short}", f"{plural(len(data.validation), 'validation image')}"):
        found = measured(score_on(run.network.model, data.validation, task), "base", "validation")
    if not math.isfinite(found.value):
        raise TaskError(
            f"the unpruned network's {figure.name} is {found.value} on {plural(found.images, 'image')} of {data.name}",
            hint="check score(), the targets, and how the images are prepared: --mean, --std, --size",
        )
    chance = task.chance(len(data.classes)) if task.names_one_label else None
    if chance and not job.accept_chance and near_chance(found.value, found.images, round(1 / chance)):
        raise DataError(
            f"the unpruned network has {100 * found.value:.1f} % accuracy on {plural(found.images, 'image')} of {data.name}, "
            f"near chance for {round(1 / chance)} classes: wrong normalisation or labels?",
            hint=_OPPOSITE
            if found.value < 0.25 and task.name == "binary"
            else "check --mean, --std, --size and --labels; --accept-chance goes on all the same",
        )
    return (found,)
