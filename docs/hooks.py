"""What the documentation site has beside docs/: pages written elsewhere in the project, and the command line's own help.

``mkdocs.yml`` names this file. Links are written as they are right in the project's folders; here they become links between
the site's pages, and those that lead to files which are no pages become plain text.
"""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ELSEWHERE = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changes.md": "CHANGELOG.md",
    "benchmarks.md": "benchmarks/README.md",
    "papers.md": "benchmarks/papers/README.md",
    "examples/all.md": "examples/README.md",
    "examples/detection.md": "examples/detection/README.md",
    "examples/segmentation.md": "examples/segmentation/README.md",
    "examples/yolo.md": "examples/yolo/README.md",
}
"""Page of the site -> file of the project."""
COMMANDS = "cli.md"
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)\s]+)\)")
ROLE = re.compile(r":(?:func|class|meth|mod|attr|data|exc):<code>~?([\w.]+)(\(\))?</code>")
CODE = re.compile(r"(```.*?```)", re.DOTALL)


def pages() -> list[str]:
    """Every page of the site."""
    return sorted([*ELSEWHERE, COMMANDS, *(str(p.relative_to(ROOT / "docs")) for p in (ROOT / "docs").rglob("*.md"))])


def with_stars(nav: list[Any], every: list[str]) -> list[Any]:
    """The navigation with every page in the place of a name with a star."""
    found: list[Any] = []
    for entry in nav:
        title, below = next(iter(entry.items()))
        if isinstance(below, list):
            found.append({title: with_stars(below, every)})
        elif "*" in below:
            found.append({title: [page for page in every if fnmatch(page, below)]})
        else:
            found.append(entry)
    return found


# ---- links -----------------------------------------------------------------------------------------------------------


def anchor(heading: str, separator: str = "-") -> str:
    """What a link to a heading ends in, by GitHub's rule, so that a link holds there and on the site."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", separator)


def home(page: str) -> str:
    """The project's file that a page is made of."""
    return ELSEWHERE.get(page, f"docs/{page}")


def page_of(path: str) -> str | None:
    """The page that a file of the project becomes; None for what is none."""
    for page, source in ELSEWHERE.items():
        if source == path:
            return page
    return path.removeprefix("docs/") if path.startswith("docs/") and (ROOT / path).is_file() else None


def relinked(text: str, page: str) -> str:
    """A page's Markdown with the links of its file made links of the site."""

    def link(found: re.Match[str]) -> str:
        mark, words, target = found.groups()
        if "://" in target or target.startswith(("#", "mailto:")):
            return found[0]
        path, _, heading = target.partition("#")
        wanted = page_of(posixpath.normpath(posixpath.join(posixpath.dirname(home(page)), path)))
        if wanted is None:
            return words
        there = posixpath.relpath(wanted, posixpath.dirname(page) or ".")
        return f"{mark}[{words}]({there}{'#' + heading if heading else ''})"

    parts = CODE.split(text)
    return "".join(part if i % 2 else LINK.sub(link, part) for i, part in enumerate(parts))


# ---- the command line ------------------------------------------------------------------------------------------------


def cell(text: str) -> str:
    """Text in one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def described(name: str, command: Any, level: int) -> Iterator[str]:
    """One command's section."""
    context = command.context_class(command, info_name=f"compress {name}")
    yield f"{'#' * level} compress {name}\n"
    yield f"{(command.help or '').strip()}\n"
    yield f"```text\n{command.get_usage(context).removeprefix('Usage:').strip()}\n```\n"
    panels: dict[str, list[str]] = {}
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is not None and not getattr(parameter, "hidden", False):
            arguments = parameter.param_type_name == "argument"
            panel = getattr(parameter, "rich_help_panel", None) or ("Arguments" if arguments else "Options")
            written = record[0].replace("|", "\\|")
            panels.setdefault(panel, []).append(f"| `{written}` | {cell(record[1])} |")
    for panel, rows in panels.items():
        yield "\n".join([f"| {panel} | |", "|---|---|", *rows, ""])
    for below, more in getattr(command, "commands", {}).items():
        yield from described(f"{name} {below}", more, level + 1)


def commands() -> str:
    """The page of the command line, from the application itself."""
    sys.path[:0] = [str(ROOT / folder) for folder in (".", "cli", "models") if str(ROOT / folder) not in sys.path]
    from compress_cli.app import app
    from typer.main import get_command

    root: Any = get_command(app)
    parts = ["# Every command\n", f"{root.help.strip()}\n", f"{(root.epilog or '').strip()}\n", "| | |\n|---|---|"]
    for name, command in root.commands.items():
        parts.append(f"| [`{name}`](#compress-{name}) | {cell((command.help or '').strip().splitlines()[0])} |")
    parts.append("")
    for name, command in root.commands.items():
        parts += described(name, command, 2)
    return "\n".join(parts)


# ---- what MkDocs calls -----------------------------------------------------------------------------------------------


def on_config(config: Any) -> Any:
    """Stars of the navigation become pages; headings get the anchors that they have on GitHub."""
    config.nav = with_stars(config.nav, pages())
    config.mdx_configs["toc"]["slugify"] = anchor
    return config


def on_files(files: Any, config: Any) -> Any:
    """Pages that are not in docs/."""
    from mkdocs.structure.files import File

    for page, source in ELSEWHERE.items():
        settings = "---\nhide: [navigation]\n---\n" if page == "index.md" else ""
        files.append(File.generated(config, page, content=settings + (ROOT / source).read_text()))
    files.append(File.generated(config, COMMANDS, content=commands()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links of the project's folders become links of the site."""
    return relinked(markdown, page.file.src_uri)


def _reference(found: re.Match[str]) -> str:
    shown = found[1].removeprefix("compress.") + (found[2] or "")
    return f'<autoref optional identifier="{found[1]}"><code>{shown}</code></autoref>'


on_page_content = partial(lambda html, **_: ROLE.sub(_reference, html))


def on_post_page(output: str, page: Any, config: Any) -> str:
    """The theme's drawings say nothing that the words beside them do not: screen readers pass over them."""
    return output.replace(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox', '<svg aria-hidden="true" xmlns="http://www.w3.org/2000/svg" viewBox'
    )
