"""A run's figures in trackers: nothing is lost on the way, and no tracker ends a run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.commands import DIGITS, compress
from support.reports import SAMPLE

from compress.core import Phase, PhaseDone, Warned
from compress.errors import ConfigError
from compress.pipeline.job import Job
from compress.pipeline.tracking import TRACKERS, figures_of, need_trackers, tracked
from compress.recovery import EpochDone, TrainingProgress

EVENTS = [
    Phase("trace"),
    PhaseDone("trace: a, b", 1.5),
    TrainingProgress(epoch=2, epochs=3, step=5, steps=10, loss=0.25, lr=0.01, seconds=1.0),
    EpochDone(epoch=2, epochs=3, loss=0.2, accuracy=None, seconds=2.0),
    Warned("careful"),
]


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[Any]]:
    """Puts a tracker of Accelerate's kind, which writes into a list, in the place of trackio's or another's."""
    from accelerate import tracking

    def put(fails: str = "", place: str = "trackio") -> list[Any]:
        kept: list[Any] = []

        class Notebook(tracking.GeneralTracker):
            name, requires_logging_directory = "trackio", False

            def __init__(self, run_name: str, logging_dir: Path | None = None, **more: Any) -> None:
                kept.append(("made", run_name, more))
                if logging_dir is not None:  # as TensorBoard's does
                    (logging_dir / run_name).mkdir(parents=True)

            def __getattribute__(self, called: str) -> Any:
                if called == fails:
                    raise OSError("the disk is full")
                return super().__getattribute__(called)

            def start(self) -> None:
                kept.append(("started",))

            def store_init_configuration(self, values: dict[str, Any]) -> None:
                kept.append(("settings", values))

            def log(self, values: dict[str, Any], step: int | None = None, **more: Any) -> None:
                kept.append(("log", step, values))

            def finish(self) -> None:
                kept.append(("finished",))

            @property
            def tracker(self) -> None:
                return None

        monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, place, Notebook)
        (tmp_path / "site" / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / place / "__init__.py").touch()
        monkeypatch.syspath_prepend(tmp_path / "site")
        return kept

    return put


def test_every_figure_arrives_in_order_and_every_event_goes_on(notebook: Any, tmp_path: Path) -> None:
    kept, heard = notebook(), []
    job = Job(method="smoea", options={"population": 4}, ignore=("fc",))
    with tracked(["trackio", "trackio"], tmp_path / "run", job, heard.append) as tracking:
        for event in EVENTS:
            tracking.hear(event)
        assert heard == EVENTS and [k[0] for k in kept] == ["made", "started", "settings", *["log"] * 3]
        tracking.conclude(SAMPLE)
    assert kept[0] == ("made", "compress", {"name": "run"}) and kept[-1] == ("finished",)
    settings = kept[2][1]
    assert settings["options.population"] == 4 and settings["ignore"] == "fc" and settings["method"] == job.method
    assert all(isinstance(v, bool | int | float | str) for v in settings.values())
    logged = [k for k in kept if k[0] == "log"]
    assert [step for _, step, _ in logged] == [0, 1, 2, 3]
    assert [set(values) for _, _, values in logged[:3]] == [
        {"seconds/trace_ a_ b"},
        {"training/epoch", "training/loss", "training/lr"},
        {"training/epoch", "training/loss of the epoch"},
    ]
    assert logged[1][2]["training/epoch"] == 1.5
    last = logged[3][2]
    assert last["result/macs kept"] == pytest.approx(SAMPLE.after.macs / SAMPLE.before.macs)
    assert len(last) == 2 + len({(s.split, s.when) for s in SAMPLE.scores}) + len({x.runtime for x in SAMPLE.latency})


@pytest.mark.parametrize("fails", ["start", "log", "finish"])
def test_a_tracker_that_fails_is_told_once_and_ends_no_run(notebook: Any, tmp_path: Path, fails: str) -> None:
    notebook(fails)
    heard: list[Any] = []
    with tracked(["trackio"], tmp_path / "run", Job(), heard.append) as tracking:
        for event in EVENTS:
            tracking.hear(event)
    told = [e for e in heard if isinstance(e, Warned) and e not in EVENTS]
    assert [e for e in heard if e not in told] == EVENTS
    assert len(told) == 1 and "trackio" in told[0].text and "the disk is full" in told[0].text


def test_what_is_missing_or_unknown_is_told_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [])
    for name in TRACKERS:
        with pytest.raises(ConfigError, match=f"{name}, which is not installed") as caught:
            need_trackers([name])
        assert caught.value.hint.startswith("pip install ")
    monkeypatch.undo()
    wrong = compress("prune", "nowhere.pt", "--track", "tensorbord")
    assert wrong.exit_code == 3 and "did you mean 'tensorboard'?" in wrong.stderr


def test_a_run_that_is_refused_leaves_no_folder_though_it_was_tracked(notebook: Any, tmp_path: Path) -> None:
    kept, folder = notebook(place="tensorboard"), tmp_path / "run"
    ended = compress("prune", DIGITS, "--macs", "0.01", "--track", "tensorboard", "--out", folder)
    assert ended.exit_code == 3 and "cannot be reached" in ended.stderr and not folder.exists()
    assert kept[0] == ("made", "tensorboard", {}) and kept[-1] == ("finished",)


@pytest.mark.slow
def test_tensorboard_shows_what_was_tracked(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tracked(["tensorboard"], tmp_path, Job()) as tracking:
        for event in EVENTS:
            tracking.hear(event)
        tracking.conclude(SAMPLE)
    shown = EventAccumulator(str(tmp_path / "tensorboard"))
    shown.Reload()
    wanted = [figures_of(event) for event in EVENTS]
    assert {name for figures in wanted for name in figures if ":" not in name} <= set(shown.Tags()["scalars"])
    assert [(s.step, s.value) for s in shown.Scalars("training/loss")] == [(1, 0.25)]
