"""What the documents say of the code is so: paths, links and names exist, the house is drawn as it is, words stand once."""

from __future__ import annotations

import ast
import configparser
import json
import re
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import compress

ROOT = Path(__file__).parents[1]
PACKAGES = {"compress": ROOT, "compress_cli": ROOT / "cli", "compress_models": ROOT / "models"}
DOCUMENTS = sorted(p for p in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/**/*.md")))
MODULES = {  # the servers' files run inside servers, where the rest of the library is not
    ".".join(p.relative_to(home).with_suffix("").parts).removesuffix(".__init__"): p
    for package, home in PACKAGES.items()
    for p in sorted((home / package).rglob("*.py"))
    if "servers" not in p.parts
}
PATH = re.compile(r"(?<![\w/.-])(?:compress|cli|models|tests|benchmarks|docs)/[\w./-]*\w")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
ROLE = re.compile(r":(?:func|class|meth|mod|attr|data|exc):`~?([\w.]+)(?:\(\))?`")
DOTTED = re.compile(r"`(compress(?:\.\w+)+)")
METAPHORS = frozenset(
    "draw drawn aim aimed shot shots answers reading outside landing landed wire door against evidence".split()
)


def missing(text: str, beside: Path) -> list[str]:
    """Paths in a text that lead nowhere, from the project's root or from a folder."""
    return [found for found in PATH.findall(text) if not ((ROOT / found).exists() or (beside / found).exists())]


def resolved(dotted: str) -> Any:
    """What a dotted name stands for; AttributeError where nothing has it."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        return found
    raise AttributeError(dotted)


def known(name: str, module: ModuleType) -> bool:
    """Whether a reference in a module's text leads somewhere: from the top, from the module, or from one of its classes."""
    classes = [value for value in vars(module).values() if isinstance(value, type)]
    for start in (None, module, *classes):
        try:
            found = resolved(name) if start is None else start
            for part in () if start is None else name.split("."):
                found = getattr(found, part)
        except AttributeError:
            continue
        return True
    return False


# ---- paths and names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_a_document_names_exists(document: Path) -> None:
    text = document.read_text()
    assert not re.search(r"^(<<<<<<<|>>>>>>>) ", text, re.MULTILINE), "a merge was not finished"
    assert not missing(text, document.parent)
    links = [found for found in LINK.findall(text) if "://" not in found and not found.startswith("mailto:")]
    assert not [found for found in links if not (document.parent / found).exists()]
    for name in DOTTED.findall(text):
        resolved(name)


@pytest.mark.parametrize("module", MODULES)
def test_what_a_module_refers_to_exists(module: str) -> None:
    text, loaded = MODULES[module].read_text(), import_module(module)
    assert not missing(text, MODULES[module].parent)
    assert not [name for name in (*ROLE.findall(text), *DOTTED.findall(text)) if not known(name, loaded)]


def test_the_checks_above_can_fail() -> None:
    assert missing("`compress/core/plan.py`, `compress/core/plans.py`", ROOT) == ["compress/core/plans.py"]
    assert known("compress.core.Plan", ast) and known("NodeVisitor.visit", ast) and known("visit", ast)
    assert not known("compress.core.Plann", ast) and not known("NodeVisitor.visits", ast) and not known("compress.cores", ast)


@pytest.mark.parametrize("notebook", sorted(ROOT.glob("examples/notebooks/*.ipynb")), ids=lambda p: p.stem)
def test_notebooks_hold_code_and_nothing_that_it_printed(notebook: Path) -> None:
    cells = json.loads(notebook.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 6 and len({cell["id"] for cell in cells}) == len(cells)
    assert not [cell for cell in code if cell["outputs"] or cell["execution_count"] is not None]
    for cell in code:
        ast.parse("".join(cell["source"]))


# ---- the house -------------------------------------------------------------------------------------------------------


def floors(lines: str) -> list[frozenset[str]]:
    """Floors, top first; two blanks or more end the names."""
    rows = [re.split(r"\s{2,}", line.strip())[0] for line in lines.splitlines() if line.strip()]
    return [frozenset(name.strip() for name in row.split("|")) for row in rows]


def test_the_house_is_drawn_as_it_is() -> None:
    """CONTRIBUTING.md against the contract that is checked, and the contract against the folders."""
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter")
    drawing = re.search(r"```text\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert drawing is not None
    houses, rooms = (contracts[f"importlinter:contract:{name}"]["layers"] for name in ("houses", "floors"))
    top, below = floors(houses)
    assert floors(drawing[1]) == [top, *floors(rooms)] and below == {"compress", "compress_models"}
    there = {p.stem for p in (ROOT / "compress").iterdir() if (p / "__init__.py").is_file() or p.suffix == ".py"}
    assert frozenset.union(*floors(rooms)) == there - {"__init__"}


def test_test_folders_mirror_the_rooms() -> None:
    rooms = {p.parent.name for p in (ROOT / "compress").glob("*/__init__.py")}
    with_tests = {p.parent.name for p in (ROOT / "tests").glob("*/test_*.py")}
    assert len(with_tests) > 10 and with_tests <= rooms | {"cli", "models", "benchmarks"}


def words_of(name: str) -> set[str]:
    return set(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split("_"))


@pytest.mark.parametrize("module", MODULES)
def test_names_are_words_of_the_field(module: str) -> None:
    defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    names = [node.name for node in ast.walk(ast.parse(MODULES[module].read_text())) if isinstance(node, defined)]
    assert not [name for name in (module.rpartition(".")[2], *names) if METAPHORS & words_of(name)]


# ---- words -----------------------------------------------------------------------------------------------------------


def test_every_word_stands_once_in_the_glossary() -> None:
    rows = re.findall(r"^\| ([^|]+?) \|", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    words = [word.strip() for row in rows[1:] for word in row.split(",")]
    assert len(words) > 50 and sorted(words) == sorted(set(words))


# ---- the site --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site() -> Any:
    """docs/hooks.py, which MkDocs imports."""
    spec = spec_from_file_location("site_hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None and spec.loader is not None
    hooks = module_from_spec(spec)
    spec.loader.exec_module(hooks)
    return hooks


def leaves(nav: list[Any]) -> Iterator[str]:
    for entry in nav:
        for below in [entry] if isinstance(entry, str) else entry.values():
            yield from leaves(below) if isinstance(below, list) else [below]


def test_every_page_is_in_the_navigation_once(site: Any) -> None:
    """A new page in docs/ wants a line under nav: in mkdocs.yml."""
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    assert Counter(leaves(site.with_stars(nav, site.pages()))) == Counter(site.pages())
    assert all((ROOT / source).is_file() for source in site.ELSEWHERE.values())


def test_the_reference_has_every_public_name_once() -> None:
    shown = re.findall(r"^::: compress\.(\w+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    assert sorted(shown) == sorted(compress.__all__)


def test_the_reference_has_every_command(site: Any) -> None:
    page = site.commands()
    for name in ("prune", "bench", "serve-bench"):
        assert f"\n## compress {name}\n" in page
    assert "`--max-drop AMOUNT`" in page and page.count("\n## compress ") >= 20


def headings(site: Any, text: str) -> set[str]:
    """The anchors of a document's headings."""
    written = re.findall(r"^#+ +(.+?) *$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {site.anchor(re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)) for heading in written}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_to_headings_lead_to_one(site: Any, document: Path) -> None:
    text = document.read_text()
    for path, wanted in re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", text):
        target = (document.parent / path) if path else document
        assert wanted in headings(site, target.read_text()), (path, wanted)


def test_links_between_files_become_links_between_pages(site: Any) -> None:
    text = "[a](docs/tasks.md#outputs) [b](benchmarks/README.md) [c](Makefile) [d](#use) ![e](docs/equal-time.svg)"
    assert site.relinked(text, "index.md") == "[a](tasks.md#outputs) [b](benchmarks.md) c [d](#use) ![e](equal-time.svg)"
    assert site.relinked("[a](../tasks.md) [b](../../README.md)\n```\n[c](d)\n```", "adr/0012-tasks.md") == (
        "[a](../tasks.md) [b](../index.md)\n```\n[c](d)\n```"
    )
