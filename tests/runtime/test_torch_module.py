"""torch as a runtime: it computes what the module computes, leaves torch as it was, and never falls back."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support.timed_arms import QUICK, chain
from torch import nn

from compress.errors import ModelError, RuntimeUnavailable
from compress.latency.arms import Arm
from compress.latency.protocol import measure
from compress.runtime import Session, TorchRuntime
from compress.runtime.torch_module import Replay

Opens = Callable[[Path], tuple[nn.Module, tuple[int, ...]]]
HERE = Path("any")
IMAGES = np.random.default_rng(0).standard_normal((3, 3, 24, 24)).astype(np.float32)


def opens(depth: int = 1) -> Opens:
    return lambda path: (chain(depth), (3, 24, 24))


@pytest.mark.parametrize(("precision", "within"), [("fp32", 1e-6), ("fp16", 3e-2)])
def test_a_session_computes_what_the_module_does(precision: str, within: float) -> None:
    with torch.inference_mode():
        wanted = chain(1)(torch.from_numpy(IMAGES)).numpy()
    with TorchRuntime(opens(), precision=precision).load(HERE) as session:  # type: ignore[arg-type]
        assert isinstance(session, Session) and session.input_shape == (None, 3, 24, 24)
        (found,) = session.run(IMAGES)
        laid = session.model[0].weight
        assert isinstance(laid, torch.Tensor)
        assert (laid.dtype, laid.is_contiguous(memory_format=torch.channels_last)) == (
            (torch.float16, True) if precision == "fp16" else (torch.float32, False)
        )
        for transfer in ("e2e", "device"):
            session.prepare(IMAGES, transfer)()  # type: ignore[arg-type]
    scale = float(np.abs(wanted).max())
    assert np.abs(found - wanted).max() <= within * scale
    if precision == "fp16":
        assert np.abs(found - wanted).max() > 0


def test_threads_are_the_runtimes_while_it_is_open_and_torchs_after() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with TorchRuntime(opens(), threads=1).load(HERE) as session:
            assert torch.get_num_threads() == 1 and session.options["threads"] == "1"
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_what_does_not_fit_is_told_in_words() -> None:
    with TorchRuntime(opens()).load(HERE) as session, pytest.raises(ModelError, match=r"does not run on \[1, 5, 24, 24\]"):
        session.run(np.zeros((1, 5, 24, 24), np.float32))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_a_card_that_is_not_there_is_an_error_before_a_file_is_opened() -> None:
    def never(path: Path) -> tuple[nn.Module, tuple[int, ...]]:
        raise AssertionError("a file was opened")

    runtime = TorchRuntime(never, device="cuda", threads=None)
    assert not runtime.available() and runtime.name == "torch-cuda"
    with pytest.raises(RuntimeUnavailable, match="sees no CUDA device") as caught, runtime.load(HERE):
        pass
    assert "--runtime torch-cpu" in caught.value.hint


def test_names_say_number_format_and_replay() -> None:
    def name(**how: object) -> str:
        return TorchRuntime(opens(), **how).name  # type: ignore[arg-type]

    assert name(device="cuda", precision="fp16", cuda_graph=True) == "torch-cuda-fp16-graph"
    assert [name(device="cuda", precision="tf32"), name()] == ["torch-cuda-tf32", "torch-cpu"]


def test_a_devices_own_time_is_what_a_sample_keeps() -> None:
    """Runs that a device times by its events: not what the host waited, and as many as the sample repeats."""

    class Told:
        asked: tuple[int, ...] = ()

        def __call__(self) -> None: ...

        def device_seconds(self, repeats: int) -> float:
            self.asked = (*self.asked, repeats)
            return 8.0 * repeats

    told = Told()
    arm = Arm(name="a", source=HERE, run=told)
    arm.sample(3, "wall")
    assert arm.wall == [8.0] and told.asked == (3,) and arm.cpu[0] < 1


def test_more_layers_take_longer_by_the_processors_clock() -> None:
    runtime = TorchRuntime(lambda path: (chain(12 if path.name == "deep" else 1), (3, 24, 24)))
    found = measure(Path("flat"), {"deep": Path("deep")}, runtime=runtime, settings=QUICK)
    ratio = found.ratios["deep"]
    assert found.runtime == "torch-cpu" and ratio.decided_by == "cpu" and ratio.decisive.high < 0.8


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16"])
@pytest.mark.parametrize("graph", [False, True])
def test_a_card_computes_the_same_eager_and_replayed(precision: str, graph: bool) -> None:
    with TorchRuntime(opens()).load(HERE) as session:
        (wanted,) = session.run(IMAGES)
    runtime = TorchRuntime(opens(), device="cuda", precision=precision, threads=None, cuda_graph=graph)  # type: ignore[arg-type]
    with runtime.load(HERE) as session:
        (found,) = session.run(IMAGES)
        run = session.prepare(IMAGES, "device")
        run()
        assert 0 < run.device_seconds(3) < 1  # type: ignore[attr-defined]
    assert np.abs(found - wanted).max() <= (1e-5 if precision == "fp32" else 3e-2) * float(np.abs(wanted).max())


@pytest.mark.gpu
def test_what_a_graph_reads_stays_where_it_was() -> None:
    runtime = TorchRuntime(opens(), device="cuda", precision="fp32", threads=None, cuda_graph=True)
    with runtime.load(HERE) as session:
        (wanted,) = session.run(IMAGES)
        run = session.prepare(IMAGES, "device")
        torch.cuda.empty_cache()
        other = [torch.full((1 << 20,), float("nan"), device="cuda") for _ in range(64)]
        found = run.launch()  # type: ignore[attr-defined]
        torch.cuda.synchronize()
    assert other and np.abs(found.cpu().numpy() - wanted).max() <= 1e-5 * float(np.abs(wanted).max())


def test_a_replay_holds_what_its_graph_reads() -> None:
    """A graph knows addresses only: what lies there must not be freed while it can be replayed."""

    class Graph:
        replays = 0

        def replay(self) -> None:
            self.replays += 1

    def of(images: torch.Tensor) -> tuple[Replay, weakref.ref[torch.Tensor]]:
        def run() -> torch.Tensor:
            return images + 1

        return Replay(graph=Graph(), run=run, made=run()), weakref.ref(images)  # type: ignore[arg-type]

    replay, images = of(torch.zeros(3))
    gc.collect()
    assert images() is not None
    assert torch.equal(replay(), torch.ones(3)) and replay.graph.replays == 1  # type: ignore[arg-type, attr-defined]
    del replay
    gc.collect()
    assert images() is None, "nor is it held longer"
