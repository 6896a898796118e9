"""Files are whole or not there, whatever step of writing fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compress.core.files import append, read_bytes, read_json, write
from compress.errors import CompressError, ConfigError
from compress.networks import checkpoint
from compress.networks.checkpoint import Architecture
from compress.recovery import training_state

WRITERS = {
    "text": lambda path: write(path, "new\n"),
    "checkpoint": lambda path: checkpoint.save(path, nn.Linear(2, 2), architecture=Architecture("x")),
    "state": lambda path: training_state.save(
        path.parent,
        "id",
        training_state.TrainingState(1, 0, 0.0, torch.zeros(3)),
        (net := nn.Linear(2, 2)),
        torch.optim.SGD(net.parameters(), 0.1),
    ),
}
STEPS = ("open", "write_bytes", "fsync", "replace")


# safetensors writes its file itself: a full disk of its own is in benchmarks/faults.py
@pytest.mark.parametrize(
    ("writer", "step"), [(w, s) for w in WRITERS for s in STEPS if (w, s) != ("checkpoint", "write_bytes")]
)
def test_a_step_that_fails_leaves_what_was_there(
    writer: str, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / (training_state.FILE if writer == "state" else "file")
    path.write_text("old")
    failed = []

    def full(*arguments: Any, **more: Any) -> Any:
        if step == "open" and not arguments[1] & os.O_CREAT:
            return real(*arguments, **more)
        if step == "write_bytes":
            real(arguments[0], arguments[1][: len(arguments[1]) // 2])
        failed.append(step)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    owner: Any = Path if step in ("write_bytes", "replace") else os
    real = getattr(owner, step)
    with monkeypatch.context() as patch:
        patch.setattr(owner, step, full)
        with pytest.raises(CompressError, match="No space left") as caught:
            WRITERS[writer](path)
    assert failed and caught.value.hint
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == [path.name]
    WRITERS[writer](path)
    assert path.read_bytes() != b"old" and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_what_is_written_has_the_rights_of_an_ordinary_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    for writer in ("text", "checkpoint"):
        WRITERS[writer](tmp_path / writer)
        assert (tmp_path / writer).stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_reading_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(100))
    assert read_bytes(path, most=100) == bytes(100)
    with pytest.raises(OSError, match="more than 99 bytes"):
        read_bytes(path, most=99)
    with pytest.raises(OSError, match="ordinary"):
        read_bytes(Path("/dev/zero"))


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", "[" * 100_000, "\ud800", '{"a": 1' + "0" * 5000 + "}", "NaN"])
def test_what_is_no_object_is_an_error_with_the_given_cure(text: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError) as caught:
        read_json(tmp_path / "f", hint="do this")
    assert caught.value.hint == "do this"


def test_lines_are_added_and_no_link_is_followed(tmp_path: Path) -> None:
    append(tmp_path / "f", "a\n")
    append(tmp_path / "f", "b\n")
    assert (tmp_path / "f").read_text() == "a\nb\n"
    (tmp_path / "link").symlink_to(tmp_path / "f")
    with pytest.raises(CompressError):
        append(tmp_path / "link", "c\n")
    assert (tmp_path / "f").read_text() == "a\nb\n"
