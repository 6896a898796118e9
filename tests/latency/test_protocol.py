from __future__ import annotations

import gc
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.timed_arms import QUICK, Spin, chain

from compress.core import environment
from compress.errors import ConfigError, ModelError
from compress.export.exporting import export
from compress.latency import protocol
from compress.latency.matrix import cells, measure_all
from compress.latency.onnx_files import describe_all
from compress.latency.protocol import LatencyResult, MeasuringProgress, Settings, WarmedUp, measure
from compress.latency.statistics import LatencyVerdict
from compress.runtime import TorchRuntime
from compress.runtime.ort import OrtRuntime, gpus


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("latency")
    return {
        name: export(chain(depth), torch.randn(2, 3, 24, 24), folder / f"{name}.onnx", exporter="legacy").path
        for name, depth in (("base", 8), ("slower", 12))
    }


def test_a_slower_file_and_the_same_file(files: dict[str, Path]) -> None:
    heard: list[object] = []
    candidates = {"slower": files["slower"], "same": files["base"]}
    found = measure(files["base"], candidates, runtime=OrtRuntime(), settings=Settings(budget_seconds=2), listen=heard.append)
    ratio = found.ratios["slower"]
    assert ratio.verdict is LatencyVerdict.DIFFERENT and ratio.cpu_high < 0.9 and ratio.decided_by == "cpu"
    assert found.ratios["same"].cpu_speedup == pytest.approx(1.0, abs=0.06)
    assert [arm.name for arm in found.arms] == ["base", "base again", "slower", "same"]
    for arm in found.arms:
        assert len(arm.wall) == len(arm.cpu) == found.rounds and arm.latency.p50 <= arm.latency.p90 <= arm.latency.p95
        assert (
            arm.load_seconds > 0 and arm.first_run_seconds > 0 and arm.images_per_second == pytest.approx(1 / arm.latency.p50)
        )
        assert np.median(arm.wall) * arm.inner_repeats > 0.5e-3
    assert {event.arm for event in heard if isinstance(event, WarmedUp)} == {arm.name for arm in found.arms}
    progress = [event for event in heard if isinstance(event, MeasuringProgress)]
    assert [event.rounds for event in progress] == list(range(1, found.rounds + 1))
    assert progress[-1].half_width is not None
    check_json(found)


def check_json(found: LatencyResult) -> None:
    again = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert again["arms"][0]["wall"] == list(found.arms[0].wall)
    assert set(again["ratios"]) == set(found.ratios) and again["environment"]["digest"] == found.environment.digest
    assert again["scenario"] == found.settings.scenario


def test_the_ratio_is_what_was_done() -> None:
    found = measure(
        Spin(0.003), {"half": Spin(0.0015)}, runtime=OrtRuntime(), settings=Settings(budget_seconds=0.6, min_rounds=20)
    )
    assert found.ratios["half"].cpu_speedup == pytest.approx(2.0, rel=0.05)
    assert found.ratios["half"].verdict is LatencyVerdict.DIFFERENT
    assert found.control.cpu_speedup == pytest.approx(1.0, abs=0.03)


def test_cpu_time_decides_on_one_thread_only() -> None:
    """A run that waits takes wall time and no CPU time."""
    settings = Settings(budget_seconds=0.3, min_rounds=12)
    waiting = {"waits": Spin(0.002, waits=True, threads="2")}
    found = measure(Spin(0.001, waits=True, threads="2"), waiting, runtime=OrtRuntime(threads=2), settings=settings)
    assert found.ratios["waits"].decided_by == "wall" and found.ratios["waits"].speedup < 0.7
    gpu = measure(Spin(0.001, providers=("CUDAExecutionProvider",)), {}, runtime=OrtRuntime(), settings=settings)
    assert gpu.control.decided_by == "wall"


