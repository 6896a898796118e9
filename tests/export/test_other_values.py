"""A file of a network whose code asks for values holds one branch: that is said, and seen on inputs of another scale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.nets import Wired, block, head
from torch import Tensor, nn

from compress.export import ParityVerdict, export_verified


def scaled(s: Any, x: Tensor) -> Tensor:
    if x.max() > 20:
        x = x / 255
    return s.head(s.a(x))


def darkened(s: Any, x: Tensor) -> Tensor:
    return s.head(s.a(x + 1 if float(x.abs().max()) < 0.1 else x))


def asked_in_vain(s: Any, x: Tensor) -> Tensor:
    if bool(x.isnan().any()):
        raise ValueError("NaN in the input")
    return s.head(s.a(x))


def exported(forward: Any, tmp_path: Path) -> Any:
    torch.manual_seed(0)
    model: nn.Module = Wired(forward, a=block(3, 8), head=head(8)).eval()
    return export_verified(model, torch.randn(8, 3, 8, 8), tmp_path / "net.onnx", exporter="legacy")


@pytest.mark.parametrize(("forward", "scale"), [(scaled, "times 255"), (darkened, "times 1/255")])
def test_a_file_that_differs_on_other_values_is_inconclusive_and_says_where(forward: Any, scale: str, tmp_path: Path) -> None:
    written, parity = exported(forward, tmp_path)
    (line,) = written.value_branches
    assert line.startswith("export/test_other_values.py:") and line.endswith(f" in {forward.__name__}")
    assert parity.verdict is ParityVerdict.INCONCLUSIVE and (tmp_path / "net.onnx").exists()
    assert line in parity.message and scale in parity.message and "differs from the network" in parity.message


def test_a_file_that_agrees_on_other_values_passes_and_says_that_the_code_asks(tmp_path: Path) -> None:
    written, parity = exported(asked_in_vain, tmp_path)
    assert parity.verdict is ParityVerdict.PASS
    assert written.value_branches[0] in parity.message and "agrees with the network" in parity.message


def test_a_network_that_asks_nothing_is_exported_as_ever(tmp_path: Path) -> None:
    written, parity = exported(lambda s, x: s.head(s.a(x)), tmp_path)
    assert written.value_branches == () and "asks" not in parity.message
