"""Runs on several workers: journal, front and plan are byte for byte those of one."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from support.worker_runs import BASE, left_in, small
from torch import nn

from compress.core import PhaseDone
from compress.data import Data
from compress.errors import CompressError, ConfigError
from compress.networks import Network, network_of
from compress.pipeline import Job, decide, make_job
from compress.pipeline import worker_choice as choice
from compress.pipeline.run_folder import JOB
from compress.pipeline.worker_choice import footprint, with_workers
from compress.workers import ScoresArrived

GIB = 2**30


@pytest.mark.parametrize(
    ("method", "widths"),
    [
        ("smoea", (1, 2)),
        pytest.param("smoea", (1, 2, 3), marks=pytest.mark.slow),
        pytest.param("bicnn", (1, 2, 3), marks=pytest.mark.slow),
        pytest.param("cluster", (1, 2, 3), marks=pytest.mark.slow),
    ],
)
def test_any_number_of_workers_leaves_the_same_bytes(
    digits: tuple[Network, Data], tmp_path: Path, method: str, widths: tuple[int, ...]
) -> None:
    """One of the workers is killed in the middle."""
    folders = []
    for width in widths:
        job, heard = small(method, workers=width), list[Any]()
        folders.append(tmp_path / str(width))
        decide(*digits, job, folders[-1], listen=partial(_hear, heard))
        assert ("workers" in [e.name for e in heard if isinstance(e, PhaseDone)]) == (width > 1)
        assert not list(folders[-1].glob(".workers*"))
        moved = [e.moved for e in heard if isinstance(e, ScoresArrived) and e.done == e.asked]
        assert bool(moved) == (width > 1) and all(100 < each < 100_000 for each in moved)
    first, *others = map(left_in, folders)
    assert first["journal"].count('"key"') > 10
    assert all(other == first for other in others)


def _hear(heard: list[Any], event: Any) -> None:
    """Kills a worker of this process when the third part arrives."""
    heard.append(event)
    if isinstance(event, ScoresArrived) and sum(isinstance(e, ScoresArrived) for e in heard) == 3:
        import multiprocessing

        victim = multiprocessing.active_children()[0]
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)


class Local(nn.Module):
    """A network of which a part cannot be pickled, or a memory cannot be had."""

    def __init__(self, made: Callable[[], Any] | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.made = made

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


def tiny(made: Callable[[], Any] | None = None) -> Network:
    return network_of(Local(made).eval(), example=torch.zeros(1, 3, 16, 16))


def test_what_cannot_be_sent_is_refused_before_any_work(tmp_path: Path) -> None:
    heard: list[Any] = []
    with pytest.raises(ConfigError, match="the network cannot be sent to another process") as told:
        decide(tiny(lambda: 0), None, make_job(flags={**BASE, "workers": 2}), tmp_path / "run", listen=heard.append)
    assert "at the top of a module" in told.value.hint and "leave workers out" in told.value.hint
    assert [e for e in heard if isinstance(e, PhaseDone)] == []
    assert not (tmp_path / "run").exists()


def test_more_workers_than_memory_holds_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number that fits is named, and does fit."""
    each = footprint(tiny()).worker_bytes(choice.images_of(Job(), None))
    assert 0.4 * GIB < each < 2 * GIB
    monkeypatch.setattr("compress.pipeline.scoring.free_memory", lambda: int(3.5 * each))
    with pytest.raises(ConfigError, match=r"8 workers may fill .*: 3 fit") as told:
        decide(tiny(), None, make_job(flags={**BASE, "workers": 8}), tmp_path / "run")
    assert told.value.hint == "--workers 3"


@pytest.mark.parametrize("number", [0, -1, 5000])
def test_absurd_numbers_are_refused(number: int) -> None:
    with pytest.raises(CompressError, match=f"workers is {number}, but must be between 1 and 1024"):
        make_job(flags={"workers": number})


def chosen(monkeypatch: pytest.MonkeyPatch, folder: Path, *, there: int, free: float, **flags: Any) -> tuple[int | None, int]:
    monkeypatch.setattr(choice, "cores", lambda: there)
    monkeypatch.setattr(choice, "free_memory", lambda: int(free * GIB))
    monkeypatch.setattr(torch, "get_num_threads", lambda: there)
    job = with_workers(tiny(), None, make_job(flags={"workers": "auto", "method": "smoea", **flags}), folder, False)
    return job.workers, job.score_threads or 0


def test_workers_are_chosen_by_work_cores_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = partial(chosen, monkeypatch, tmp_path)
    macs = footprint(tiny()).macs
    minutes = {"budget": int(60 * 2e10 * 10 / macs)}  # ten workers' worth
    assert at(there=16, free=64) == (None, 16)  # a tiny network is scored before a worker has started
    assert at(there=16, free=64, **minutes) == (8, 2) and at(there=2, free=64, **minutes) == (2, 1)
    assert at(there=1, free=64, **minutes) == (None, 1)
    assert at(there=16, free=0.1, **minutes) == (None, 16)
    few = at(there=16, free=4, **minutes)
    assert few[0] is not None and 2 <= few[0] < 8 and few[1] == 16 // few[0]
    assert at(there=16, free=64, method="uniform", **minutes) == (None, 16)  # one request of a few plans
    assert at(there=16, free=64, method="auto", **minutes) == (8, 2)  # may evolve
    assert at(there=16, free=64, method="auto", **{**minutes, "target": "latency"}) == (None, 16)  # closed forms for certain


def test_a_run_keeps_its_threads_and_may_change_its_workers(tmp_path: Path) -> None:
    settled = partial(with_workers, tiny(), None, folder=tmp_path, fresh=False)
    begun = settled(Job(workers=2))
    assert begun.score_threads == 1 and settled(Job(score_threads=3)).score_threads == 3
    (tmp_path / JOB).write_text(json.dumps({"job": replace(begun, score_threads=5).to_json()}))
    assert {settled(Job(workers=n)).score_threads for n in (None, 1, 7)} == {5}
    assert begun.to_json() == settled(Job(workers=9)).to_json() | {"score_threads": 1}
    (tmp_path / JOB).write_text(json.dumps({"job": Job().to_json()}))  # of an earlier version
    assert settled(Job(workers=2)).score_threads is None