def test_arms_are_interleaved_at_random_on_the_same_bytes_without_garbage_collection() -> None:
    order: list[str] = []

    class Named(Spin):
        def _work(self) -> None:
            order.append(self.threads)
            super()._work()

    base, other = Named(0.001, threads="1"), Named(0.001, threads="x")
    settings = Settings(budget_seconds=5, min_rounds=24, loads=1, precision=10.0)
    found = measure(base, {"other": other}, runtime=OrtRuntime(), settings=settings)
    assert found.rounds == 24 and found.stopped_by == "precision" and gc.isenabled()
    rounds = [tuple(order[-3 * 24 * found.arms[0].inner_repeats :][i : i + 3]) for i in range(0, 72, 3)]
    assert all(sorted(names) == ["1", "1", "x"] for names in rounds) and len(set(rounds)) == 3
    assert set(base.seen) == set(other.seen) and len(set(base.seen)) == 1
    assert not any(base.calls[-40:])


def test_the_budget_ends_it_and_few_rounds_say_nothing() -> None:
    settings = Settings(budget_seconds=0.05, min_rounds=50)
    found = measure(Spin(0.01), {"slow": Spin(0.02)}, runtime=OrtRuntime(), settings=settings)
    assert found.stopped_by == "budget" and found.rounds < 10
    assert found.ratios["slow"].verdict is LatencyVerdict.INCONCLUSIVE
    assert any(flag.startswith("few rounds") for flag in found.flags)


def test_files_are_loaded_anew(files: dict[str, Path]) -> None:
    loads: list[Path] = []

    class Counting(OrtRuntime):
        @contextmanager
        def load(self, path: Path) -> Iterator[object]:  # type: ignore[override]
            loads.append(path)
            with OrtRuntime().load(path) as session:
                yield session

    settings = Settings(budget_seconds=5, min_rounds=9, loads=3, precision=10.0)
    found = measure(files["base"], {"slower": files["slower"]}, runtime=Counting(), settings=settings)
    assert found.rounds == 9 and len(loads) == 3 * 3


@pytest.mark.skipif(bool(gpus()), reason="there is a GPU")
def test_a_fallback_is_flagged(files: dict[str, Path]) -> None:
    settings = Settings(budget_seconds=0.1, min_rounds=2)
    found = measure(files["base"], {}, runtime=OrtRuntime("cuda"), settings=settings)
    assert any(flag.startswith("fallback: cuda was asked for") for flag in found.flags)
    assert found.arms[0].providers == ("CPUExecutionProvider",)


@pytest.mark.slow
def test_torch_itself_can_be_an_arm(files: dict[str, Path]) -> None:
    settings = Settings(batch=2, budget_seconds=0.3, min_rounds=5)
    runtime = TorchRuntime(lambda path: (chain(8), (3, 24, 24)))
    with runtime.load(files["base"]) as session:
        found = measure(session, {"onnx": files["base"]}, runtime=OrtRuntime(), settings=settings)
    assert found.arm("base").providers == ("torch-cpu",) and found.settings.scenario == "offline"
    assert found.ratios["onnx"].decided_by == "cpu"


def test_what_cannot_be_compared(files: dict[str, Path]) -> None:
    runtime, quick = OrtRuntime(), Settings(budget_seconds=0.1)
    with pytest.raises(ConfigError, match="called 'base'"):
        measure(files["base"], {"base": files["slower"]}, runtime=runtime)
    with pytest.raises(ModelError, match="exported for a batch of 4, 1 is wanted"):
        measure(files["base"], {"fixed": Spin(0.001, input_shape=(4, 3, 24, 24))}, runtime=runtime, settings=quick)
    with pytest.raises(ModelError, match=r"takes images of \[3, 9, 9\]"):
        measure(files["base"], {"other": Spin(0.001, input_shape=(None, 3, 9, 9))}, runtime=runtime, settings=quick)
    with pytest.raises(ConfigError, match="leaves its input size open"):
        measure(Spin(0.001, input_shape=(None, 3, None, None)), {}, runtime=runtime, settings=quick)
    with pytest.raises(ConfigError, match="budget_seconds is -1"):
        Settings(budget_seconds=-1)


def flags(*sessions: Spin, settings: Settings = QUICK) -> list[str]:
    base, *others = sessions
    named = {f"candidate {index}": session for index, session in enumerate(others)}
    return list(measure(base, named, runtime=OrtRuntime(), settings=settings).flags)


