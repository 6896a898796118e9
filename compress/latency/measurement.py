"""A measurement as one JSON file: results with every raw sample, and which bytes were measured.

``compress bench --out``, a bench kit on another machine, ``compress compare`` and ``compress report --import`` share it::

    {"format": "smaller-convnets latency", "version": 1,
     "kit": "1c0f...",                         the kit's identity; "" where no kit was used
     "files": {"base": {"name": "base.onnx", "sha256": "...", "bytes": 47, "precision": "fp32"},
               "pruned.onnx": {...}},
     "results": [LatencyResult.to_json(), ...],   one per runtime, batch and transfer
     "skipped": ["ort-cuda, batch 8: this machine has no NVIDIA GPU ..."]}

``files`` is keyed by arm. Needs NumPy only.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compress.core import file_inside
from compress.errors import ConfigError, ModelError
from compress.latency.result import LatencyResult

FORMAT, VERSION = "smaller-convnets latency", 1
AGAIN = "measure with: compress bench ... --out FILE.json"
LARGEST = 256 * 2**20  # bytes: no measurement is that long
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class MeasuredFile:
    """Which bytes an arm was.

    Attributes:
        name: the file's own name, without folders.
        sha256: of the file itself; weights in a second file do not count, and speed does not depend on them.
        precision: ``fp32``, ``fp16``, ``bf16``, ``int8``; empty where unknown.
        tensors: the digest of the tensors that a network's file holds (``compress.networks.file_state_digest``): such a file
            is written anew where it is measured. Empty for ONNX files.
    """

    name: str
    sha256: str
    bytes: int
    precision: str = ""
    tensors: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {name: value for name, value in asdict(self).items() if name != "tensors" or value}


@dataclass(frozen=True, slots=True)
class Measurement:
    """Everything that one ``bench`` measured.

    Attributes:
        results: one per runtime, batch and transfer.
        files: arm -> the file behind it; the base under ``base``.
        kit: the identity of the bench kit; empty where none was used.
        skipped: what was asked for and could not be measured, and why.
    """

    results: tuple[LatencyResult, ...]
    files: Mapping[str, MeasuredFile]
    kit: str = ""
    skipped: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "kit": self.kit,
            "files": {arm: file.to_json() for arm, file in self.files.items()},
            "results": [result.to_json() for result in self.results],
            "skipped": list(self.skipped),
        }

    @staticmethod
    def from_json(facts: Any) -> Measurement:
        """What :meth:`to_json` wrote.

        Raises:
            ConfigError: it is something else, of another version, or damaged; measure again.
        """
        if not isinstance(facts, Mapping) or facts.get("format") != FORMAT:
            raise ConfigError("this JSON holds no latency measurement", hint=AGAIN)
        if facts.get("version") != VERSION:
            raise ConfigError(f"the measurement has version {facts.get('version')}, {VERSION} is wanted", hint=AGAIN)
        try:
            files = {str(arm): MeasuredFile(**_file(file)) for arm, file in facts["files"].items()}
            results = tuple(LatencyResult.from_json(result) for result in facts["results"])
            kit, skipped = str(facts["kit"]), tuple(map(str, facts["skipped"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"the measurement is damaged: {type(error).__name__}: {error}", hint=AGAIN) from error
        for result in results:
            wanted = ["base", "base again", *result.ratios]
            if [arm.name for arm in result.arms] != wanted or {"base", *result.ratios} - set(files):
                raise ConfigError("the measurement is damaged: its arms, ratios and files do not belong together", hint=AGAIN)
        return Measurement(results, files, kit, skipped)


def read_measurement(path: Path) -> Measurement:
    """The measurement in a file.

    Raises:
        ConfigError: there is none; see :meth:`Measurement.from_json`.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ConfigError(f"{path} has more than {LARGEST:,} bytes, a measurement has fewer", hint=AGAIN)
        facts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist", hint=AGAIN) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}", hint=AGAIN) from error
    try:
        return Measurement.from_json(facts)
    except ConfigError as error:
        error.met_in(path)
        raise


def identify(path: Path, *, precision: str = "") -> MeasuredFile:
    """Name, digest and size of a file.

    Raises:
        ModelError: it cannot be read; give the path of an exported file.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return MeasuredFile(name=path.name, sha256=digest, bytes=path.stat().st_size, precision=precision)
    except OSError as error:
        hint = file_inside(path, (".onnx",), "give the path of an exported .onnx file")
        raise ModelError(f"{path} cannot be read: {error.strerror}", hint=hint) from error


def _file(facts: Mapping[str, Any]) -> dict[str, Any]:
    if not _SHA256.fullmatch(facts["sha256"]):
        raise ValueError(f"{facts['sha256']!r} is no SHA-256")
    texts = {name: str(facts[name]) for name in ("name", "sha256", "precision")} | {"tensors": str(facts.get("tensors", ""))}
    return texts | {"bytes": int(facts["bytes"])}
