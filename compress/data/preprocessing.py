"""From an image to what the network was trained on: sizes, mean and standard deviation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compress.errors import DataError

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
LARGEST_SIDE = 4096


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How an image, or another sample of channels over one to three dimensions, becomes the network's input.

    Attributes:
        mean: per channel, of pixels scaled to [0, 1]; its length is the number of channels (1 reads grey images).
        std: per channel.
        size: height and width of the input, pixels; a length alone of sounds and the like, depth, height and width of volumes.
        resize: the short side before a centre crop of ``size``; without it, other sizes are squeezed to ``size``.
        interpolation: one of ``nearest``, ``bilinear``, ``bicubic``, ``lanczos``.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, ...]
    resize: int | None = None
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(float(m) for m in self.mean))
        object.__setattr__(self, "std", tuple(float(s) for s in self.std))
        object.__setattr__(self, "size", tuple(int(side) for side in self.size))
        if not 1 <= len(self.size) <= 3:
            raise DataError(
                f"pre-processing: {len(self.size)} sizes; a length, height and width, or depth, height and width are wanted",
                hint="give as many --size values as the network's inputs have dimensions",
            )
        if len(self.mean) != len(self.std) or not 1 <= len(self.mean) <= 64:
            raise DataError(
                f"pre-processing: {len(self.mean)} means and {len(self.std)} standard deviations; one of each per channel",
                hint="give as many --mean values as --std values",
            )
        if not all(math.isfinite(v) for v in (*self.mean, *self.std)) or min(self.std) <= 0:
            raise DataError(f"pre-processing: std {self.std} must be positive and mean {self.mean} finite")
        sides = (*self.size, *(() if self.resize is None else (self.resize,)))
        largest = LARGEST_SIDE if len(self.size) > 1 else LARGEST_SIDE**2
        if not all(1 <= side <= largest for side in sides):
            raise DataError(f"pre-processing: sizes {sides} must be between 1 and {largest} {self._unit}")
        if self.resize is not None and len(self.size) != 2:
            raise DataError(f"pre-processing: resizing to {self.resize} is for images", hint="leave resize out")
        if self.resize is not None and self.resize < max(self.size):
            raise DataError(
                f"pre-processing: resizing to {self.resize} leaves no room for a crop of {self.size}",
                hint=f"resize to at least {max(self.size)}, or leave it out",
            )
        if self.interpolation not in INTERPOLATIONS:
            raise DataError(f"pre-processing: interpolation {self.interpolation!r} is none of {', '.join(INTERPOLATIONS)}")

    @property
    def _unit(self) -> str:
        return "samples" if len(self.size) == 1 else "pixels"

    @property
    def channels(self) -> int:
        """Channels of the network's input."""
        return len(self.mean)

    @property
    def shape(self) -> tuple[int, ...]:
        """One image as the network sees it: (channels, height, width); of other samples, (channels, *size)."""
        return (self.channels, *self.size)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form."""
        return {
            "mean": list(self.mean),
            "std": list(self.std),
            "size": list(self.size),
            "resize": self.resize,
            "interpolation": self.interpolation,
        }

    @staticmethod
    def from_json(data: Any) -> Preprocessing:
        """Reads what :meth:`to_json` wrote.

        Raises:
            DataError: it is something else.
        """
        try:
            size = tuple(data["size"])
            resize = data.get("resize")
            return Preprocessing(
                mean=tuple(data["mean"]),
                std=tuple(data["std"]),
                size=size,
                resize=None if resize is None else int(resize),
                interpolation=str(data.get("interpolation", "bilinear")),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DataError(f"not a description of pre-processing: {error!r}") from error


_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET = Preprocessing(mean=_MEAN, std=_STD, size=(224, 224), resize=256)
CIFAR = Preprocessing(mean=_MEAN, std=_STD, size=(32, 32))
DIGITS = Preprocessing(mean=(0.5,), std=(0.5,), size=(8, 8))
PRESETS: Mapping[str, Preprocessing] = {"imagenet": IMAGENET, "cifar": CIFAR, "digits": DIGITS}


def preset_for(architecture: str, example_shape: Sequence[int] | None = None) -> Preprocessing:
    """What networks of this name are usually trained on.

    torchvision's and timm's own records are used where there are any; a small input means the CIFAR preset at that
    size; everything else is ImageNet's.

    Args:
        architecture: e.g. ``"resnet20"`` or ``"torchvision:resnet50"``.
        example_shape: (channels, height, width) of one input, where known.
    """
    library, _, name = architecture.rpartition(":")
    finder = {"torchvision": _torchvision, "timm": _timm}.get(library)
    recorded = finder(name) if finder is not None else None
    if recorded is not None and (example_shape is None or tuple(example_shape) == recorded.shape):
        return recorded
    if example_shape is None:
        small = {"digits_net": DIGITS, "lenet": Preprocessing(mean=(0.5,), std=(0.5,), size=(28, 28))}
        return small.get(name, CIFAR if not library else IMAGENET)
    channels, height, width = example_shape
    if channels == 1:
        return Preprocessing(mean=(0.5,), std=(0.5,), size=(height, width))
    mean, std = (_MEAN, _STD) if channels == 3 else ((0.5,) * channels, (0.5,) * channels)
    resize = round(max(height, width) * 256 / 224) if max(height, width) > 64 else None
    return Preprocessing(mean=mean, std=std, size=(height, width), resize=resize)


def _torchvision(name: str) -> Preprocessing | None:
    from torchvision import models

    try:
        weights = list(models.get_model_weights(name))
    except ValueError:
        return None
    if not weights:
        return None
    preset = weights[0].transforms()  # of the oldest weights: later ones were trained at 176 and tested at 232 pixels
    try:
        crop, resize = int(preset.crop_size[0]), int(preset.resize_size[0])
        found = str(getattr(preset.interpolation, "value", "bilinear"))
        return Preprocessing(
            mean=tuple(preset.mean), std=tuple(preset.std), size=(crop, crop), resize=max(resize, crop), interpolation=found
        )
    except (AttributeError, TypeError, IndexError):
        return None


def _timm(name: str) -> Preprocessing | None:
    try:
        import timm
    except ImportError:
        return None
    config = timm.get_pretrained_cfg(name)
    if config is None:
        return None
    _, height, width = config.input_size
    resize = max(math.floor(height / config.crop_pct), height, width)
    kind = config.interpolation if config.interpolation in INTERPOLATIONS else "bicubic"
    return Preprocessing(
        mean=tuple(config.mean), std=tuple(config.std), size=(height, width), resize=resize, interpolation=kind
    )
