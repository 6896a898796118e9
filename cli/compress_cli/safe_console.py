"""The only way to a terminal: whatever is printed is text, and only Rich itself sends control sequences."""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Iterable
from typing import Any, TextIO

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from typer.core import TyperGroup

from compress.core import printable


class SafeConsole(Console):
    """A console whose text holds no control characters, wherever it comes from; Rich's markup and escape know only brackets.

    ``:name:`` stays what it is, and does not become a picture: files and tasks may be called so.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(emoji=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As Rich does, then every piece of text made printable."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


def sentence(console: Console, markup: str) -> None:
    """Prints a sentence: on a terminal its lines end between words, elsewhere it is one line.

    Commands are not printed so: what is to be copied stays on one line.
    """
    console.print(markup, soft_wrap=not console.is_terminal)


class Commands(TyperGroup):
    """The commands; what their parsers say about a command line repeats parts of it; help shows no type beside a switch."""

    def get_help_option(self, ctx: Any) -> Any:
        """That of the application itself."""
        return _without_type(super().get_help_option(ctx))

    def get_params(self, ctx: Any) -> list[Any]:
        """The application's own options."""
        return [_without_type(parameter) for parameter in super().get_params(ctx)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """One command, about to be parsed or explained."""
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            for parameter in command.get_params(command.context_class(command, parent=ctx)):
                _without_type(parameter)
        return command

    def invoke(self, ctx: Any) -> Any:
        """Parses and runs a command."""
        try:
            return super().invoke(ctx)
        except Exception as error:  # the framework's own, whose class it keeps to itself
            told = vars(error).get("message")
            if isinstance(told, str):
                vars(error)["message"] = printable(told)
            raise


def _without_type(parameter: Any) -> Any:
    """A switch without the ``<bool>`` that help would show beside it."""
    if getattr(parameter, "is_flag", False):
        parameter.metavar = ""
    return parameter


def say(text: str, *, newline: bool = True) -> None:
    """Plain text on standard output, as it is but for what a terminal must not be sent."""
    typer.echo(printable(text), nl=newline)


def show_warnings() -> None:
    """Warnings of libraries repeat names as well."""

    def show(message: Any, category: Any, filename: str, lineno: int, file: TextIO | None = None, line: Any = None) -> None:
        text = warnings.formatwarning(message, category, filename, lineno, line)
        (file or sys.stderr).write(printable(text))

    warnings.showwarning = show


def show_traceback() -> None:
    """The exception under way, as ``--debug`` asks for it."""
    sys.stderr.write(printable(traceback.format_exc()))
