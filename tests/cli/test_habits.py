"""What people try first: -h, --version, a name with a letter missing, the shell's completion, the words of an option."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

import pytest
from compress_cli.app import app
from compress_cli.citations import OF_METHOD
from compress_models import MODELS
from support.commands import compress, text
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from compress import __version__
from compress.core import nearest
from compress.evaluation import CRITERIA
from compress.pipeline import Job
from compress.search import METHODS, options_of
from compress.tasks.registry import TASKS

ROOT = get_command(app)
assert isinstance(ROOT, TyperGroup)
COMMANDS = ROOT.commands


def test_the_version_is_the_package_s() -> None:
    assert compress("--version").stdout.split() == ["compress", __version__ or "(not", *([] if __version__ else ["installed)"])]


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=" ".join)
def test_h_is_help(command: tuple[str, ...]) -> None:
    short, long = compress(*command, "-h"), compress(*command, "--help")
    assert short.exit_code == long.exit_code == 0 and short.stdout == long.stdout and "Usage" in short.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_breaks_no_option_and_no_value_on_80_columns(name: str) -> None:
    shown = CliRunner().invoke(app, [name, "-h"], env={"COLUMNS": "80"}).stdout
    options = [p for p in COMMANDS[name].params if p.param_type_name == "option" and not getattr(p, "hidden", False)]
    words = [word for p in options for word in (*p.opts, p.metavar or "")]
    assert max(map(len, shown.splitlines())) <= 80 and [word for word in words if word not in shown] == []


def without_a_letter(name: str) -> str:
    return name[: len(name) // 2] + name[len(name) // 2 + 1 :]


@pytest.mark.parametrize("name", [name for name in COMMANDS if len(name) > 3])
def test_a_command_or_an_option_with_a_letter_missing_is_told(name: str) -> None:
    wrong = compress(without_a_letter(name))
    assert wrong.exit_code == 2 and f"'{name}'" in text(wrong)
    assert "--debug" in text(compress(name, "--debg"))


NAMES: dict[str, Iterable[str]] = {
    "methods": METHODS,
    "criteria": CRITERIA,
    "tasks": TASKS,
    "networks": MODELS,
    "settings": [f.name for f in fields(Job)],
    **{f"options of {name}": [o.name for o in options_of(m.searcher)] for name, m in METHODS.items()},
}


@pytest.mark.parametrize("kind", NAMES)
def test_every_name_is_found_without_a_letter_and_in_capitals(kind: str) -> None:
    known = NAMES[kind]
    for name in known:
        assert name in nearest(without_a_letter(name), known, 3) or len(name) < 3, name
        assert nearest(name.upper(), known) == [name]


def test_a_file_and_a_folder_with_a_letter_missing_are_told(tmp_path: Path) -> None:
    (tmp_path / "network.safetensors").write_bytes(b"")
    (tmp_path / "pictures").mkdir()
    network, images = tmp_path / "network.safetensor", tmp_path / "picture"
    assert f"did you mean '{network}s'" in compress("inspect", network).stderr.replace("\n", "")
    digits = Path(__file__).parents[2] / "models" / "checkpoints" / "digits-net.safetensors"
    assert f"did you mean '{images}s'" in compress("prune", digits, "--data", images, "--dry-run").stderr.replace("\n", "")


def test_nothing_is_made_up() -> None:
    assert nearest("xylophone", METHODS) == []
    wrong = compress("cite", "xylophone")
    assert wrong.exit_code == 3 and all(name in wrong.stderr for name in METHODS)


@pytest.mark.parametrize(
    ("command", "meant"),
    [
        ("methods smoae", "smoea"),
        ("cite smoae", "smoea"),
        ("prune x.pt --method obbs", "obs"),
        ("prune x.pt --recover reconstuct", "reconstruct"),
        ("prune x.pt --method cluster --set options.keep=crowdin", "crowding"),
    ],
)
def test_wrong_words_are_told_before_any_file_is_read(command: str, meant: str) -> None:
    wrong = compress(*command.split())
    assert wrong.exit_code == 3 and f"did you mean '{meant}'?" in wrong.stderr


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_explained_with_every_option_and_its_cost(name: str) -> None:
    options = options_of(METHODS[name].searcher)
    assert [o.name for o in options] == [f.name for f in fields(METHODS[name].searcher)]
    shown, told = compress("methods", name), json.loads(compress("methods", name, "--json").stdout)
    for option in options:
        assert len(option.meaning) > 5 and option.meaning.endswith(".") and option.cost.endswith("."), option
        assert option.name in shown.stdout and option.meaning.split()[-1] in shown.stdout
        assert told["options"][option.name]["cost"] == option.cost
    assert told["options"] == {
        o.name: {"default": json.loads(json.dumps(o.default)), "meaning": o.meaning, "cost": o.cost} for o in options
    }


@pytest.mark.parametrize(
    ("line", "offered"),
    [("compress prun", {"prune"}), ("compress methods s", {"smoea"}), ("compress prune --method cl", {"cluster"})],
)
def test_a_shell_is_told_how_a_word_may_end(line: str, offered: set[str]) -> None:
    asked = {"_COMPRESS_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    assert set(CliRunner().invoke(app, [], env=asked, prog_name="compress").stdout.split()) == offered


def test_all_methods_are_offered() -> None:
    assert set(OF_METHOD) == set(METHODS)


def test_commands_of_one_process_refuse_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    refused = compress("inspect", "resnet20")
    assert refused.exit_code == 3 and "a launcher started 2 of them" in refused.stderr and "torchrun" in refused.stderr
