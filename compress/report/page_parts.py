"""What the page's templates are given: drawings, large figures, pairs of facts, and text as a page sets it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from compress.report.formatting import plain
from compress.report.svg import inline, svg_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing and what is said above it."""

    title: str
    about: str
    svg: Markup


@dataclass(frozen=True, slots=True)
class Tile:
    """One of the few large figures."""

    name: str
    value: str
    about: str


def inline_plot(draw: Callable[[], Figure], name: str, title: str, description: str) -> Markup:
    """A figure as an element of the page; see :func:`~compress.report.svg.inline`."""
    return Markup(inline(svg_of(draw), name, title, description))


def sentence(text: str) -> str:
    """With a capital letter."""
    return text[:1].upper() + text[1:]


def pairs(facts: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Names and values, each on one line."""
    return tuple((str(k).replace("_", " "), plain(v)) for k, v in facts.items())
