r"""Text of files, servers and other strangers, made safe for where it is shown: terminals, Markdown, CSV.

A name may move the cursor, retitle a window, turn the line around or hide a part of itself (ESC, C1, bidirectional overrides,
characters of no width); it may be a link, an image or a tag in Markdown, or a formula in a spreadsheet. What cannot be seen is
shown as what it is: ``\x1b``, ``\u202e``.
"""

from __future__ import annotations

import re
import unicodedata

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls but the tab and the line feed
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"  # of no width
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb"  # of no width, line ends, bidirectional
    "\ud800-\udfff"  # halves of characters, as in names that are no UTF-8
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"  # formats and tags
)
_MARKS = re.compile(r"([\\`*\[\]~|])|(?<![^\W_])(_+)|(_+)(?![^\W_])")
_TAGS = str.maketrans({"&": "&amp;", "<": "&lt;"})
_ADDRESS = re.compile(r"(?i)(https?|ftp|mailto|xmpp)(:)|(\bwww)(\.)|(?<=\w)(@)(?=\w)")
_LINE_START = re.compile(r"^(\d{0,9})(?=[.)](?:\s|$)|(?<!\d)(?:[>#]|[-+=](?:[\s=-]|$)))")
_FORMULA = re.compile(r"(^|(?<=[;,|\t]))([\s\"']*)(\S)")


def printable(text: object) -> str:
    """What a terminal may be sent: nothing moves, colours or hides anything; tabs and line feeds stay."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), str(text))


def markdown(text: object) -> str:
    """One line of Markdown that shows just this text: no tag, no link, no image, no emphasis, no end of a table's cell."""
    line = " ".join(printable(text).split()).translate(_TAGS)
    line = _MARKS.sub(lambda found: "".join(f"\\{mark}" for mark in found[0]), line)
    line = _ADDRESS.sub(lambda found: found[0][:-1] + f"&#{ord(found[0][-1])};", line)
    return _LINE_START.sub(r"\1\\", line)


def plural(count: int, noun: str) -> str:
    """A number and what is counted, in the form that the number asks for: ``1 epoch``, ``1,200 images``, ``2 branches``.

    Args:
        count: how many.
        noun: singular, English; of several words the last one changes.
    """
    return f"{count:,} {noun if count == 1 else _of_several(noun)}"


def _of_several(noun: str) -> str:
    if noun.endswith(("s", "x", "ch", "sh")) and not noun.endswith("epoch"):
        return f"{noun}es"
    return f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2:-1] not in "aeiou" else f"{noun}s"


def markdown_code(text: object) -> str:
    """A code span of one line, within a table too."""
    return f"`{' '.join(printable(text).split()).replace('`', chr(39)).replace('|', '¦')}`"


def markdown_block(text: object) -> list[str]:
    """The lines of a code block; its fence is longer than any in the text."""
    shown = printable(text)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    return [fence, *shown.splitlines(), fence]


def csv_cell(text: object) -> str:
    """One line that no spreadsheet takes for a formula, whichever separator it goes by, and however wide its signs are."""
    line = " ".join(printable(text).split())
    return _FORMULA.sub(lambda found: f"{found[1]}{chr(39)}{found[2]}{found[3]}" if _starts(found[3]) else found[0], line)


def _starts(sign: str) -> bool:
    return unicodedata.normalize("NFKC", sign)[:1] in ("=", "+", "-", "@", "\u2212")
