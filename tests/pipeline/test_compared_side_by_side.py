"""Comparisons whose runs go side by side: table, journals and networks are those of one after another."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from compress_cli.inputs import Inputs
from support.worker_runs import BASE, SMALL, left_in

from compress.core import Warned
from compress.errors import ConfigError
from compress.pipeline import MethodComparison, compare_methods, entry, make_job

REFERENCE = Path(__file__).parents[2] / "models" / "checkpoints" / "digits-net.safetensors"
INPUTS = Inputs(model=str(REFERENCE), data="digits")
_WHEN = ("seconds", "environment", "command")


def table(folder: Path) -> Any:
    """The comparison, but for when and how fast it came about."""
    return _without(json.loads((folder / "comparison.json").read_text()))


def _without(held: Any) -> Any:
    if isinstance(held, dict):
        return {k: _without(v) for k, v in held.items() if not any(word in k for word in _WHEN)}
    return [_without(each) for each in held] if isinstance(held, list) else held


def of(workers: int, *names: str, **more: Any) -> MethodComparison:
    entries = [entry(name, SMALL.get(name, {}).get("options")) for name in names]
    job = make_job(flags={**BASE, "exporter": "legacy", "recover": "bn", "workers": workers, **more})
    return MethodComparison(job=job, entries=entries, seeds=(0, 1), reopen=partial(INPUTS.open, 0))


@pytest.mark.slow
@pytest.mark.parametrize(("names", "widths"), [(("smoea", "uniform"), (1, 2)), (("cluster", "uniform"), (1, 8))])
def test_any_number_of_workers_leaves_the_same_table(tmp_path: Path, names: tuple[str, ...], widths: tuple[int, ...]) -> None:
    """One of the processes is killed as the second run begins; eight workers are two for each of four runs."""
    network, data = INPUTS.open(0)
    assert data is not None
    for width in widths:
        heard: list[Any] = []
        wanted = of(width, *names, epochs=1)
        compare_methods(network, data, wanted, tmp_path / str(width), listen=partial(_hear, heard))
        assert any("signal 9" in e.text for e in heard if isinstance(e, Warned)) == (width > 1)
    first, *others = [table(tmp_path / str(width)) for width in widths]
    assert all(other == first for other in others) and len(first["rows"]) == 4
    for row in first["rows"]:
        base, *those = [tmp_path / str(width) / row["folder"] for width in widths]
        assert all(left_in(one) == left_in(base) for one in those)
        assert len({(one / "model.safetensors").read_bytes() for one in (base, *those)}) == 1


def _hear(heard: list[Any], event: Any) -> None:
    """Kills one of the processes when two of them have begun; another one may just be starting."""
    heard.append(event)
    if getattr(event, "note", "").count("seed") > 1 and not any(isinstance(e, str) for e in heard):
        heard.append("killed")
        victim = multiprocessing.active_children()[-1]
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)


@pytest.mark.slow
def test_what_opens_to_something_else_is_refused(tmp_path: Path) -> None:
    """Other images there than here: no run begins."""
    network, data = INPUTS.open(0)
    assert data is not None
    wanted = replace(of(2, "uniform", "l2"), reopen=partial(INPUTS.open, 1))
    with pytest.raises(ConfigError, match="others when they are opened a second time"):
        compare_methods(network, data, wanted, tmp_path)
    assert not list(tmp_path.rglob("job.json"))


def test_more_runs_at_a_time_than_memory_holds_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, data = INPUTS.open(0)
    assert data is not None
    monkeypatch.setattr("compress.pipeline.compared_runs.free_memory", lambda: 2 << 30)
    for workers in (4, 40):  # four runs, one worker each and ten
        with pytest.raises(ConfigError, match=rf"^{workers} workers may fill .*: [12] fit") as told:
            compare_methods(network, data, of(workers, "uniform", "l2"), tmp_path / "new")
        assert told.value.hint in ("--workers 1", "--workers 2")
    assert not (tmp_path / "new").exists()
