"""Progress that is true, words in the right number, and tables from which a narrow terminal takes nothing."""

from __future__ import annotations

import ast
import io
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compress_cli import console as commands
from compress_cli import positions, progress
from compress_cli.tables import print_table
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console
from support.commands import compress
from support.reports import SAMPLE
from support.rooms import ROOMS

from compress.core import ERROR, Phase, PhaseDone, Plan, Progressed, Table, Warned, plural
from compress.report import store
from compress.search import Ask, Asked, Fidelity, Journal, Score, drive

CLI = Path(progress.__file__).parent
LIBRARY = CLI.parents[1] / "compress"
_WORD = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=14)
_CELL = st.lists(_WORD, max_size=4).map(" ".join)


# ---- tables ----------------------------------------------------------------------------------------------------------


def _rows(count: int) -> st.SearchStrategy[tuple[int, list[list[str]]]]:
    return st.tuples(st.just(count), st.lists(st.lists(_CELL, min_size=count, max_size=count), max_size=4))


@given(st.integers(1, 7).flatmap(_rows))
@example((5, [["stage1.3.body.0", "590 k", "it makes the network's output " * 3, "1.25 × (1.24 to 1.25)", "51.1 µs"]]))
@pytest.mark.parametrize("width", [60, 80])
def test_no_cell_is_cut_off_and_no_word_broken(width: int, told: tuple[int, list[list[str]]]) -> None:
    count, rows = told
    page = io.StringIO()
    head = [("name", ">MACs left", "why it stays", ">speed-up (95 %)", ">p50", "verdict", ">images/s")[i] for i in range(count)]
    print_table(Console(file=page, width=width, force_terminal=True, color_system=None), head, rows, title="a title")
    lines = page.getvalue().splitlines()
    assert all(len(line.rstrip()) <= width for line in lines) and "…" not in page.getvalue()
    seen = page.getvalue().split()
    for row in rows:
        for cell, name in zip(row, head, strict=True):
            assert all(word in seen for word in cell.split())
            if name.startswith(">") and cell.strip():  # numbers stand on one line
                assert any(" ".join(cell.split()) in " ".join(line.split()) for line in lines)


def test_every_table_of_every_command_is_laid_out_so() -> None:
    for file in CLI.glob("*.py"):
        if file.name != "tables.py":
            assert not re.search(r"\brich\.table import (?!Column$)", file.read_text(), re.MULTILINE), file.name


def test_a_sentence_ends_its_lines_between_words_and_a_pipe_gets_it_whole() -> None:
    from compress_cli.safe_console import sentence

    said = "slower than the plainest network of as many MACs: ask for time with an option that is named elsewhere"
    for terminal in (True, False):
        page = io.StringIO()
        sentence(Console(file=page, width=40, force_terminal=terminal, color_system=None), said)
        lines = page.getvalue().splitlines()
        assert (len(lines) > 1) == terminal and " ".join(line.strip() for line in lines) == said


# ---- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "noun", "said"),
    [
        (1, "epoch", "1 epoch"),
        (0, "epoch", "0 epochs"),
        (2, "branch", "2 branches"),
        (1, "branch", "1 branch"),
        (1200, "image", "1,200 images"),
        (3, "class", "3 classes"),
        (5, "entry", "5 entries"),
        (2, "day", "2 days"),
    ],
)
def test_one_is_not_many(count: int, noun: str, said: str) -> None:
    assert plural(count, noun) == said


_NOUNS = "epoch|point|network|layer|plan|step|round|candidate|run|row|kernel|thread|image|channel|tensor|file|box|class"
_COUNTED = re.compile(rf"^ ({_NOUNS})e?s\b(?! (were|are|have|tell|at))")
_WORDS = ("told", "names", "active", "split", "' or '.join(map(str, counts))")  # texts, not numbers
_ROOMS = [room for room in ROOMS if room not in ("tasks", "workers")]


