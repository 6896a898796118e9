"""Where every command ends: results on standard output, errors as a line, a hint and an exit code."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any, TypeVar, cast

import typer
from rich.console import Console
from rich.markup import escape

from compress.core import printable, this_process
from compress.errors import CompressError, ConfigError, one_line
from compress_cli.options import spread
from compress_cli.safe_console import SafeConsole, sentence
from compress_cli.values import check

_JSON: ContextVar[bool] = ContextVar("json", default=False)

Command = TypeVar("Command", bound=Callable[..., Any])
_WIDE = 120
"""Columns where there is no terminal to ask."""


class UsageError(ConfigError):
    """Options that contradict each other."""

    exit_code = 2


def out() -> Console:
    """Results, on standard output."""
    return _console(stderr=False)


def err() -> Console:
    """Progress, warnings and errors: standard error, so that results can be piped."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    plain = SafeConsole(stderr=stderr, highlight=False)
    return plain if plain.is_terminal else SafeConsole(stderr=stderr, highlight=False, width=_WIDE)


def print_json(data: Any) -> None:
    """One JSON object on standard output, uncoloured and unwrapped."""
    typer.echo(json.dumps(data, indent=2))


def writes_json() -> bool:
    """Whether the command under way was called with ``--json``: standard error then holds JSON lines only."""
    return _JSON.get()


def warn(text: str) -> None:
    """A red line that does not stop the command."""
    _aside("warning", text, f"[red]warning: {escape(text)}[/]")


def tell(text: str, word: str = "note:") -> None:
    """A dim word and a sentence beside the results."""
    _aside("note", f"{word} {text}", f"[dim]{escape(word)}[/] {escape(text)}")


def _aside(event: str, text: str, markup: str) -> None:
    if writes_json():
        typer.echo(json.dumps({"event": event, "text": printable(text)}), err=True)
    else:
        sentence(err(), markup)


def command_line() -> str:
    """How to run this again."""
    return shlex.join(["compress", *sys.argv[1:]])


def guarded(*, resumes: bool = False, several: bool = False) -> Callable[[Command], Command]:
    """Turns what a command raises into words, and spreads its dataclasses of options out (:func:`compress_cli.options.spread`).

    ``debug`` and ``as_json`` are read from the command's own options.

    Args:
        resumes: the same command goes on where an interrupted one stopped.
        several: it may be started as several processes that train together.
    """

    def around(command: Command) -> Command:
        run = spread(command)

        @wraps(run)
        def inside(**options: Any) -> Any:
            debug, as_json = bool(options.get("debug")), bool(options.get("as_json"))
            before = _JSON.set(as_json)
            try:
                check(options)
                place = this_process()
                if not (several or place.alone):
                    raise ConfigError(
                        f"this command runs in one process, and a launcher started {place.world} of them",
                        hint="start it by itself, without torchrun or accelerate launch",
                    )
                return run(**options)
            except (typer.Exit, BrokenPipeError):
                raise  # whoever read a pipe has had enough: the framework leaves quietly
            except KeyboardInterrupt:
                hint = f"what was done is kept; go on with: {command_line()}" if resumes else ""
                raise _leave("interrupted", hint, 130, as_json) from None
            except Exception as error:
                if debug:
                    raise
                raise _leave(*_words(error), as_json) from None
            finally:
                _JSON.reset(before)

        return cast(Command, inside)

    return around


def _words(error: Exception) -> tuple[str, str, int]:
    """What happened, what to do next, and the exit code."""
    if isinstance(error, CompressError):
        return error.message, error.hint, error.exit_code
    text = one_line(error)
    if isinstance(error, OSError):
        return text, "check that the place exists, is writable and has space left", CompressError.exit_code
    return f"internal error: {type(error).__name__}: {text}", "run again with --debug and report what it prints", 1


def _leave(message: str, hint: str, code: int, as_json: bool) -> typer.Exit:
    if as_json:
        typer.echo(json.dumps({"event": "error", "text": printable(message), "hint": printable(hint)}), err=True)
        print_json({"error": message, "hint": hint, "exit_code": code})
        return typer.Exit(code)
    console = err()
    sentence(console, f"[bold red]error:[/] [red]{escape(message)}[/]")
    if hint:
        console.print(f"[dim]hint: {escape(hint)}[/]", soft_wrap=True)
    return typer.Exit(code)
