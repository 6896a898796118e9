"""Where a network and its images come from: the options that say so, and a run's memory of them."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.errors import ConfigError
from compress_cli import options as o

if TYPE_CHECKING:
    from compress.data import Data, Preprocessing
    from compress.networks import Loaded, Network
    from compress.tasks import Task

INPUTS = "inputs.json"
"""Beside a run's files: what the command line was given, so that ``pick`` needs not be told again."""

JOB = "job.json"
"""The settings of a run, beside it."""

_SUFFIXES = (".pt", ".pth", ".th", ".bin", ".ckpt", ".safetensors", ".onnx")
_PATHS = ("model", "data", "labels")
_SWITCHES = ("trust_pickle", "download")


@dataclass(frozen=True, slots=True)
class Inputs:
    """Where a network and its images come from, as typed."""

    model: o.Model
    data: o.DataSource = None
    labels: o.Labels = "sorted"
    download: o.Download = False
    arch: o.Arch = None
    trust_pickle: o.TrustPickle = False
    weights: o.Weights = None
    size: o.Size = None
    example: o.Example = None
    mean: o.Mean = None
    std: o.Std = None
    task: o.TaskName = None

    def network(self) -> tuple[Loaded, Preprocessing]:
        """The network and how its images are prepared: options over the file's own record over the architecture's preset.

        Raises:
            CompressError: the file, the architecture or an option cannot be used.
        """
        loaded = self._loaded()
        return loaded, self._resolved(loaded)

    def _resolved(self, loaded: Loaded) -> Preprocessing:
        from compress.data import given_preprocessing
        from compress_cli.loading import numbers, own_code, resolve

        size, source = numbers("size", self.size), self.data
        if size is None and loaded.preprocessing is None and source is not None and own_code(source):
            loaded = replace(loaded, preprocessing=given_preprocessing(source))  # used as they are, so they say their size
        return resolve(loaded, size, numbers("mean", self.mean), numbers("std", self.std))

    def _loaded(self) -> Loaded:
        from compress_models import MODELS

        from compress.networks import load
        from compress_cli.console import warn
        from compress_cli.loading import numbers

        sides = numbers("size", self.size)
        loaded = load(
            self.model,
            zoo=MODELS,
            arch=self.arch,
            trust_pickle=self.trust_pickle,
            weights=self.weights,
            size=None if sides is None else tuple(int(side) for side in sides),
        )
        for warning in loaded.warnings:
            warn(warning)
        return loaded

    def images(self, preprocessing: Preprocessing, classes: int | None, seed: int) -> Data | None:
        """The images, if any were named."""
        from compress_cli.loading import load_data

        return load_data(self.data, preprocessing, classes, labels=self.labels, seed=seed, download=self.download)

    def open(self, seed: int) -> tuple[Network, Data | None]:
        """Reads the network and lists the images."""
        network, _ = self.opened(stem(self.model))
        return network, self.images_of(network, seed)

    def opened(self, name: str = "") -> tuple[Network, Loaded]:
        """The network as it is called, having been called once; and the file it came from.

        Raises:
            CompressError: the file, the architecture or an option cannot be used, or the network does not run on its inputs.
        """
        from compress.networks import network_from
        from compress_cli.loading import classes_of, example_from

        if self.example is None:
            loaded = self._loaded()
            if loaded.example is not None:  # the file itself says what it takes
                return network_from(loaded, name=name), loaded
            prepared = self._resolved(loaded)
            classes_of(loaded.model, prepared.shape)  # says so where it does not take images of this size
            return network_from(loaded, preprocessing=prepared, name=name, task=self._purpose()), loaded
        if self.size is not None:
            raise ConfigError("--size and --example both say what the network takes", hint="leave one of them out")
        example, loaded = example_from(self.example), self._loaded()
        of_images = self._prepared(loaded, example)
        network = network_from(loaded, name=name, example=example, preprocessing=of_images, task=self._purpose())
        return network, loaded

    def _purpose(self) -> Task | None:
        """The task that was typed; what a run remembers of the user's own code was typed again (see :meth:`of`)."""
        from compress.tasks import task_named

        return None if self.task is None else task_named(self.task)

    def _prepared(self, loaded: Loaded, example: Any) -> Preprocessing | None:
        """How images of an example's shape are prepared, where the example is of images."""
        from compress_cli.loading import numbers, resolve, shape_of

        mean, std, shape = numbers("mean", self.mean), numbers("std", self.std), shape_of(example)
        if shape is None:
            if mean is not None or std is not None or self.data is not None:
                raise ConfigError(
                    "--data, --mean and --std are of images, the example is of something else", hint="leave them out"
                )
            return None
        return resolve(loaded, tuple(float(side) for side in shape[1:]), mean, std, channels=shape[0])

    def images_of(self, network: Network, seed: int) -> Data | None:
        """The images for a network, if any were named."""
        from compress.data import NoSuchTargets
        from compress_cli.loading import classes_of

        if network.preprocessing is None:
            return None
        task, classes = network.task, classes_of(network.model, network.shape)
        if (task is None and classes == 1) or (task is not None and not task.logit_per_class):
            classes = None  # there is no output a class
        kinds = () if task is None or self.data is None else task.targets
        if len(kinds) == 1 and kinds[0] != "classes" and self.labels == "sorted":  # what the task is for goes before the layout
            with suppress(NoSuchTargets):
                return replace(self, labels=kinds[0]).images(network.preprocessing, classes, seed)
        return self.images(network.preprocessing, classes, seed)

    def remember(self, folder: Path) -> None:
        """Writes itself into a run's folder: its paths relative to that folder, so that the tree may move, and where they lay;
        and the digest of the network's file, so that it is known again elsewhere."""
        from compress.core import write_json

        given = {k: v for k in _PATHS if (v := getattr(self, k)) is not None and Path(v).exists()}
        kept: dict[str, object] = asdict(self) | {k: f"./{os.path.relpath(v, folder)}" for k, v in given.items()}
        kept["places"] = {k: str(Path(v).absolute()) for k, v in given.items()}
        kept["sha256"] = _digest(Path(self.model))
        write_json(folder / INPUTS, kept)

    def code(self) -> str:
        """What of the user's own code opening them runs; empty for none."""
        from compress.networks import Architecture
        from compress_cli.loading import own_code

        if self.arch is not None and Architecture(self.arch).runs_user_code:
            return f"imports the network's {self.arch}"
        if self.example is not None:
            return f"imports the example's {self.example}"
        source = self.data or ""
        if own_code(source):
            return f"imports the images' {source}"
        return "unpickles the network" if self.trust_pickle else ""

    @staticmethod
    def of(folder: Path, given: Inputs | None = None, *, network: bool = True) -> Inputs:
        """Those of a run, as from a stranger: nothing in them runs code or fetches anything unless the user says so now.

        Args:
            folder: the run's.
            given: what the user says now, which goes before what the run remembers: model (where it is not the folder itself),
                weights, images; and it alone may allow unpickling, importing and downloading.
            network: whether the unpruned network is needed, and looked for in the usual places; else the run's own files do.

        Raises:
            ConfigError: it has none, its files are not those of its report, its network is not found, or it would run code.
        """
        from compress.report import verified

        verified(folder)
        kept, places, digest = _kept(folder)
        said = given or Inputs(model="")
        found = replace(
            kept,
            data=_placed(kept.data, places.get("data"), folder),
            labels=_placed(kept.labels, places.get("labels"), folder) or "sorted",
            download=said.download,
            trust_pickle=said.trust_pickle,
            weights=said.weights or kept.weights,
        )
        if said.data is not None:
            found = replace(found, data=said.data, labels=said.labels)
        found = replace(found, task=_remembered(kept.task, said.task, folder) if network else None)
        used = replace(found, trust_pickle=kept.trust_pickle and network and not said.model)
        if not network and kept.example is not None:  # its ONNX file says itself what it takes
            used = replace(used, arch=None, example=None, data=None)
        code = used.code()
        if code and not said.trust_pickle:
            raise ConfigError(
                f"the run in {folder} {code}, which could run any code", hint="if it is your own, add --trust-pickle"
            )
        if said.model:
            return replace(found, model=said.model)
        return replace(found, model=_network(kept.model, places.get("model"), digest, folder)) if network else found

    @staticmethod
    def again(config: Path | None, given: Inputs) -> Inputs:
        """Those of the run whose job is repeated, where no network was typed; what was typed goes before what it remembers.

        Raises:
            UsageError: the settings are not those of a run.
            ConfigError: as for :meth:`of`.
        """
        from compress_cli.console import UsageError

        if config is None or config.name != JOB:
            raise UsageError("no network is given", hint="compress prune MODEL, or repeat a run: --config RUN/job.json")
        found = Inputs.of(config.parent, given)
        typed = {name: getattr(given, name) for name in ("arch", "size", "example", "mean", "std")}
        return replace(found, **{name: value for name, value in typed.items() if value is not None})


