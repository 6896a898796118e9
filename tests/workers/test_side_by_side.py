"""Whole pieces of work side by side: each is done, silence is silence, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support import side_work
from support.side_work import Deeds

from compress.core import Warned
from compress.errors import ConfigError, SearchError, WorkerError
from compress.workers import WorkEnded, side_by_side


def done(folder: Path, *items: tuple[str, int], processes: int = 2) -> tuple[list[WorkEnded], list[Any]]:
    heard: list[Any] = []
    ended = list(side_by_side(Deeds(str(folder)), items, processes, heard.append))
    return sorted((e for e in ended if isinstance(e, WorkEnded)), key=lambda e: e.item), heard


def test_every_item_is_done_once_and_an_error_is_its_own_items(tmp_path: Path) -> None:
    items = [("note", 0), ("fail", 1), *(("note", n) for n in range(2, 7))]
    ended, heard = done(tmp_path, *items)
    assert [e.item for e in ended] == list(range(7))
    assert [e.item for e in ended if e.error is not None] == [1]
    assert isinstance(ended[1].error, SearchError) and ended[1].error.hint == "give others"
    pids = [path.read_text().split() for path in sorted(tmp_path.glob("note-*.done"))]
    assert len(pids) == 6 and all(len(each) == 1 for each in pids) and len({p for each in pids for p in each}) <= 2
    assert sorted(e.text for e in heard if isinstance(e, Warned)) == [f"item {n}" for n in (0, 2, 3, 4, 5, 6)]


def test_nothing_beside_computes_while_one_is_alone(tmp_path: Path) -> None:
    """Two clock at the same time, two others tick: no tick falls into a time that was clocked, and the two times are apart."""
    ended, _ = done(tmp_path, ("count", 0), ("clock", 1), ("clock", 2), ("count", 3), processes=4)
    assert [e.error for e in ended] == [None] * 4
    clocked = [tuple(map(float, path.read_text().split())) for path in tmp_path.glob("clocked-*")]
    ticks = [float(tick) for path in tmp_path.glob("ticks-*") for tick in path.read_text().split()]
    assert len(clocked) == 2 and len(ticks) > 20
    (_, first), (second, _) = sorted(clocked)
    assert first <= second
    assert not [tick for began, ended_at in clocked for tick in ticks if began < tick < ended_at]


@pytest.mark.parametrize("deed", ["die_once", "die_alone"])
def test_what_a_killed_process_did_goes_on_in_another(tmp_path: Path, deed: str) -> None:
    ended, heard = done(tmp_path, (deed, 0), *(("note", n) for n in range(1, 4)))
    assert [e.error for e in ended] == [None] * 4
    assert [e.text for e in heard if "signal 9" in e.text and "goes on in another" in e.text]


def test_an_item_that_kills_every_process_is_given_up_alone(tmp_path: Path) -> None:
    ended, _ = done(tmp_path, ("die", 0), ("note", 1))
    assert isinstance(ended[0].error, WorkerError) and "3 processes in a row" in ended[0].error.message
    assert ended[1].error is None


def test_what_cannot_be_sent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be sent to another process"):
        list(side_by_side(lambda: lambda item, listen: None, [0, 1], 2))


def test_nothing_outlives_a_killed_parent_stopped_or_not(tmp_path: Path) -> None:
    """One of the two is alone, the other is stopped, when their parent is killed."""
    parent = subprocess.Popen([sys.executable, side_work.__file__, str(tmp_path)])
    try:
        pids = [int(text) for text in _texts(tmp_path, "pid-*", 2)]
        until(lambda: sorted(map(_state, pids)) in (["S", "T"], ["R", "T"]))
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    until(lambda: all(_state(pid) in ("", "Z") for pid in pids))


def _texts(folder: Path, pattern: str, count: int) -> list[str]:
    until(lambda: len([p for p in folder.glob(pattern) if p.read_text()]) == count)
    return [path.read_text() for path in folder.glob(pattern)]


def _state(pid: int) -> str:
    """Of a process, as the kernel has it: R, S, T (stopped), Z; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def until(so: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < end
        time.sleep(0.05)
