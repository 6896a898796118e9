"""The guard's own depthwise convolution is the library's, for large maps and for small ones."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from compress.surgery.guard import Depthwise

sides = st.tuples(st.integers(1, 7), st.integers(1, 7))
steps = st.tuples(st.integers(1, 2), st.integers(1, 2))


@given(sides, sides, steps, steps, st.integers(1, 2), st.booleans(), st.booleans())
def test_it_is_the_librarys(
    kernel: tuple[int, int],
    sites: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    multiplier: int,
    bias: bool,
    last: bool,
) -> None:
    torch.manual_seed(0)
    padding = (kernel[0] * dilation[0] // 2, kernel[1] * dilation[1] // 2)
    size = tuple(max(n, d * (k - 1) + 1) for n, d, k in zip(sites, dilation, kernel, strict=True))
    layer = nn.Conv2d(3, 3 * multiplier, kernel, stride, padding, dilation, 3, bias).double()  # type: ignore[arg-type]
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    with torch.no_grad():
        wanted = layer(x)
        with Depthwise():
            got = layer(x)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