@pytest.mark.parametrize("folder", [CLI, *(LIBRARY / room for room in _ROOMS)], ids=lambda p: p.name)
def test_what_is_counted_is_in_the_right_number(folder: Path) -> None:
    """A number and a noun come from ``plural`` in all that is said; errors may name numbers that are never one."""
    found = []
    for file in folder.rglob("*.py"):
        if file.name == "bench_kit_script.py":  # it runs without the library
            continue
        tree = ast.parse(file.read_text())
        raised = {id(n) for r in ast.walk(tree) if isinstance(r, ast.Raise) for n in ast.walk(r)}
        for text in (n for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) and id(n) not in raised):
            for value, after in zip(text.values, text.values[1:], strict=False):
                said = after.value if isinstance(after, ast.Constant) else ""
                counted = ast.unparse(value.value) if isinstance(value, ast.FormattedValue) else ""
                fixed = counted.isupper() or counted.startswith("100 * ") or counted in _WORDS  # a constant; percentage points
                if counted and not fixed and _COUNTED.match(str(said)):
                    found.append(f"{file.name}:{text.lineno} {counted}{said[:20]}")
    assert sorted(found) == []


# ---- how far it is ---------------------------------------------------------------------------------------------------


def asked(fidelity: str, best: float, **more: Any) -> Asked:
    told = {"stage": -1, "asked": 4, "fresh": 4, "distinct": 4, "earlier": 0.0, "spent": 25.0, "budget": 100.0, "stages": 3}
    return Asked(fidelity=fidelity, best=best, **{**told, "counted": ERROR, **more})


def test_the_best_error_is_of_one_kind() -> None:
    """Stages' errors, and those of whole networks that were recovered less or judged on fewer images, are no such figure."""
    search = positions.SearchPosition()
    said = [
        search.at(event).notes[2:]
        for event in (
            asked("stage", 0.0001, stage=1),
            asked("full", 0.9, recovery="bn", images=16),
            asked("full", 0.4, recovery="bn"),
            asked("full", 0.01, recovery="bn", images=16),
            asked("stage", 33.4, stage=2),
            asked("full", math.nan),
            asked("full", 0.3, recovery="reconstructed"),
            asked("full", 0.1, recovery="compensated"),
        )
    ]
    shown = [("90.00", " on 16 images"), *[(p, "") for p in ("40.00", "40.00", "40.00", "40.00", "30.00", "30.00")]]
    assert said == [(), *[(f"best error {p} %{on}",) for p, on in shown]]
    assert search.at(asked("stage", 0.5, stage=1, candidates=1)).notes[:2] == ("stage 2 of 3", "1 plan")


class Watch:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def one_search(journal: Journal, watch: Watch, heard: Callable[[Asked], None], *, requests: int = 10) -> None:
    """Each request asks for ten plans at ten image-forwards, which take ten seconds."""

    def search() -> Any:
        for number in range(requests):
            yield Ask([Plan({f"g{number}-{i}": keep}) for i in range(10)], Fidelity.FULL)  # type: ignore[dict-item]
        return ()

    def evaluate(ask: Ask) -> list[Score]:
        watch.now += len(ask.plans)
        return [Score(0.5) for _ in ask.plans]

    from compress.core import Cut

    keep = Cut(keep=(0,))
    drive(search(), evaluate, journal, price=lambda ask: 1.0, budget=100.0, listen=heard)


@pytest.mark.parametrize("replayed", [0, 5, 9])
def test_the_time_left_comes_from_work_that_was_not_replayed(tmp_path: Path, replayed: int) -> None:
    path, watch = tmp_path / "journal.jsonl", Watch()
    one_search(Journal(path, "c"), watch, lambda event: None, requests=replayed)
    pace, told = progress._Pace(watch), []
    pace.begin("search")

    def hear(event: Asked) -> None:
        where = pace.at(event)
        assert where is not None and where.at_most
        told.append((where.share, pace.left(where)))

    one_search(Journal(path, "c"), watch, hear)
    assert [share for share, _ in told] == pytest.approx(np.arange(1, 11) / 10)
    assert all(left is None for _, left in told[:replayed])
    assert [left for _, left in told[replayed:]] == pytest.approx([10.0 * (9 - i) for i in range(replayed, 10)])


