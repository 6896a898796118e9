"""Every option of every command, given values that cannot be right: refused at once, in words, before any work.

The options are read off the Typer app, so that a new one is tried from its first day.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from compress_cli import progress
from compress_cli.app import app
from support.commands import DIGITS, compress

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
SECONDS = 30.0
"""Importing torch on a busy machine included."""
NUMBERS = ("-1", "99999999999999999999999999", "x", "", "nan", "inf", "1e400", "-inf")
WORDS = ("", "no-such-thing", "-1", "nan", "a,b", "\x1b[2J")
PATHS = ("", "{file}/below", "{folder}", "{device}")
ANY_TEXT = {"name", "ignore", "against", "model", "arm", "weights", "url", "message"}
"""Options that take any words, names of models for example, or what only the file that is read can tell."""
FOLDERS = {
    ("prune", "--out"),
    ("demo", "--out"),
    ("pick", "--out"),
    ("compare-methods", "--out"),
    ("package", "--out"),
    ("deploy", "--repository"),
}
"""Options that want a folder: a folder is right, and so is the one that the command is started in."""


NONE = {("package", "--prefer"), ("package", "--tensorrt")}
"""Options of which nothing is a value."""


class Worked(BaseException):
    """A command has begun its work."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, an ONNX file, a folder and a file, and a repository."""
    folder = tmp_path_factory.mktemp("wrong")
    options = ["--data", "digits", "--method", "smoea", "--budget", "3000", "--exporter", "legacy", "--epochs", "0", "--quiet"]
    options += ["--set", "options.population=6", "--set", "options.generations=2", "--latency-seconds", "0"]
    done = compress("prune", DIGITS, *options, "--recover", "none", "--out", folder / "run")
    assert done.exit_code in (0, 6), done.stderr
    (folder / "folder").mkdir()
    (folder / "folder" / "within").write_text("x")
    (folder / "file").write_text("x")
    (folder / "repository").mkdir()
    return folder


def line(command: str, place: Path) -> list[str]:
    """The shortest line that would work."""
    run, onnx = str(place / "run"), str(place / "run" / "model.onnx")
    out = str(place / f"{command}-out")
    model = [str(DIGITS), "--data", "digits"]
    url = "http://127.0.0.1:9"
    return {
        "prune": [*model, "--out", out],
        "pick": [run, "--index", "0", "--out", out],
        "report": [run],
        "compare-methods": [*model, "--methods", "uniform", "--against", "uniform", "--seeds", "0", "--out", out],
        "finetune": [*model, "--out", f"{out}.safetensors"],
        "train": ["digits_net", "--data", "digits", "--out", f"{out}.safetensors"],
        "export": [str(DIGITS), "--data", "digits", "--precision", "fp16", "--out", f"{out}.fp16.onnx"],
        "bench": [onnx, f"{run}/base.onnx"],
        "bench-kit": [onnx, "--out", f"{out}.zip"],
        "compare": [onnx, f"{run}/base.onnx"],
        "profile": [onnx],
        "table": [str(DIGITS), "--out", f"{out}.json"],
        "package": [onnx, "--out", f"{out}-{time.monotonic_ns()}"],
        "deploy": [run, "--repository", str(place / "repository"), "--url", url],
        "serve-bench": [url, "--model", "net"],
        "push": [run, "me/net", "--dry-run"],
        "inspect": [str(DIGITS)],
        "models": [],
        "methods": [],
        "doctor": [],
        "cite": [],
        "demo": ["--out", out],
    }[command]


def options() -> Iterator[tuple[str, str, Any]]:
    for command, described in COMMANDS.items():
        for parameter in described.params:
            if parameter.param_type_name == "option" and not getattr(parameter, "is_flag", False) and parameter.name != "help":
                yield command, parameter.opts[0], parameter


def wrong(parameter: Any) -> tuple[str, ...]:
    kind = str(parameter.type_descriptor.annotation).lower()
    if "int" in kind or "float" in kind:
        return NUMBERS
    if "path" in kind:
        return PATHS
    return () if parameter.name in ANY_TEXT else WORDS


CASES = [(command, flag, parameter) for command, flag, parameter in options() if wrong(parameter)]


def test_the_options_are_found() -> None:
    assert len(CASES) > 100
    assert len({command for command, _, _ in CASES}) > 14


@pytest.mark.parametrize(("command", "flag", "parameter"), CASES, ids=[f"{c}{f}" for c, f, _ in CASES])
def test_a_wrong_value_is_refused_before_any_work(
    place: Path, command: str, flag: str, parameter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def works(self: Any, event: Any) -> None:
        raise Worked(f"{type(event).__name__} {getattr(event, 'name', '')}")

    monkeypatch.setattr(progress._Lines, "hear", works)
    monkeypatch.chdir(place)
    faults = []
    for value in wrong(parameter):
        text = value.format(file=place / "file", folder=place / "folder", device="/dev/null")
        began = time.monotonic()
        try:
            done = compress(command, *line(command, place), f"{flag}={text}")
            outcome, said = done.exit_code, done.stderr
        except Worked as worked:
            outcome, said = -1, f"began to work: {worked}"
        seconds = time.monotonic() - began
        lawful = outcome in (2, 3) and said.count("error:") + said.count("Error") <= 1 and seconds < SECONDS
        right = (value in ("", "{folder}") and (command, flag) in FOLDERS) or (not value and (command, flag) in NONE)
        if not lawful and not right:
            faults.append(f"{flag}={text!r}: {outcome} in {seconds:.1f} s: {' '.join(said.split())[:200]}")
    shutil.rmtree(place / f"{command}-out", ignore_errors=True)
    assert not faults, "\n".join(faults)
