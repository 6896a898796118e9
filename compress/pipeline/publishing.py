"""A run's network for others: a folder as a hub has it, and that folder pushed to one.

Of a run's folder only the networks, the plan and the card go along. What tells of the machine (reports, journals, settings)
stays.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors import SafetensorError, safe_open

from compress.core import make_folder, version_of, write, write_json
from compress.errors import ConfigError
from compress.networks import Repository
from compress.report import Report, card_text, read_report, verified

_MODEL, _CONFIG, _CARD = "model.safetensors", "config.json", "README.md"
_TAKEN = ("model.onnx", "model.fp16.onnx", "model.int8.onnx", "plan.json")
_CARDS = ("model-card.md", "MODEL_CARD.md", "README.md")
"""Where a run's own card may lie."""
LIBRARY = "smaller-convnets"


def save_pretrained(run: str | Path, folder: str | Path) -> tuple[str, ...]:
    """Writes what others need of a finished run into a folder: :func:`compress.from_pretrained` reads it again.

    Args:
        run: the folder of a finished run.
        folder: made if needed; files of the same names are replaced.

    Returns:
        The names of the files: the network with its plan and how images are prepared (``model.safetensors``), the ONNX files
        that there are, the plan, ``config.json``, and the card as ``README.md``.

    Raises:
        ConfigError: the run is not finished, or its files are not those of its report.
    """
    run, folder = Path(run), Path(folder)
    if not (run / _MODEL).is_file():
        raise ConfigError(f"{run} has no {_MODEL}", hint="give the folder of a finished run")
    verified(run)
    report, about = read_report(run), _described(run / _MODEL)
    make_folder(folder, hint="choose another folder")
    taken = [_MODEL, *(name for name in _TAKEN if (run / name).is_file())]
    for name in taken:
        write(folder / name, (run / name).read_bytes())
    write_json(folder / _CONFIG, about)
    write(folder / _CARD, _card(run, report))
    return (*taken, _CONFIG, _CARD)


def push(run: str | Path, repository: str, *, private: bool = False, message: str = "") -> str:
    """Puts a finished run's network on a hub (:func:`save_pretrained`); the repository is made where there is none.

    Args:
        run: the folder of a finished run.
        repository: ``ORG/NAME``; ``ORG/NAME@BRANCH`` for a branch that exists.
        private: of a repository that is made.
        message: of the commit.

    Returns:
        The address of the commit.

    Raises:
        ConfigError: as for :func:`save_pretrained`.
        CheckpointError: huggingface_hub is not installed, or the hub refuses or cannot be reached.
    """
    place = Repository.of(repository)
    run = Path(run)
    with TemporaryDirectory() as made:
        save_pretrained(run, Path(made))
        return place.put(Path(made), private=private, message=message or f"{run.name}, by {LIBRARY}")


def _described(file: Path) -> dict[str, Any]:
    """What the network's own file says of it, for ``config.json``."""
    try:
        with safe_open(file, framework="numpy") as opened:
            header = json.loads((opened.metadata() or {})["compress"])
        found = {"architecture": header["architecture"], "preprocessing": header["preprocessing"], "digest": header["digest"]}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} is damaged: {error}", hint="copy the run again from where it was made") from error
    return {"library_name": LIBRARY, "library_version": version_of(LIBRARY) or "", **found}


def _card(run: Path, report: Report) -> str:
    """The run's own card; of runs of earlier versions, which have none, the card of their report."""
    for name in _CARDS:
        if (run / name).is_file():
            return (run / name).read_text(encoding="utf-8")
    return card_text(report)
