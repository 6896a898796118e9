"""The task of a network of which nothing is known: its outputs have to stay what they are."""

from __future__ import annotations

from dataclasses import dataclass

from compress.tasks.base import Task


@dataclass(frozen=True)
class Outputs(Task):
    """Nothing is scored, and nothing certified; training imitates the unpruned network, all outputs alike."""
