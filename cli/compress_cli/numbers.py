"""Options that take a number or ``auto``, and how many workers a command has where nobody says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from compress_cli.console import UsageError

if TYPE_CHECKING:
    from compress.pipeline import Job


def number_or_auto(option: str, text: str | None, example: int) -> int | str | None:
    """A number, or ``auto``.

    Args:
        option: its name, for the message.
        text: what was given; None stays None.
        example: a number that would do.

    Raises:
        UsageError: neither.
    """
    if text is None or text == "auto":
        return text
    try:
        return int(text)
    except ValueError as error:
        wanted = f"{option} {example}, or {option} auto"
        raise UsageError(f"{option} {text} is neither a number nor auto", hint=wanted) from error


def workers_named(text: str | None) -> int | str | None:
    """A number of workers, ``auto``, or actors of a Ray cluster, which a job reads.

    Raises:
        UsageError: none of these.
    """
    return text if text is not None and text.startswith("ray") else number_or_auto("--workers", text, 2)


def choosing_workers(job: Job) -> Job:
    """The job, whose workers are chosen where it names no number: on the command line nothing else has to be watched for."""
    return job if job.workers is not None else replace(job, auto_workers=True)
