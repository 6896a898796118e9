"""The rows of published tables: every file fits its schema, its command is what runs, and the table is up to date."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compress_cli.app import app
from sklearn.datasets import load_digits
from typer.main import get_command

from compress.errors import ConfigError
from compress.search.methods import METHODS

ROOT = Path(__file__).parents[2]
ROWS = sorted(p.stem for p in (ROOT / "benchmarks" / "papers").glob("*.toml"))


@pytest.fixture(scope="module", autouse=True)
def _benchmarks_can_be_imported() -> Iterator[None]:
    sys.path.insert(0, str(ROOT))
    yield
    sys.path.remove(str(ROOT))


def row(name: str) -> Any:
    from benchmarks.papers_schema import FOLDER, read

    return read(FOLDER / f"{name}.toml")


def test_every_row_of_the_papers_is_there() -> None:
    methods = [row(name).method for name in ROWS]
    assert {"smoea", "bicnn", "cluster", "csgd"} == set(methods) <= set(METHODS)
    counted = {name for name in ROWS if row(name).protocol.kind == "count"}
    assert counted >= {"csgd-resnet50-70", "csgd-resnet50-60", "csgd-resnet50-50"}
    assert "no data" in row("bicnn-cifar100").protocol.reason


@pytest.mark.parametrize("name", ROWS)
def test_a_row_can_be_run_as_it_says(name: str) -> None:
    found = row(name)
    words = shlex.split(found.command)
    if found.protocol.kind == "prune":
        assert found.command == found.prune_command(0)
        assert found.job(1).seed == 1 and found.job(0).method == found.method
        assert found.differs and found.goal
    if found.protocol.kind == "count":
        assert found.command == found.run_command()
    else:
        known = {o for p in get_command(app).commands["prune"].params for o in p.opts}  # type: ignore[attr-defined]
        assert words[:2] == ["compress", "prune"] and {w for w in words if w.startswith("--")} <= known
    if found.protocol.made_by:
        script = shlex.split(found.protocol.made_by)[1]
        assert (ROOT / script).exists() and found.protocol.model in found.protocol.made_by


def test_the_table_is_what_the_rows_and_the_results_say() -> None:
    from benchmarks import run
    from benchmarks.papers_schema import read_all

    page = run.TABLE.read_text()
    assert page == run.table(read_all(), run.results())
    assert all(f"`{name}`" in page for name in ROWS) and "not run: " in page


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ('[published]\nnetwork = "n"\ndata = "d"\nmacs_removed = 58.43\n', "published.macs_removed"),
        ('[published]\nnetwork = "n"\ndata = "d"\nbase = 0.9\npruned = 0.8\ndrop = 0.2\n', "not the drop"),
        ('[published]\nnetwork = "n"\ndata = "d"\nbest = 1\n', "published.best"),
        ('[published]\nnetwork = "n"\ndata = "d"\n[protocol]\nkind = "none"\n', "needs reason"),
        ('[published]\nnetwork = "n"\ndata = "d"\n[protocol]\nkind = "prune"\nmodel = "m"\n', "needs model, data, seeds"),
        ("[published\n", "declaration"),
    ],
)
def test_a_row_that_does_not_fit_is_named(entry: str, said: str, tmp_path: Path) -> None:
    from benchmarks.papers_schema import read

    head = 'method = "smoea"\ncommand = "c"\n[source]\ntitle = "t"\nauthors = "a"\nwhere = "w"\nyear = 2020\nrow = "r"\n'
    (tmp_path / "x.toml").write_text(
        head + entry + ("" if "[protocol]" in entry else '[protocol]\nkind = "none"\nreason = "r"\n')
    )
    with pytest.raises(ConfigError, match=said) as caught:
        read(tmp_path / "x.toml")
    assert "x.toml" in caught.value.message


@pytest.mark.slow
def test_a_row_is_run_kept_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of our own, on digits: two seeds side by side, resumed, beside the published; another budget begins it anew."""
    from benchmarks import run
    from benchmarks.papers_schema import PaperRow

    digits = load_digits()
    np.savez(tmp_path / "digits.npz", x=(digits.images * 16).clip(0, 255).astype(np.uint8), y=digits.target)
    (tmp_path / "net.safetensors").write_bytes((ROOT / "models" / "checkpoints" / "digits-net.safetensors").read_bytes())
    ours = {
        "name": "ours",
        "method": "uniform",
        "command": "",
        "source": {"title": "t", "authors": "a", "where": "w", "year": 2020, "row": "r"},
        "published": {"network": "n", "data": "d", "base": 0.9, "pruned": 0.89, "drop": 0.01, "macs_removed": 0.5},
        "protocol": {
            "kind": "prune",
            "model": "net.safetensors",
            "data": "digits.npz",
            "seeds": [0, 1],
            "job": {"value": 0.5, "epochs": 0, "recover": "bn", "latency_seconds": 0.0, "exporter": "legacy"},
        },
    }
    made = PaperRow.model_validate(ours)
    monkeypatch.setattr(run, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(run, "TABLE", tmp_path / "README.md")
    monkeypatch.setattr(run, "read_all", lambda: {"ours": made})
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "paper-else.json").write_text('{"row": "another"}')
    files = ["--models", str(tmp_path), "--data", str(tmp_path), "--work", str(tmp_path / "work")]
    assert run.main([*files, "--workers", "2"]) == 0
    kept = json.loads((tmp_path / "results" / "paper-ours.json").read_text())
    assert sorted(kept["runs"]) == ["0", "1"] and 0.5 <= kept["runs"]["0"]["macs_removed"] < 0.7
    page = (tmp_path / "README.md").read_text()
    assert "90.00 → 89.00" in page and "seeds 0, 1" in page and "−50 %" in page
    plans = [p.stat().st_mtime_ns for p in sorted((tmp_path / "work").glob("*/plan.json"))]
    assert run.main(files) == 0 and len(plans) == 2
    assert plans == [p.stat().st_mtime_ns for p in sorted((tmp_path / "work").glob("*/plan.json"))]
    assert run.main([*files, "--budget", "700", "--seeds", "3", "--minutes", "5"]) == 0
    assert list(json.loads((tmp_path / "results" / "paper-ours.json").read_text())["runs"]) == ["3"]
    assert "not run: seeds 0, 1" in (tmp_path / "README.md").read_text()
    assert run.missing(made, argparse.Namespace(models=tmp_path / "no", data=tmp_path, work=tmp_path)).startswith("net.saf")


