"""What a row of a published table is: where it stands, what was published, how it is repeated here, and what differs."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from compress.errors import ConfigError
from compress.pipeline import Job, make_job

FOLDER = Path(__file__).parent / "papers"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Part):
    """Where the row is published."""

    title: str
    authors: str
    where: str
    year: int = Field(ge=1990)
    row: str
    """The table's row in words."""


class Published(_Part):
    """What was published; fractions, None where the paper does not say or could not be obtained."""

    network: str
    data: str
    base: float | None = Field(None, gt=0, lt=1)
    pruned: float | None = Field(None, gt=0, lt=1)
    drop: float | None = Field(None, gt=-1, lt=1)
    """Accuracy lost; negative where it was won."""
    macs_removed: float | None = Field(None, gt=0, lt=1)
    params_removed: float | None = Field(None, gt=0, lt=1)
    note: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Published:
        told = None not in (self.base, self.pruned, self.drop)
        if told and abs((self.base or 0) - (self.pruned or 0) - (self.drop or 0)) > 1e-4:
            raise ValueError(f"base {self.base} - pruned {self.pruned} is not the drop {self.drop}")
        return self


class Count(_Part):
    """A figure that needs no training: the cost at a ratio of the widths."""

    architecture: str
    size: int = Field(ge=8)
    ratio: float = Field(gt=0, lt=1)
    streams: bool
    ignore: tuple[str, ...] = ()
    """Layers left whole, as ``--ignore`` does."""


class Protocol(_Part):
    """How the row is repeated here.

    ``prune`` runs, ``count`` counts, ``none`` says why neither is possible. Files are names, looked for in the folders that
    ``run.py`` is given.
    """

    kind: Literal["prune", "count", "none"]
    model: str = ""
    made_by: str = ""
    data: str = ""
    seeds: tuple[int, ...] = ()
    job: dict[str, Any] = Field(default_factory=dict)
    count: Count | None = None
    reason: str = ""

    @model_validator(mode="after")
    def _whole(self) -> Protocol:
        needed = {"prune": self.model and self.data and self.seeds and self.job, "count": self.count, "none": self.reason}
        if not needed[self.kind]:
            wanted = {"prune": "model, data, seeds and job", "count": "count", "none": "reason"}[self.kind]
            raise ValueError(f"a protocol of kind {self.kind} needs {wanted}")
        if "seed" in self.job:
            raise ValueError("seeds stand beside the job, not in it")
        return self


class PaperRow(_Part):
    """One file of ``benchmarks/papers``."""

    name: str
    method: str
    source: Source
    published: Published
    protocol: Protocol
    goal: str = ""
    differs: tuple[str, ...] = ()
    command: str

    def job(self, seed: int, **more: Any) -> Job:
        """What one run does."""
        flags = {**self.protocol.job, **{k: v for k, v in more.items() if v is not None}, "method": self.method}
        return make_job(flags={**flags, "seed": seed})

    def prune_command(self, seed: int = 0) -> str:
        """The same as one would type it."""
        job = dict(self.protocol.job)
        words = ["compress", "prune", self.protocol.model, "--data", self.protocol.data, "--method", self.method]
        words += [f"--{job.pop('target', 'macs').replace('_', '-')}", f"{job.pop('value'):g}"]
        for name in ("round_to", "budget", "epochs", "recover"):
            if name in job:
                words += [f"--{name.replace('_', '-')}", str(job.pop(name))]
        options = job.pop("options", {})
        for name, value in [*job.items(), *((f"options.{k}", v) for k, v in options.items())]:
            words += ["--set", f"{name}={str(value).lower() if isinstance(value, bool) else value}"]
        return shlex.join([*words, "--seed", str(seed)])

    def run_command(self) -> str:
        """What repeats the row, all its seeds."""
        return f"python benchmarks/run.py --only {self.name}"


def read(path: Path) -> PaperRow:
    """One row.

    Raises:
        ConfigError: it does not fit; the message names the entry.
    """
    try:
        return PaperRow.model_validate({"name": path.stem, **tomllib.loads(path.read_text(encoding="utf-8"))})
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        raise ConfigError(f"{path}: {where or 'row'}: {first['msg']}") from error


def read_all(folder: Path = FOLDER) -> Mapping[str, PaperRow]:
    """Every row by name."""
    return {path.stem: read(path) for path in sorted(folder.glob("*.toml"))}
