"""Commands on two processes: what one process does, faster; nobody is waited for without end, and one speaks."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from compress_models import MODELS
from support.commands import DIGITS, compress, text
from support.processes import by_hand, ended, torchrun

from compress.core import Ranks
from compress.errors import ProcessLost
from compress.networks.checkpoint import load
from compress.recovery.rank_signals import Signals, meeting

TRAIN = ["train", "digits_net", "--data", "digits", "--quiet", "--batch", "64"]
QUICK = ["--data", "digits", "--budget", "600", "--latency-seconds", "0", "--exporter", "legacy", "--quiet", "--workers", "1"]


def together(*words: str | Path, processes: int = 2) -> str:
    """What a command says on standard output."""
    done = torchrun("compress_cli", *map(str, words), processes=processes)
    assert done.returncode == 0 and "error:" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_launcher_of_one_process_changes_no_byte(tmp_path: Path) -> None:
    here, there = tmp_path / "here.safetensors", tmp_path / "there.safetensors"
    together(*TRAIN, "--epochs", "1", "--out", there, processes=1)
    done = ended(by_hand("compress_cli", *TRAIN, "--epochs", "1", "--out", str(here), world=1))
    assert done[0][0] == 0 and here.read_bytes() == there.read_bytes()


@pytest.mark.slow
def test_a_killed_process_ends_the_command_which_then_goes_on(tmp_path: Path) -> None:
    """kill -9 after the first epoch, with nobody who looks after the processes; the same command ends with the same weights."""
    whole, broken = tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    started = by_hand("compress_cli", *TRAIN, "--epochs", "4", "--out", str(broken))
    state = tmp_path / f".{broken.name}.training" / "fit.safetensors"
    limit = time.monotonic() + 120
    while not state.exists() and time.monotonic() < limit:
        time.sleep(0.02)
    started[1].kill()
    (code, _, said), (killed, _, _) = ended(started)
    assert killed == -9 and code == 8 and "another process of this training ended" in said and "start all of them again" in said
    assert state.exists() and not broken.exists()
    for file in (broken, whole):
        assert together(*TRAIN, "--epochs", "4", "--out", file).count("saved") == 1
    assert load(broken, zoo=MODELS).digest == load(whole, zoo=MODELS).digest


@pytest.mark.slow
@pytest.mark.parametrize("how", [["--method", "smoea"], ["--method", "uniform", "--realise", "csgd"]])
def test_a_run_finds_the_plan_that_one_process_finds(how: list[str], tmp_path: Path) -> None:
    """And another point of its front is trained by both as well."""
    several, alone = tmp_path / "several", tmp_path / "alone"
    epochs = ["--epochs", "1" if "csgd" not in how else "12"]
    said = together("prune", DIGITS, *QUICK, *epochs, *how, "--out", several)
    assert said.count("files in") == 1
    one = ended(by_hand("compress_cli", "prune", str(DIGITS), *QUICK, *epochs, *how, "--out", str(alone), world=1))
    assert one[0][0] == 0, one[0][2]
    for name in ("plan.json", "front.json"):
        assert (several / name).read_bytes() == (alone / name).read_bytes()
    report, wanted = (json.loads((folder / "report.json").read_text()) for folder in (several, alone))
    assert all(report["after"][figure] == wanted["after"][figure] for figure in ("macs", "params"))
    if "csgd" not in how:
        assert together("pick", several, "--index", "1", "--quiet").count("files in") == 1


@pytest.mark.slow
def test_processes_that_are_given_different_things_are_told_apart(tmp_path: Path) -> None:
    """One message, by the first process, before any work."""
    out = str(tmp_path / "x.safetensors")
    (code, _, said), (other, _, theirs) = ended(by_hand("compress_cli", *TRAIN, "--seed", "{rank}", "--out", out))
    assert code == 3 and "the processes do not agree: " in said and "in process 1" in said and "hint: " in said
    assert other == 8 and "has said" in theirs and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_first_process_fails_and_the_others_end(tmp_path: Path) -> None:
    """A target out of reach: the search's own message, and an end in bounded time."""
    words = ["prune", str(DIGITS), *QUICK, "--method", "uniform", "--macs", "0.0001", "--out", str(tmp_path / "run")]
    (code, _, said), (other, _, theirs) = ended(by_hand("compress_cli", *words))
    assert code == 3 and "error:" in said
    assert other == 8 and "ended with an error" in theirs


class Store(dict[str, str]):
    """What torch's store is to signals."""

    def set(self, key: str, value: str) -> None:
        self[key] = value

    def check(self, keys: list[str]) -> bool:
        return all(key in self for key in keys)


def test_messages_come_in_their_order_and_silence_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESS_RANK_SECONDS", "0.5")
    store = Store()
    first, second = Signals(Ranks(0, 2), store), Signals(Ranks(1, 2), store)
    for number in range(3):
        first.tell({"number": number})
    assert [second.next()["number"] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ProcessLost, match="silent for"):
        second.next()
    first.tell({"ended": "failed"})
    with pytest.raises(ProcessLost, match="ended before the training"):
        second.start()
    assert not store.check([Signals(Ranks(1, 2), store, meeting=1)._key("said/0")])


def test_one_process_meets_nobody() -> None:
    with meeting({}) as signals:
        assert signals.first and signals.store is None
        signals.start()
        signals.tell({"ended": "done"})


def test_an_own_loop_is_one_process_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    refused = compress(*TRAIN, "--train", "support.loops:train", "--out", tmp_path / "x.safetensors")
    assert refused.exit_code == 3 and "loop" in text(refused)