def test_counting_is_counting() -> None:
    from benchmarks.papers_schema import Count
    from benchmarks.run import counted

    found = counted(Count(architecture="resnet20", size=32, ratio=0.5, streams=True))
    assert found["macs"] == 40_551_040 and found["macs_removed"] == pytest.approx(0.75, abs=0.01)
    inner = counted(Count(architecture="resnet20", size=32, ratio=0.5, streams=False))
    assert inner["macs_removed"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.7, 0.6, 0.5])
def test_resnet50_is_counted_as_by_hand(ratio: float) -> None:
    """Blocks of 1x1, 3x3 (with the stride) and 1x1: the two inner widths shrink; first layer, shortcuts and classes do not."""

    def by_hand(share: float) -> int:
        macs, wide, side = 112 * 112 * 64 * 3 * 49, 64, 56
        for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            inner = round(width * share)
            for number in range(blocks):
                before, side = side, side // (stride if number == 0 else 1)
                macs += before**2 * wide * inner + side**2 * inner * (9 * inner + 4 * width)
                macs += side**2 * wide * 4 * width if number == 0 else 0
                wide = 4 * width
        return macs + 2048 * 1000

    from benchmarks.run import counted

    count = row(f"csgd-resnet50-{round(100 * ratio)}").protocol.count
    assert count is not None
    found = counted(count)
    assert found["macs"] == by_hand(1.0)
    assert found["macs_removed"] == pytest.approx(1 - by_hand(ratio) / by_hand(1.0), abs=1e-9)
