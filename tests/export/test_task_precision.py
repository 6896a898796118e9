"""int8 of networks that name no classes: what it loses is told, and kept, in the figure of their task."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.tasked import trained

from compress.core import Figure
from compress.errors import ParityError
from compress.export import Options, convert, export_verified, read_precisions
from compress.export.judging import FileJudge
from compress.export.precision import Precision, Precisions
from compress.networks import network_of

SLOW = [
    pytest.param(name, targets, marks=pytest.mark.slow)
    for name, targets in (("binary", True), ("binary", False), ("multilabel", True), ("multilabel", False), ("outputs", False))
]


@pytest.mark.parametrize(("name", "targets"), [("regression:unit=px", True), *SLOW])
def test_what_int8_loses_is_told_in_the_task_s_figure(name: str, targets: bool, tmp_path: Path) -> None:
    one = trained(name)
    data, network = one.data(targets=targets), network_of(one.model, example=torch.zeros(2, 1, 12, 12), task=one.task)
    images, source, target = data.calibration.images(16), tmp_path / "net.onnx", tmp_path / "net.int8.onnx"
    export_verified(network.model, images, source, exporter="legacy")
    found = convert(source, target, "int8", data, inputs=images, options=Options(max_drop=0.2, task=one.task))
    assert found.verdict == "pass" and "top-1" not in found.message and "logits" not in found.rule
    judge = FileJudge(one.task, data.test)
    if judge.scored:
        before, after = judge.score(source), judge.score(target)
        assert found.figure == one.task.figure and found.score == pytest.approx(after.value)
        assert found.fp32_score == pytest.approx(one.task.scored(one.model, data.test.batches(64)).value, rel=1e-4)
        assert found.drop == pytest.approx(found.figure.worse(before.value, after.value), abs=1e-9)
        assert found.drop_low is not None and found.drop_high is not None and found.drop_low <= found.drop <= found.drop_high
    else:
        assert found.score is None and judge.loss(source, target) < 0.05
    kept = tmp_path / "net.precision.json"
    held = Precisions(source="net.onnx", source_digest="", source_bytes=1, entries=(found,))
    import json

    kept.write_text(json.dumps(held.to_json()))
    assert read_precisions(kept) == held


def test_what_may_not_be_lost_is_kept_or_refused(tmp_path: Path) -> None:
    """Half of what int8 loses: layers go back to fp32 until the figure bears it, or no file is written."""
    one = trained("regression:unit=px")
    data = one.data()
    images, source, target = data.calibration.images(16), tmp_path / "net.onnx", tmp_path / "net.int8.onnx"
    export_verified(one.model, images, source, exporter="legacy")
    judge = FileJudge(one.task, data.validation)
    convert(source, target, "int8", data, inputs=images, options=Options(max_drop=9.0, task=one.task))
    lost = judge.loss(source, target)
    allowed = lost / 2 if lost > 0 else lost - 1e-4
    target.unlink()
    try:
        found = convert(source, target, "int8", data, inputs=images, options=Options(max_drop=allowed, task=one.task))
    except ParityError as error:
        assert "px" in error.message and not target.exists()
    else:
        assert found.in_fp32 and judge.loss(source, target) <= allowed < lost


def test_a_record_of_the_first_version_is_read() -> None:
    """It knew top-1 only."""
    entry = Precision(precision="int8", score=0.9, score_low=0.8, score_high=1.0, fp32_score=0.91, drop=0.01)
    now = Precisions(source="a", source_digest="b", source_bytes=1, entries=(entry,)).to_json()
    renamed = {"score": "top1", "score_low": "top1_low", "score_high": "top1_high", "fp32_score": "fp32_top1"}
    old = {renamed.get(k, k): v for k, v in now["entries"][0].items() if k != "figure"}
    found = Precisions.from_json({**now, "schema": "compress-precisions-1", "entries": [old]})
    assert found.entries == (entry,) and found.entries[0].figure == Figure("top-1 accuracy", share=True)