STORY = (
    Phase("trace", "a network of any name"),
    Progressed(3, 12, "trial cuts"),
    PhaseDone("trace", 1.0),
    Phase("importance", "l1, l2, fpgm, bn"),
    Progressed(1, 4, "gradients"),
    Progressed(3, 4, "moments"),
    PhaseDone("importance", 2.0),
    Phase("search", "smoea, 100 image-forwards"),
    asked("full", 0.02, recovery="reconstructed", candidates=12, worked=25.0),
    asked("stage", 33.4, stage=1, spent=50.0, candidates=24, worked=50.0),
    Warned("no [bold]data[/]"),
    Table("what can be reached", ("", "least"), (("macs", "0.048"),)),
    PhaseDone("search", 12.0),
)


def test_beside_json_every_line_of_progress_is_an_object() -> None:
    page = io.StringIO()
    lines = progress._JsonLines(page, clock=iter(np.arange(0.0, 1e4, 2.0)).__next__)
    for event in STORY:
        lines.hear(event)
    told = [json.loads(line) for line in page.getvalue().splitlines()]
    assert [t["event"] for t in told if t["event"] != "progress"] == [
        *["phase", "phase done"] * 2, "phase", "warning", "table", "phase done",
    ]  # fmt: skip
    shares = {t["phase"]: t["share"] for t in told if t["event"] == "progress"}
    assert shares == {"trace": 0.25, "importance": 0.75, "search": 0.5}
    last = [t for t in told if t["event"] == "progress"][-1]
    assert last["notes"] == ["stage 2 of 3", "24 plans", "best error 2.00 %"] and last["seconds_left"] > 0


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_bars_line_fits_and_breaks_no_word(width: int) -> None:
    page = io.StringIO()
    console = Console(file=page, force_terminal=True, width=width, color_system=None, legacy_windows=False)
    with progress._Bars(console) as bars:
        for event in STORY:
            bars.hear(event)
            bars._progress.refresh()
    shown = re.split(r"[\n\r]|\x1b\[\d*[A-Z]", page.getvalue())
    assert all(len(re.sub(r"\x1b\[[^A-Za-z]*[A-Za-z]", "", line).rstrip()) <= width for line in shown)
    assert all("best error 2.00 %" in line for line in shown if "best" in line)
    assert "…" not in page.getvalue() and "stage 2 of 3" in page.getvalue() and "75%" in page.getvalue()
    if width >= 80:
        assert "stage 2 of 3, 24 plans, best error 2.00 %" in page.getvalue()


def test_reports_of_several_runs_are_one_object(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        store.write_report(replace(SAMPLE, name=name), tmp_path / name)
    told = json.loads(compress("report", tmp_path / "a", tmp_path / "b", "--json").stdout)
    assert {name: report["name"] for name, report in told["reports"].items()} == {"a": "a", "b": "b"}


def test_a_command_with_json_writes_json_to_both_streams(capsys: pytest.CaptureFixture[str]) -> None:
    from compress.errors import ConfigError

    @commands.guarded()
    def command(*, as_json: bool) -> None:
        commands.warn("no data")
        with progress.listening(commands.err(), quiet=False) as listen:
            for event in STORY:
                listen(event)
        if as_json:
            commands.print_json({"done": True})
        raise ConfigError("something is wrong", hint="put it right")

    for as_json in (True, False):
        with pytest.raises(Exception):  # noqa: B017  # the framework's own Exit
            command(as_json=as_json)
        told = capsys.readouterr()
        lines = told.err.splitlines()
        if as_json:
            assert {json.loads(line)["event"] for line in lines} >= {"warning", "phase", "progress", "error"}
        else:
            assert "warning: no data" in lines[0] and not told.out
