"""Laws of training on several processes: it is the training of one process, and no process waits for ever for another one."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.processes import by_hand, ended, torchrun
from support.trained_together import EPOCHS, Patterns, network, passes, rewrite, train
from torch import Tensor

from compress.core import Ranks, this_process
from compress.errors import ConfigError, TrainError
from compress.recovery.data_parallel import DataParallel, patience
from compress.recovery.schedule import Schedule
from compress.recovery.training import fit

PROGRAM = "support.trained_together"
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
"""Sums over images are in another order than in one process."""


def left(folder: Path, rank: int = 0) -> tuple[dict[str, Tensor], list[tuple[float, float]]]:
    """A process's weights, and loss and accuracy of each epoch."""
    seen = json.loads((folder / f"{rank}.json").read_text())
    return load_file(folder / f"{rank}.safetensors"), [tuple(epoch) for epoch in seen]


def check_same_training(two: Path, one: Path) -> None:
    """Both processes ended with equal weights and figures, which are those of the one process."""
    weights, seen = left(two)
    theirs, heard = left(two, 1)
    assert seen == heard and len(seen) == EPOCHS
    assert all(torch.equal(weights[key], theirs[key]) for key in weights)
    alone, epochs = left(one)
    for key in alone:
        torch.testing.assert_close(
            weights[key].float(), alone[key].float(), **CLOSE, msg=lambda said, key=key: f"{key}: {said}"
        )
    for (loss, accuracy), (wanted, right) in zip(seen, epochs, strict=True):
        assert loss == pytest.approx(wanted, rel=1e-4) and accuracy == right


def alone(folder: Path, case: str) -> Path:
    folder.mkdir()
    passes.clear()
    train(folder, case, None, Patterns().count)
    return folder


def test_two_processes_are_one_that_normalises_their_halves_separately(tmp_path: Path) -> None:
    """With batch norms, an odd last batch, a teacher, and a parameter without gradient; started by hand."""
    two = tmp_path / "two"
    two.mkdir()
    for code, _, said in ended(by_hand(PROGRAM, str(two), "norms")):
        assert code == 0 and "Warning" not in said, said
    check_same_training(two, alone(tmp_path / "one", "halves"))


@pytest.mark.slow
@pytest.mark.parametrize("case", ["plain", "still", "equal"])
def test_two_processes_are_one(tmp_path: Path, case: str) -> None:
    """No batch norm, frozen ones, and C-SGD's rewrite of the gradients; by torchrun."""
    two = tmp_path / "two"
    two.mkdir()
    done = torchrun(PROGRAM, str(two), case)
    assert done.returncode == 0, done.stderr
    check_same_training(two, alone(tmp_path / "one", case))
    if case == "equal":
        first, start = left(two)[0]["0.weight"], network(case).state_dict()["0.weight"]
        spread = (first[::2] - first[1::2]).norm() / (start[::2] - start[1::2]).norm()
        assert spread < 0.8 and rewrite(case) is not None


@pytest.mark.slow
@pytest.mark.parametrize("case", ["norms", "equal"])
def test_a_killed_process_ends_the_others_and_leaves_no_trace(tmp_path: Path, case: str) -> None:
    """kill -9 in the second epoch: torchrun ends in bounded time, and the same command ends with the same weights."""
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    for folder in (broken, whole):
        folder.mkdir()
    before = time.monotonic()
    done = torchrun(PROGRAM, str(broken), case, "kill=2,1")
    assert done.returncode != 0 and time.monotonic() - before < 120
    assert "SIGKILL" in done.stderr and not (broken / "0.json").exists() and (broken / "state").exists()
    for folder in (broken, whole):
        assert torchrun(PROGRAM, str(folder), case).returncode == 0
    (again, epochs), (straight, seen) = left(broken), left(whole)
    assert all(torch.equal(again[key], straight[key]) for key in straight)
    assert epochs == seen[1:]


@pytest.mark.slow
def test_without_a_launcher_that_looks_a_lost_process_is_told(tmp_path: Path) -> None:
    first, second = ended(by_hand(PROGRAM, str(tmp_path), "norms", "kill=1,1"))
    assert second[0] == -9
    assert first[0] == 8 and "another process of this training ended" in first[2] and "hint: " in first[2]


@pytest.mark.slow
def test_a_process_that_never_comes_is_waited_for_in_bounded_time(tmp_path: Path) -> None:
    lonely = by_hand(PROGRAM, str(tmp_path), "plain", COMPRESS_RANK_SECONDS="3")
    lonely[1].kill()
    code, _, said = ended(lonely)[0]
    assert code == 8 and "does not find the others" in said


@pytest.mark.slow
def test_batch_norms_are_synchronised_on_gpus_only(tmp_path: Path) -> None:
    for code, _, said in ended(by_hand(PROGRAM, str(tmp_path), "synchronised")):
        assert code == 3 and "CUDA only" in said


def test_one_process_ignores_what_is_for_several() -> None:
    here = DataParallel(None)
    batch = (torch.ones(3, 1), torch.ones(3))
    assert here.share(batch) == (batch, 1.0)
    assert "sync_batch_norm" not in Schedule(epochs=1).to_json()
    assert Schedule(epochs=1, sync_batch_norm=True).to_json()["sync_batch_norm"] is True


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        ({}, Ranks(0, 1)),
        ({"WORLD_SIZE": "1"}, Ranks(0, 1)),
        ({"WORLD_SIZE": "8", "RANK": "7"}, Ranks(7, 8)),
        ({"PMI_SIZE": "1", "RANK": "9"}, Ranks(0, 1)),
    ],
)
def test_the_environment_says_which_process_this_is(environ: dict[str, str], place: Ranks) -> None:
    assert this_process(environ) == place and place.first == (place.rank == 0) and place.alone == (place.world == 1)


@pytest.mark.parametrize(
    "environ",
    [
        {"WORLD_SIZE": "2"},
        {"WORLD_SIZE": "2", "RANK": "2"},
        {"WORLD_SIZE": "two", "RANK": "0"},
        {"WORLD_SIZE": "0", "RANK": "0"},
        {"WORLD_SIZE": "2", "RANK": "-1"},
        {"OMPI_COMM_WORLD_SIZE": "2"},
    ],
)
def test_a_wrong_environment_is_refused_with_a_cure(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="RANK") as refused:
        this_process(environ)
    assert "torchrun" in refused.value.hint


@pytest.mark.parametrize("said", ["soon", "0", "-3", "inf", "nan"])
def test_a_wrong_patience_is_refused(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESS_RANK_SECONDS", said)
    with pytest.raises(ConfigError, match="seconds above 0"):
        patience()


def test_too_few_images_for_a_step_are_refused() -> None:
    with pytest.raises(TrainError, match="cannot fill a step"):
        fit(network("plain"), Patterns(count=1), Schedule(epochs=1, batch=4))
