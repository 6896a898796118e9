"""Tiny networks that are called, and answer, in every way that people's networks are and do."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from support.nets import block, conv, head
from torch import Tensor, nn
from torch.nn import functional as F

Pair = namedtuple("Pair", "features logits")


@dataclass
class Answer:
    logits: Tensor
    features: Tensor
    name: str = "answer"


class Shared(nn.Module):
    """One encoder on two images, difference and concatenation."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem, self.body, self.out = block(3, width), block(width, 2 * width), conv(4 * width, 2, 1)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        a, b = self.body(self.stem(before)), self.body(self.stem(after))
        return self.out(torch.cat([a - b, a * b], 1))


class Two(nn.Module):
    """An image and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.vector, self.join, self.last = block(3, 8), nn.Linear(5, 6), nn.Linear(14, 12), nn.Linear(12, 4)

    def joined(self, image: Tensor, vector: Tensor) -> Tensor:
        return self.last(F.relu(self.join(torch.cat([self.image(image).mean((2, 3)), F.relu(self.vector(vector))], 1))))


class OfList(Two):
    def forward(self, parts: list[Tensor]) -> Tensor:
        return self.joined(*parts)


class OfDict(Two):
    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        return self.joined(batch["image"], batch["vector"])


class OfNested(Two):
    def forward(self, batch: Mapping[str, Any], *, scale: float = 1.0) -> Tensor:
        return scale * self.joined(batch["image"], batch["more"][0])


class OfKeywords(Two):
    def forward(self, image: Tensor, *, vector: Tensor, mask: Tensor | None = None) -> Tensor:
        out = self.joined(image, vector)
        return out if mask is None else out * mask


class OfWords(nn.Module):
    """An image and the numbers of words."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.image, self.last = nn.Embedding(7, 6), block(3, 8), nn.Linear(14, 4)

    def forward(self, image: Tensor, words: Tensor) -> Tensor:
        return self.last(torch.cat([self.image(image).mean((2, 3)), self.words(words).mean(1)], 1))


class Masked(nn.Module):
    """An image and a map of truth values."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.head = block(3, 8), block(8, 6), head(6)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        return self.head(self.body(self.stem(image) * mask))


class Noisy(nn.Module):
    """An image and how noisy it is: a number without a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.out = block(4, 8), block(8, 6), conv(6, 3)

    def forward(self, image: Tensor, sigma: Tensor) -> Tensor:
        level = sigma.reshape(1, 1, 1, 1).expand(image.shape[0], 1, *image.shape[2:])
        return image + self.out(self.body(self.stem(torch.cat([image, level], 1))))


class Answering(nn.Module):
    """One trunk, and an answer of any structure."""

    def __init__(self, answer: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.a, self.b, self.h, self.answer = block(3, 8), block(8, 6), head(6), answer

    def forward(self, x: Tensor) -> Any:
        y = self.b(self.a(x))
        return self.answer(self.h(y), y)


def image(count: int = 2, size: int = 8) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))


def vector() -> Tensor:
    return torch.randn(2, 5, generator=torch.Generator().manual_seed(7))


CALLED: Mapping[str, tuple[Callable[[], nn.Module], Any, tuple[str, ...]]] = {
    "two images": (Shared, (image(), image()), ("before", "after")),
    "two images by name": (Shared, {"after": image(), "before": image()}, ("after", "before")),
    "two images of odd width": (lambda: Shared(7), (image(size=6), image(size=6)), ("before", "after")),
    "a list": (OfList, [image(), vector()], ("parts_0", "parts_1")),
    "a tuple in a tuple": (OfList, ((image(), vector()),), ("parts_0", "parts_1")),
    "a dict": (OfDict, {"image": image(), "vector": vector()}, ("image", "vector")),
    "a dict with more": (OfNested, {"image": image(), "more": [vector(), 3, None, "text"]}, ("image", "more_0")),
    "keywords": (OfKeywords, (image(), {"vector": vector()}), ("image", "vector")),
    "keywords and None": (OfKeywords, {"image": image(), "vector": vector(), "mask": None}, ("image", "vector")),
    "three": (OfKeywords, {"image": image(), "vector": vector(), "mask": torch.ones(2, 4)}, ("image", "vector", "mask")),
    "whole numbers": (OfWords, (image(), torch.tensor([[0, 3, 6], [1, 2, 5]])), ("image", "words")),
    "truth values": (Masked, (image(), image().gt(0)[:, :1]), ("image", "mask")),
    "no batch": (Noisy, (image(), torch.tensor(0.1)), ("image", "sigma")),
    "one image": (lambda: Answering(lambda logits, y: logits), image(), ("input",)),
    "sound": (lambda: nn.Sequential(nn.Conv1d(2, 8, 3), nn.ReLU(), nn.Conv1d(8, 6, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
                                    nn.Linear(6, 3)), torch.randn(2, 2, 20), ("input",)),
    "a volume": (lambda: nn.Sequential(nn.Conv3d(1, 8, 3), nn.ReLU(), nn.Conv3d(8, 6, 3), nn.AdaptiveAvgPool3d(1), nn.Flatten(),
                                       nn.Linear(6, 3)), torch.randn(2, 1, 6, 7, 8), ("input",)),
    "six bands": (lambda: nn.Sequential(block(6, 8), block(8, 6), head(6)), torch.randn(2, 6, 9, 7), ("input",)),
}  # fmt: skip
"""name -> (network, example, names of the inputs of its ONNX file)."""

ANSWERS: Mapping[str, tuple[Callable[[Tensor, Tensor], Any], tuple[str, ...]]] = {
    "None and a number": (lambda logits, y: (logits, None, 3, 2.5, True, "text"), ("output_0",)),
    "None first": (lambda logits, y: (None, logits), ("output_1",)),
    "a scalar loss": (lambda logits, y: (logits, y.pow(2).mean()), ("output_0", "output_1")),
    "a scalar loss first": (lambda logits, y: (y.pow(2).mean(), logits), ("output_0", "output_1")),
    "truth values": (lambda logits, y: (logits, logits > 0), ("output_0", "output_1")),
    "nothing found": (lambda logits, y: (logits, y.new_zeros(0, 4)), ("output_0", "output_1")),
    "a namedtuple": (lambda logits, y: Pair(y, logits), ("features", "logits")),
    "a dataclass": (Answer, ("logits", "features")),
    "an ordered dict": (lambda logits, y: OrderedDict(out=logits, aux=y), ("out", "aux")),
    "dicts with the same keys": (
        lambda logits, y: {"a": {"x": logits}, "b": {"x": y}}, ("output_a_x", "output_b_x"),
    ),
    "a name that the input has": (lambda logits, y: {"input": logits}, ("output_input",)),
    "lists in a dict": (lambda logits, y: {"maps": [y, y + 1], "logits": logits}, ("maps_0", "maps_1", "logits")),
}  # fmt: skip
"""name -> (what is made of logits and features, names of the outputs of its ONNX file)."""


def statistics(model: nn.Module) -> nn.Module:
    """The network with batch norms that are no identities, in evaluation mode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias, 0.3)
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.1, 0.5)
    return model.eval()


def called(name: str) -> tuple[nn.Module, Any, tuple[str, ...]]:
    make, example, names = CALLED[name]
    torch.manual_seed(0)
    return statistics(make()), example, names


def answering(name: str) -> tuple[nn.Module, tuple[str, ...]]:
    answer, names = ANSWERS[name]
    torch.manual_seed(0)
    return statistics(Answering(answer)), names
