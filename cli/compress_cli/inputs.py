"""Where a network and its images come from: the options that say so, and a run's memory of them."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.errors import ConfigError
from compress_cli import options as o

if TYPE_CHECKING:
    from compress.data import Data, Preprocessing
    from compress.networks import Loaded, Network

INPUTS = "inputs.json"
"""Beside a run's files: what the command line was given, so that ``pick`` needs not be told again."""

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

    def network(self) -> tuple[Loaded, Preprocessing]:
        """The network and how its images are prepared: options over the file's own record over the architecture's preset.

        Raises:
            CompressError: the file, the architecture or an option cannot be used.
        """
        from compress_cli.loading import numbers, resolve

        size, mean, std = numbers("size", self.size), numbers("mean", self.mean), numbers("std", self.std)
        loaded = self._loaded()
        return loaded, resolve(loaded, size, mean, std)

    def _loaded(self) -> Loaded:
        from compress_models import MODELS

        from compress.networks import load
        from compress_cli.console import warn

        loaded = load(self.model, zoo=MODELS, arch=self.arch, trust_pickle=self.trust_pickle, weights=self.weights)
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
            loaded, prepared = self.network()
            classes_of(loaded.model, prepared.shape)  # says so where it does not take images of this size
            return network_from(loaded, preprocessing=prepared, name=name), loaded
        if self.size is not None:
            raise ConfigError("--size and --example both say what the network takes", hint="leave one of them out")
        example, loaded = example_from(self.example), self._loaded()
        network = network_from(loaded, name=name, example=example, preprocessing=self._prepared(loaded, example))
        return network, loaded

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
        from compress_cli.loading import classes_of

        if network.preprocessing is None:
            return None
        return self.images(network.preprocessing, classes_of(network.model, network.shape), seed)

    def remember(self, folder: Path) -> None:
        """Writes itself into a run's folder, its paths relative to that folder, so that the tree may move."""
        from compress.core import write_json

        kept = {k: _relative(v, folder) if k in _PATHS else v for k, v in asdict(self).items()}
        write_json(folder / INPUTS, kept)

    def code(self) -> str:
        """What of the user's own code opening them runs; empty for none."""
        from compress.core import is_entrypoint
        from compress.data import TORCHVISION
        from compress.networks import Architecture

        if self.arch is not None and Architecture(self.arch).runs_user_code:
            return f"imports the network's {self.arch}"
        if self.example is not None:
            return f"imports the example's {self.example}"
        source = self.data or ""
        if is_entrypoint(source) and source.partition(":")[0] not in TORCHVISION and not Path(source).exists():
            return f"imports the images' {source}"
        return "unpickles the network" if self.trust_pickle else ""

    @staticmethod
    def of(folder: Path) -> Inputs:
        """Those of a run, as from a stranger.

        Raises:
            ConfigError: the folder has none.
        """
        from compress.core import read_json

        again = "give the folder of a finished run, or add --model FILE"
        try:
            kept = read_json(folder / INPUTS, hint=again)
            found = Inputs(**{**kept, **{k: _absolute(kept[k], folder) for k in _PATHS}})
            if all(isinstance(v, (bool,) if k in _SWITCHES else str | None) for k, v in asdict(found).items()):
                return found
            raise TypeError
        except (ConfigError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(f"{folder} does not say which network it is of", hint=again) from error


def _relative(text: str | None, folder: Path) -> str | None:
    return f"./{os.path.relpath(text, folder)}" if text is not None and Path(text).exists() else text


def _absolute(text: str | None, folder: Path) -> str | None:
    return os.path.normpath(folder / text) if text is not None and text.startswith("./") else text


def stem(model: str) -> str:
    """A run's name from a file's."""
    return Path(model).name.removesuffix("".join(Path(model).suffixes[-1:])) or "model"


def seed_of(run: Path) -> int:
    """The run's seed divided its images, too."""
    from compress.core import read_json

    again = "give the folder of a finished run"
    kept = read_json(run / "job.json", hint=again)
    try:
        return int(kept["job"]["seed"])
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ConfigError(f"{run} holds no run", hint=again) from error
