"""Measurements from elsewhere: taken in for the very files of the run, and shown as another machine's."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from compress_cli.app import app
from support.pages import HERE, Page, comparison
from support.reports import SAMPLE
from typer.testing import CliRunner

from compress.core.environment import Gpu
from compress.errors import ConfigError
from compress.latency.measurement import Measurement, identify
from compress.latency.result import LatencyResult
from compress.report import run_files, store
from compress.report.imported import take_in

CARD = replace(HERE, gpus=(Gpu("A card", "1.0", 1024),))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for name in ("base", "model", "model.fp16"):
        (tmp_path / f"{name}.onnx").write_bytes(name.encode())
    (tmp_path / "report.json").write_text(store.report_text(SAMPLE))
    return tmp_path


def brought(run: Path, name: str = "kit.json", *results: LatencyResult, skipped: tuple[str, ...] = ()) -> Path:
    """What a kit of the run writes."""
    arms = {"base": "base.onnx", "model.onnx": "model.onnx", "model.fp16.onnx": "model.fp16.onnx"}
    made = Measurement(results or (there(),), {arm: identify(run / file) for arm, file in arms.items()}, "kit", skipped)
    file = run / name
    file.write_text(json.dumps(made.to_json()))
    return file


def there(pruned: float = 50e-6, **more: object) -> LatencyResult:
    arms = {"base": 100e-6, "base again": 100e-6, "model.onnx": pruned, "model.fp16.onnx": 40e-6}
    return replace(comparison(arms, runtime="ort-cuda", **more), environment=CARD)  # type: ignore[arg-type]


def test_a_card_elsewhere_enters_the_report(run: Path) -> None:
    said = take_in(run, brought(run, skipped=("ort-tensorrt: not installed",)))
    assert len(said) == 2 and said[0].startswith("ort-cuda on A card, batch 1: faster: 2.00×")
    report = store.read_report(run)
    assert [(x.machine, x.file) for x in report.latency] == [("", ""), ("A card", ""), ("A card", "model.fp16.onnx")]
    assert any("ort-tensorrt" in note for note in report.notes)
    page = Page((run / "report.html").read_text())
    assert "ort-cuda on A card, model.fp16.onnx" in page.text and "ort-cuda on A card" in (run / "report.md").read_text()
    (found,) = run_files.read(run).latency
    assert found.machine == "A card" and found.result == there()


def test_the_same_machine_again_takes_the_place_of_the_first(run: Path) -> None:
    take_in(run, brought(run))
    take_in(run, brought(run, "later.json", there(25e-6)))
    found = store.read_report(run).latency
    assert len(found) == 3 and found[1].speedup == pytest.approx(4)


def test_slower_elsewhere_is_a_red_flag_and_the_verdict_stays_the_runs_own(run: Path) -> None:
    before = store.read_report(run).verdict
    take_in(run, brought(run, "kit.json", there(200e-6)))
    report = store.read_report(run)
    assert any(w.startswith("ort-cuda on A card: slower") for w in report.warnings)
    assert "on the CPU" in report.verdict and "A card" not in report.verdict and before


def test_the_first_measurement_of_all_makes_the_verdict(run: Path) -> None:
    (run / "report.json").write_text(store.report_text(replace(SAMPLE, latency=())))
    take_in(run, brought(run))
    assert store.read_report(run).verdict.startswith("2.00x the speed with ONNX Runtime on A card")


def test_other_files_are_refused_and_nothing_changes(run: Path) -> None:
    file = brought(run)
    (run / "model.onnx").write_bytes(b"another one")
    before = (run / "report.json").read_bytes()
    with pytest.raises(ConfigError, match=r"model\.onnx was measured with a file of SHA-256") as error:
        take_in(run, file)
    assert "bench-kit" in error.value.hint
    assert (run / "report.json").read_bytes() == before and not (run / "imported").exists()


def test_a_run_whose_files_are_gone_knows_them_by_digest(run: Path) -> None:
    file = brought(run)
    digests = {name: identify(run / name).sha256 for name in ("base.onnx", "model.onnx")}
    (run / "report.json").write_text(store.report_text(replace(SAMPLE, digests=digests)))
    for path in run.glob("m*.onnx"):
        path.unlink()
    with pytest.raises(ConfigError, match=r"fp16"):  # the report knows the others
        take_in(run, file)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "smaller-convnets latency", "version": 1}'])
def test_what_is_no_measurement_is_refused(run: Path, content: str) -> None:
    (run / "odd.json").write_text(content)
    with pytest.raises(ConfigError):
        take_in(run, run / "odd.json")


def test_a_measurement_of_a_run_that_is_not_there(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(tmp_path), "--import", str(tmp_path / "x.json")])
    assert result.exit_code == 3 and "report.json" in result.stderr


@pytest.mark.slow
def test_there_and_back(tmp_path: Path) -> None:
    """A run, its kit, the kit's own measurement in a process without this package, and back into the report."""
    digits = Path(__file__).parents[2] / "models" / "checkpoints" / "digits-net.safetensors"
    run, place = tmp_path / "run", tmp_path / "elsewhere"
    quick = ["--method", "uniform", "--data", "digits", "--epochs", "0", "--latency-seconds", "1", "--exporter", "legacy"]
    assert CliRunner().invoke(app, ["prune", str(digits), *quick, "--out", str(run), "-q"]).exit_code in (0, 6)
    assert CliRunner().invoke(app, ["bench-kit", str(run), "--out", str(tmp_path / "kit.zip")]).exit_code == 0
    with zipfile.ZipFile(tmp_path / "kit.zip") as kit:
        kit.extractall(place)
    command = [sys.executable, "-I", "bench.py", "--seconds", "2"]
    subprocess.run(command, cwd=place, check=True, capture_output=True, timeout=300)
    result = CliRunner().invoke(app, ["report", str(run), "--import", str(place / "result.json")])
    assert result.exit_code == 0, result.stderr
    assert len(store.read_report(run).latency) == 2 and len(run_files.read(run).latency) == 2