def _remembered(kept: str | None, said: str | None, folder: Path) -> str | None:
    """The task of a run: as said now, else as it remembers it, where that is one of ours.

    Raises:
        ConfigError: it remembers one of the user's own, which nobody but the user names.
    """
    from compress.tasks import built_in

    if said is not None or kept is None or built_in(kept):
        return said if said is not None else kept
    raise ConfigError(
        f"the run in {folder} is of a task of your own, {kept}: code that a folder names is not imported",
        hint=f"name it again, if it is yours: --task {kept}",
    )


def _kept(folder: Path) -> tuple[Inputs, dict[str, str], str]:
    """What a run remembers: as typed, where its files lay, and the digest of its network's file (empty if it is not known)."""
    from compress.core import read_json

    again = "give the folder of a finished run, or add --model FILE"
    try:
        kept = read_json(folder / INPUTS, hint=again)
        places, digest = kept.pop("places", {}), kept.pop("sha256", "")
        found = Inputs(**kept)
        right = all(isinstance(v, (bool,) if k in _SWITCHES else str | None) for k, v in asdict(found).items())
        if not right or not isinstance(found.model, str) or not isinstance(digest, str):
            raise TypeError
        return found, {k: v for k, v in dict(places).items() if isinstance(v, str)}, digest
    except (ConfigError, TypeError, KeyError, AttributeError, ValueError) as error:
        raise ConfigError(f"{folder} does not say which network it is of", hint=again) from error