def test_what_a_file_says_of_itself_is_flagged() -> None:
    """Parity that was not found, and outputs that are no numbers."""
    fine = Spin(0.0002, parity="pass")
    assert not [flag for flag in flags(fine, Spin(0.0002)) if flag.startswith(("parity", "not finite"))]
    told = flags(fine, Spin(0.0002, parity="inconclusive"), Spin(0.0002, answer=math.nan))
    assert sum(flag.startswith("parity inconclusive: candidate 0") for flag in told) == 1
    assert sum(flag.startswith("not finite: candidate 1") for flag in told) == 1
    found = measure(fine, {}, runtime=OrtRuntime(), settings=QUICK)
    assert [arm.parity for arm in found.arms] == ["pass", "pass"]


class Slowing(Spin):
    """Takes longer the more often it has run, once it is warm: a host that heats up."""

    def _work(self) -> None:
        self.seconds *= 1.01 if len(self.calls) > 30 else 1.0
        super()._work()


class Sleepy(Spin):
    """Waits four times as long as it works, as where others hold the processor."""

    def _work(self) -> None:
        super()._work()
        time.sleep(4 * self.seconds)


def test_drift_and_contamination_are_flagged() -> None:
    settings = replace(QUICK, min_rounds=36)
    assert any(flag.startswith("drift: ") for flag in flags(Slowing(0.002), settings=settings))
    assert any(flag.startswith("contaminated: 100 %") for flag in flags(Sleepy(0.001)))


@pytest.mark.parametrize(
    ("threads", "quota", "verdict"), [("2", 1.0, "inconclusive"), ("2", 2.0, "different"), ("1", 0.5, "different")]
)
def test_a_quota_below_the_threads_gives_no_verdict(
    threads: str, quota: float, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By wall time; CPU time stands still while the quota stops the thread."""
    monkeypatch.setattr(environment, "quota", lambda: quota)
    runtime = OrtRuntime(threads=int(threads))
    base, half = Spin(0.008, threads=threads), Spin(0.001, threads=threads)
    found = measure(base, {"fast": half}, runtime=runtime, settings=QUICK)
    assert str(found.ratios["fast"].verdict) == verdict
    assert any(flag.startswith("quota: ") for flag in found.flags) is (quota < int(threads))
    assert any("no verdict" in flag for flag in found.flags) is (verdict == "inconclusive")


@pytest.mark.parametrize(
    ("reasons", "said"),
    [
        ("0x0000000000000000", ""),
        ("0x1", ""),
        ("0x2", ""),
        ("0x20", "temperature"),
        ("0x44", "power, hardware temperature"),
        ("N/A", ""),
    ],
)
def test_a_card_that_was_held_back_is_flagged(reasons: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    state = environment.GpuState(1200, 83, reasons)
    monkeypatch.setattr(protocol, "gpu_state", lambda: (state,))
    found = measure(Spin(0.0002), {}, runtime=OrtRuntime(), settings=QUICK)
    told = [flag for flag in found.flags if flag.startswith("card held back")]
    assert told == ([f"card held back: {said} at 1200 MHz and 83 degrees when it was done"] if said else [])
    assert found.gpu == ((state,), (state,))


@pytest.mark.gpu
@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "tensorrt-fp16"])
def test_a_gpu_in_every_way(provider: str, files: dict[str, Path], tmp_path: Path) -> None:
    """With copies, without them, as a CUDA graph: ``device`` is never slower than ``e2e`` beyond noise."""
    quick = Settings(budget_seconds=2)
    wanted = list(cells([provider], [1, 8], quick, require_gpu=True, engines=tmp_path))
    facts = describe_all({"base": files["base"], "slower": files["slower"]})
    found = measure_all(files["base"], {"slower": files["slower"]}, wanted, files=facts)
    assert found.results[0].arms[0].providers[0] in {"CUDAExecutionProvider", "TensorrtExecutionProvider"}
    ways = {(result.settings.batch, result.settings.transfer, result.runtime) for result in found.results}
    assert {way[:2] for way in ways} == {(batch, transfer) for batch in (1, 8) for transfer in ("e2e", "device")}
    assert (provider == "cuda") is any(runtime == "ort-cuda-graph" for *_, runtime in ways)
    assert all(result.control.decided_by == "wall" and result.gpu[0] for result in found.results)
