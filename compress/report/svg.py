"""Figures: matplotlib's SVG as an element of the page, or as a file of its own.

In the page the colours are its own (``var(--pruned)``), so one drawing serves light, dark and paper; text stays text, in the
page's font; every identifier gets the figure's name in front, because a document has each of them once. A file has the colours
of the page by day.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from compress.core import printable
from compress.errors import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, RULE = "#0a0001", "#0a0002", "#0a0003"
BASE, PRUNED, CONTROL = "#0a0004", "#0a0005", "#0a0006"
GOOD, BAD, TEST = "#0a0007", "#0a0008", "#0a0009"
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    RULE: "--rule",
    BASE: "--base",
    PRUNED: "--pruned",
    CONTROL: "--control",
    GOOD: "--good",
    BAD: "--bad",
    TEST: "--test",
}
"""Colours that nobody would draw with stand for the page's variables until the drawing is text."""

_SPACE = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"
_DECIMALS = re.compile(r"-?\d+\.\d{3,}")
_UNREADABLE = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_UNITS = 72
NARROW = 4.5
"""Inches, of 72 units each: it fits a phone as it is and a desktop's column half as large again."""


@contextmanager
def drawing() -> Iterator[None]:
    """Matplotlib, set for the page; names of files are no formulas."""
    import matplotlib

    matplotlib.use("svg")
    settings: Any = {
        "svg.hashsalt": "compress",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 9.5,
        "text.parse_math": False,
        "text.color": INK,
        "axes.labelcolor": MUTED,
        "axes.edgecolor": RULE,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": "none",
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.unicode_minus": True,
        "grid.color": RULE,
        "grid.linewidth": 0.6,
        "xtick.color": RULE,
        "ytick.color": RULE,
        "xtick.labelcolor": MUTED,
        "ytick.labelcolor": MUTED,
        "figure.facecolor": "none",
        "legend.frameon": False,
        "legend.fontsize": "medium",
        "legend.labelcolor": INK,
        "path.simplify": False,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name's letter that the measuring font lacks; the browser has its own fonts
        yield


def figure(width: float, height: float, **grid: Any) -> tuple[Figure, Any]:
    """An empty figure and its axes; sizes in inches."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    return made, made.subplots(**grid)


def bare(axes: Axes, *, grid: str = "both") -> None:
    """No tick marks, few numbers, and a grid along one axis only."""
    from matplotlib.ticker import MaxNLocator

    axes.tick_params(length=0)
    for side in (axes.xaxis, axes.yaxis):
        locator = side.get_major_locator()
        if isinstance(locator, MaxNLocator):
            locator.set_params(nbins=6)
    axes.grid(visible=False)
    if grid != "none":
        axes.grid(visible=True, axis=grid)  # type: ignore[arg-type]


def clean(text: str, most: int = 60) -> str:
    """One line of characters that an XML document may hold."""
    line = one_line(_UNREADABLE.sub("\ufffd", printable(text)), None)
    return line if len(line) <= most else f"{line[: most - 1]}…"


def svg_of(draw: Callable[[], Figure]) -> str:
    """A figure as matplotlib's SVG, in the colours that stand for the page's variables."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    with drawing():
        text = io.StringIO()
        made = draw()
        for axes in made.axes:  # figures of a task and what a stranger's report calls them
            for label in (axes.xaxis.label, axes.yaxis.label, axes.title):
                label.set_text(clean(label.get_text(), 200))
        engine = made.get_layout_engine()
        if engine is not None:  # laid out here, or matplotlib draws every figure twice: once only for the layout
            made.dpi = _UNITS
            FigureCanvasSVG(made)
            engine.execute(made)
            made.set_layout_engine("none")
        made.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return text.getvalue()


def alone(drawing: str) -> str:
    """A drawing as a file: the page's colours by day, on white."""
    for colour, variable in _VARIABLES.items():
        drawing = drawing.replace(colour, _day()[variable])
    return re.sub(r"(<svg\b[^>]*>)", r'\1\n <rect width="100%" height="100%" fill="#ffffff"/>', drawing, count=1)


@cache
def _day() -> dict[str, str]:
    """The page's colours where no darkness is asked for."""
    style = (Path(__file__).parent / "page" / "style.css").read_text(encoding="utf-8")
    return dict(re.findall(r"(--[\w-]+): (#\w+);", style[: style.index("}")]))


def inline(drawing: str, name: str, title: str, description: str) -> str:
    """A drawing as an ``<svg>`` element that says what it shows.

    Args:
        drawing: as ``svg_of`` made it.
        name: unique in the document.
        title: what it is.
        description: what it shows, for those who do not see it.
    """
    root = ElementTree.fromstring(_UNREADABLE.sub("\ufffd", drawing))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style", "title"):
                parent.remove(child)
    for element in root.iter():
        _settle(element, name)
    for attribute in ("width", "height"):
        root.attrib.pop(attribute, None)
    root.attrib |= {"class": "plot", "role": "img", "aria-labelledby": f"{name}-title {name}-desc", "id": name}
    for tag, said in (("desc", description), ("title", title)):
        told = ElementTree.Element(f"{{{_SPACE}}}{tag}", {"id": f"{name}-{tag}"})
        told.text = clean(said, 2000)
        root.insert(0, told)
    ElementTree.register_namespace("", _SPACE)
    return ElementTree.tostring(root, encoding="unicode").replace(f' xmlns="{_SPACE}"', "", 1)


def _settle(element: ElementTree.Element, name: str) -> None:
    """Names unique, colours of the page, two decimals."""
    for key, value in list(element.attrib.items()):
        if key == "id":
            element.attrib[key] = f"{name}-{value}"
        elif key == _LINK:
            del element.attrib[key]
            element.attrib["href"] = value.replace("#", f"#{name}-")
        else:
            value = value.replace("url(#", f"url(#{name}-")
            for colour, variable in _VARIABLES.items():
                value = value.replace(colour, f"var({variable})")
            element.attrib[key] = _DECIMALS.sub(lambda found: f"{float(found[0]):.2f}", value)