def _placed(text: str | None, place: str | None, folder: Path) -> str | None:
    """Where images or labels lie now: as the run says from its own folder, where they lay, or beside it; else as typed."""
    if text is None or not text.startswith("./"):
        return text
    return next((str(p) for p in _places(text, place, folder) if p.exists()), os.path.normpath(folder / text))


def _places(text: str, place: str | None, folder: Path) -> list[Path]:
    name = Path(text).name
    usual = [Path(os.path.normpath(folder / text)), *([Path(place)] if place else [])]
    if name not in ("", ".", ".."):
        usual += [folder / name, folder.absolute().parent / name, Path(name)]
    return list(dict.fromkeys(usual))


def _network(text: str, place: str | None, digest: str, folder: Path) -> str:
    """The file of the unpruned network, known again by its digest, in the usual places.

    Raises:
        ConfigError: it is in none of them; the message says what is there instead.
    """
    from compress.networks import is_remote

    if is_remote(text):
        raise ConfigError(
            f"{folder} was made from {text}, and what a folder names is not fetched",
            hint=f"name it yourself, as MODEL or with --model {text}",
        )
    places = _places(text, place, folder)
    there = [p for p in places if p.is_file()]
    for path in there:
        if not digest or _digest(path) == digest:
            return str(path)
    looked = ", ".join(map(str, places[:4]))
    if there:
        seen = f"{there[0]} has SHA-256 {_digest(there[0])[:16]}..., that network's file had {digest[:16]}..."
    else:
        seen = f"it is not at {looked}"
    raise ConfigError(f"the network that {folder} was made from is not found: {seen}", hint="say where it is: --model FILE")


def _digest(path: Path) -> str:
    """SHA-256 of an ordinary file; empty for anything else."""
    import hashlib

    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def stem(model: str) -> str:
    """A run's name from a file's, or a source's."""
    from compress.networks import is_remote, short_name

    if is_remote(model):
        model = short_name(model)
        return model if Path(model).suffix not in _SUFFIXES else Path(model).stem
    return Path(model).name.removesuffix("".join(Path(model).suffixes[-1:])) or "model"


def seed_of(run: Path) -> int:
    """The run's seed divided its images, too."""
    from compress.core import read_json

    again = "give the folder of a finished run"
    kept = read_json(run / JOB, hint=again)
    try:
        return int(kept["job"]["seed"])
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ConfigError(f"{run} holds no run", hint=again) from error
