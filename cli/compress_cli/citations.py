"""What to cite: the BibTeX entries of ``references.bib``, and which of them a method stands on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

REFERENCES = Path(__file__).with_name("references.bib")
"""Beside this module, wherever that is installed."""


def entries(text: str) -> dict[str, str]:
    """Key -> BibTeX of a file whose entries each end with a brace on a line of its own."""
    return {found[1]: found[0] for found in re.finditer(r"^@\w+\{([^,\s]+),\n(?:.*\n)*?\}$", text, re.MULTILINE)}


CITATIONS: Mapping[str, str] = entries(REFERENCES.read_text(encoding="utf-8"))
"""Key -> BibTeX, in the file's order."""

OF_METHOD: Mapping[str, tuple[str, ...]] = {
    "auto": ("obs", "smoea", "nsga2", "pymoo"),
    "smoea": ("smoea", "nsga2", "pymoo"),
    "bicnn": ("bicnn", "cemba", "pymoo"),
    "cluster": ("cluster", "shade"),
    "csgd": ("csgd", "csgd2023"),
    "obs": ("obs",),
    "global": ("slimming",),
    "uniform": ("l1",),
}
"""Method -> what its search stands on; a test holds this equal to the methods there are."""

OF_EVERY_RUN = ("depgraph", "distillation")
"""Coupling and recovery; without data, ``deepinversion`` as well."""
