"""The zoo: networks for small images, one family a file, every name written out.

A factory takes ``num_classes`` and, where it makes sense, ``in_channels`` and ``width`` (a factor on every layer's
channels), and returns an untrained ``nn.Module``. Torch is the only dependency, and is loaded when
a factory is asked for.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from compress_models.densenet import densenet40 as densenet40
    from compress_models.digits import digits_net as digits_net
    from compress_models.lenet5 import lenet as lenet
    from compress_models.mobilenet import mobilenetv2_cifar as mobilenetv2_cifar
    from compress_models.resnet import resnet20 as resnet20
    from compress_models.resnet import resnet20p as resnet20p
    from compress_models.resnet import resnet32 as resnet32
    from compress_models.resnet import resnet32p as resnet32p
    from compress_models.resnet import resnet44 as resnet44
    from compress_models.resnet import resnet44p as resnet44p
    from compress_models.resnet import resnet56 as resnet56
    from compress_models.resnet import resnet56p as resnet56p
    from compress_models.resnet import resnet110 as resnet110
    from compress_models.resnet import resnet110p as resnet110p
    from compress_models.vgg import vgg14 as vgg14


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a network before it is built.

    Attributes:
        module: its family's file.
        params: how many parameters it has with its factory's defaults; a test builds it and counts.
    """

    module: str
    params: int


CATALOGUE: Mapping[str, Entry] = MappingProxyType(
    {
        "vgg14": Entry("vgg", 14_724_042),
        "resnet20": Entry("resnet", 269_722),
        "resnet32": Entry("resnet", 464_154),
        "resnet44": Entry("resnet", 658_586),
        "resnet56": Entry("resnet", 853_018),
        "resnet110": Entry("resnet", 1_727_962),
        "resnet20p": Entry("resnet", 272_474),
        "resnet32p": Entry("resnet", 466_906),
        "resnet44p": Entry("resnet", 661_338),
        "resnet56p": Entry("resnet", 855_770),
        "resnet110p": Entry("resnet", 1_730_714),
        "mobilenetv2_cifar": Entry("mobilenet", 2_236_682),
        "densenet40": Entry("densenet", 1_019_722),
        "lenet": Entry("lenet5", 61_706),
        "digits_net": Entry("digits", 116_602),
    }
)
"""Name -> what is known of it. The factory bears the same name in its family's file."""


class _Zoo(Mapping[str, "Callable[..., nn.Module]"]):
    """The catalogue's factories; a family's file is loaded when one of its networks is asked for."""

    def __getitem__(self, name: str) -> Callable[..., nn.Module]:
        factory: Callable[..., nn.Module] = getattr(import_module(f"{__name__}.{CATALOGUE[name].module}"), name)
        return factory

    def __contains__(self, name: object) -> bool:
        return name in CATALOGUE

    def __iter__(self) -> Iterator[str]:
        return iter(CATALOGUE)

    def __len__(self) -> int:
        return len(CATALOGUE)


MODELS: Mapping[str, Callable[..., nn.Module]] = _Zoo()
"""Name -> factory."""

__all__ = ["CATALOGUE", "MODELS", "Entry", "summary", *CATALOGUE]


def summary(name: str) -> str:
    """The first sentence of a factory's docstring, without its full stop, read from the source."""
    source = Path(__file__).with_name(f"{CATALOGUE[name].module}.py").read_text(encoding="utf-8")
    factory = next(n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef) and n.name == name)
    return " ".join((ast.get_docstring(factory) or "").split()).partition(". ")[0].rstrip(".")


def __getattr__(name: str) -> Any:
    if name not in CATALOGUE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return MODELS[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *CATALOGUE})
