"""Dataclasses of options: spread over a command in place, and put together again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, get_args

import pytest
import typer
import typer.main
from compress_cli.app import families
from compress_cli.options import spread
from compress_cli.values import check
from typer.testing import CliRunner

from compress.data.targets import TargetKind
from compress.errors import ConfigError


@dataclass(frozen=True)
class Where:
    place: Annotated[str, typer.Argument(help="Where.")]
    depth: Annotated[int, typer.Option(help="How deep.")] = 3
    wet: Annotated[bool, typer.Option("--wet", help="In water.")] = False


def given(*arguments: str, own_depth: bool = False) -> Any:
    """What a command with such a dataclass is called with."""
    app, seen = typer.Typer(), []
    if own_depth:

        @app.command()
        @spread
        def dig(*, depth: Annotated[int, typer.Option(help="Another text.")] = 7, where: Where, loud: bool = False) -> None:
            """Digs."""
            seen.append((where, loud, depth))
    else:

        @app.command()
        @spread
        def dig(*, first: int = 0, where: Where, loud: bool = False) -> None:
            """Digs."""
            seen.append((where, loud, first))

    result = CliRunner().invoke(app, arguments)
    return seen[0] if result.exit_code == 0 and seen else result


def test_a_dataclass_s_fields_are_options_of_the_command() -> None:
    assert given("here") == (Where("here"), False, 0)
    assert given("here", "--depth", "5", "--wet", "--loud", "--first", "1") == (Where("here", 5, True), True, 1)


def test_the_order_of_the_help_is_that_of_the_command() -> None:
    text = given("--help").output
    places = [text.index(word) for word in ("Digs.", "Where.", "--first", "--depth", "How deep.", "--wet", "--loud")]
    assert places == sorted(places) and "--where" not in text


def test_what_the_command_declares_itself_reaches_both() -> None:
    assert given("here", own_depth=True) == (Where("here", 7), False, 7)
    assert given("here", "--depth", "1", own_depth=True) == (Where("here", 1), False, 1)
    text = given("--help", own_depth=True).output
    assert "Another text." in text and "How deep." not in text


def test_a_field_without_a_default_is_wanted() -> None:
    assert given().exit_code == 2


@pytest.mark.parametrize("family", families, ids=lambda f: f.__name__)
def test_no_option_stands_in_a_command_twice(family: Any) -> None:
    for command in family.app.registered_commands:
        names = [name for p in typer.main.get_command_from_info(
            command, pretty_exceptions_short=True, rich_markup_mode=None).params for name in p.opts]  # fmt: skip
        assert len(names) == len(set(names))


def test_every_kind_of_target_can_be_asked_for() -> None:
    """What the library reads of a layout, the command line takes as --labels; no other word that is no file."""
    for kind in {*get_args(TargetKind)} - {"own"} | {"sorted", "index-prefix"}:
        check({"labels": kind})
    with pytest.raises(ConfigError, match="no file"):
        check({"labels": "own"})
