"""Images made larger or smaller, in the ways that torch has, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.importing.node import Made, Maker, Node
from compress.importing.sizes import listed

_MODES: Mapping[tuple[str, int], str] = {
    ("linear", 1): "linear", ("linear", 2): "bilinear", ("linear", 3): "trilinear", ("cubic", 2): "bicubic",
}  # fmt: skip
_LARGEST = 64.0
"""Times a side may grow."""


class Resized(nn.Module):
    """Another height and width.

    Attributes:
        scales: of the sides; None where sizes are given, constant or computed.
        sizes: of the sides; None where they are computed.
    """

    def __init__(self, mode: str, corners: bool | None, scales: Sequence[float] | None, sizes: Sequence[int] | None) -> None:
        super().__init__()
        self.mode, self.corners = mode, corners
        self.scales = None if scales is None else list(scales)
        self.sizes = None if sizes is None else list(sizes)

    def forward(self, x: Tensor, sizes: Any = None) -> Tensor:
        """The image in its new size."""
        options: dict[str, Any] = {"mode": self.mode}
        if self.corners is not None:
            options["align_corners"] = self.corners
        if self.scales is not None:
            return functional.interpolate(x, scale_factor=self.scales, **options)
        wanted = self.sizes if sizes is None else listed(sizes)[2:]
        return functional.interpolate(x, size=wanted, **options)


class ScaledByComputed(nn.Module):
    """Another height and width, by factors that were computed of shapes."""

    def __init__(self, mode: str, corners: bool | None) -> None:
        super().__init__()
        self.mode, self.corners = mode, corners

    def forward(self, x: Tensor, scales: Any) -> Tensor:
        """The image in its new size."""
        factors = list(scales.reshape(-1))[2:]
        size = [torch.sym_int(x.shape[2 + i] * factor) for i, factor in enumerate(factors)]
        options: dict[str, Any] = {"align_corners": self.corners} if self.corners is not None else {}
        return functional.interpolate(x, size=size, mode=self.mode, **options)


def resize(node: Node) -> Made:
    """``Resize`` and ``Upsample``."""
    count = node.rank() - 2
    scaled, sized = (1, 3) if node.opset < 11 or node.kind == "Upsample" else (2, 3)
    if count < 1 or int(node.attribute("exclude_outside", 0)) or int(node.attribute("antialias", 0)):
        raise node.refused("resizes in a way that is not known here (antialias, exclude_outside)")
    if node.attribute("keep_aspect_ratio_policy", "stretch") != "stretch" or node.attribute("axes") is not None:
        raise node.refused("resizes some axes, or keeps a ratio")
    factors = _factors(node, scaled, count)
    by_size = factors is None and node.has(sized) and node.shape(sized) != (0,)
    mode, corners = _mode(node, count, factors, computed=by_size and node.computed(sized))
    if factors is not None:
        return Made(module=Resized(mode, corners, factors, None))
    if by_size and node.computed(sized):
        return Made(module=Resized(mode, corners, None, None), takes=(0, sized))
    if by_size:
        found = node.constant(sized)
        assert found is not None
        sizes = [int(n) for n in found.reshape(-1)]
        if len(sizes) != count + 2 or any(n < 1 for n in sizes):
            raise node.refused(f"has the sizes {sizes[:8]}")
        return Made(module=Resized(mode, corners, None, sizes[2:]))
    if node.sizes(scaled):
        return Made(module=ScaledByComputed(mode, corners), takes=(0, scaled))
    raise node.refused("computes its size from values")


def _factors(node: Node, place: int, count: int) -> list[float] | None:
    held = node.attribute("scales")
    if held is None and (constant := node.constant(place)) is not None and constant.size:
        held = constant.reshape(-1).tolist()
    if held is None:
        return None
    if len(held) != count + 2 or list(held[:2]) != [1.0, 1.0] or any(not 1 / _LARGEST <= f <= _LARGEST for f in held):
        raise node.refused(f"scales by {[round(float(f), 3) for f in held][:8]}")
    return [float(f) for f in held[2:]]


def _mode(node: Node, count: int, factors: Sequence[float] | None, *, computed: bool) -> tuple[str, bool | None]:
    """torch's name of the mode, and whether corners are aligned.

    Raises:
        ImportRefused: torch has none that does the same.
    """
    mode = str(node.attribute("mode", "nearest"))
    where = str(node.attribute("coordinate_transformation_mode", "half_pixel" if node.opset >= 11 else "asymmetric"))
    if mode == "nearest":
        rounding = str(node.attribute("nearest_mode", "round_prefer_floor" if node.opset >= 11 else "floor"))
        if where == "asymmetric" and rounding == "floor":
            return "nearest", None
        whole = factors is not None and all(f == int(f) for f in factors)
        twice = factors is not None and all(f in (1.0, 2.0) for f in factors)
        if where == "asymmetric" and rounding == "round_prefer_floor" and twice:
            return "nearest", None
        if where in ("half_pixel", "pytorch_half_pixel") and rounding.startswith("round") and (whole or computed):
            return "nearest" if whole else "nearest-exact", None
        raise node.refused(f"takes the nearest pixel by {where}, {rounding}")
    found = _MODES.get((mode, count))
    if found is None or where not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        raise node.refused(f"interpolates by {mode}, {where} in {count} dimensions")
    if mode == "cubic" and abs(float(node.attribute("cubic_coeff_a", -0.75)) + 0.75) > 1e-6:
        raise node.refused("interpolates by another cubic than torch's")
    return found, where == "align_corners"


class Sampled(nn.Module):
    """Pixels at computed places."""

    def __init__(self, mode: str, padding: str, corners: bool) -> None:
        super().__init__()
        self.mode, self.padding, self.corners = mode, padding, corners

    def forward(self, x: Tensor, grid: Tensor) -> Tensor:
        """What stands there."""
        return functional.grid_sample(x, grid, self.mode, self.padding, self.corners)


def grid_sample(node: Node) -> Made:
    """``GridSample``."""
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(m := str(node.attribute("mode", "linear")), m)
    padding = str(node.attribute("padding_mode", "zeros"))
    if mode not in ("bilinear", "nearest", "bicubic") or padding not in ("zeros", "border", "reflection"):
        raise node.refused(f"samples by {mode[:20]}, {padding[:20]}")
    if not node.computed(1):
        raise node.refused("samples at constant places")
    return Made(module=Sampled(mode, padding, bool(node.attribute("align_corners", 0))), takes=(0, 1))


MAKERS: Mapping[str, Maker] = {"Resize": resize, "Upsample": resize, "GridSample": grid_sample}
