"""Unfolding against the layers themselves, moments against the textbook's."""

from __future__ import annotations

import copy

import pytest
import torch
from support.nets import NETS, StdConv, build, inputs, traced
from torch import Tensor, nn

from compress.errors import DataError
from compress.recovery.moments import Sums, collect, sample, thin
from compress.recovery.unfolding import flat_output, map_size, matrix, plain, shaped, unfold


class SameConv(nn.Conv2d):
    """Pads on its own, more behind than before, as TensorFlow's exports do."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(nn.functional.pad(x, (0, 1, 1, 2)), self.weight, self.bias, self.stride, (1, 0))


LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "conv": (nn.Conv2d(3, 4, 3, padding=1), (2, 3, 7, 6)),
    "stride-dilation": (nn.Conv2d(3, 4, (3, 2), stride=(2, 3), padding=(2, 1), dilation=(1, 2)), (2, 3, 9, 11)),
    "grouped": (nn.Conv2d(6, 4, 3, groups=2, bias=False), (2, 6, 6, 6)),
    "reflect": (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), (2, 3, 7, 6)),
    "same": (nn.Conv2d(3, 4, (1, 5), padding="same", dilation=(1, 2)), (2, 3, 7, 9)),
    "conv1d": (nn.Conv1d(3, 4, 3, padding=1, stride=2), (2, 3, 9)),
    "conv3d": (nn.Conv3d(2, 3, (1, 2, 3), padding=1), (2, 2, 4, 5, 6)),
    "pads-itself": (SameConv(3, 4, (3, 2), stride=2), (2, 3, 7, 6)),
    "transposed": (nn.ConvTranspose2d(3, 4, 2, stride=2), (2, 3, 5, 4)),
    "transposed-overlapping": (nn.ConvTranspose2d(3, 4, (3, 4), (2, 3), (1, 2), (1, 0), dilation=(2, 1)), (2, 3, 5, 4)),
    "transposed-1d": (nn.ConvTranspose1d(3, 4, 5, padding=2, bias=False), (2, 3, 9)),
    "linear": (nn.Linear(5, 3), (4, 5)),
    "linear-map": (nn.Linear(5, 3, bias=False), (2, 3, 4, 5)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_rows_times_weight_is_what_the_layer_computes(kind: str) -> None:
    module, shape = LAYERS[kind]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    y = module(x)
    available = map_size(module, y)
    at = sample("x", 0, max(1, available // 2), available, 0)
    rows = unfold(module, x, y, at)
    said = (rows @ matrix(module)).transpose(0, 1).flatten(1) + (0 if module.bias is None else module.bias)
    torch.testing.assert_close(said, flat_output(module, y, at), atol=1e-5, rtol=1e-4)
    assert rows.shape[1] == shape[0] * len(at)
    assert plain(module, x, y) and not plain(module, x, y + 1)
    assert torch.equal(shaped(matrix(module), module), module.weight)


def test_sums_over_batches_are_those_of_all_rows() -> None:
    rows = 100 + torch.randn(2, 50, 4, generator=torch.Generator().manual_seed(0)).double() * torch.arange(1, 5)
    targets = rows[:, :, :3] @ torch.randn(3, 2).double() + 7
    sums = Sums()
    for part, beside in zip(rows.split(13, dim=1), targets.split(13, dim=1), strict=True):
        sums.add(part, beside)
    joint = torch.cat([rows, targets], 2)
    for g in range(2):
        whole = torch.cov(joint[g].T, correction=0)
        torch.testing.assert_close(sums.covariance()[g], whole[:4])
        torch.testing.assert_close(sums.variance()[g], whole.diagonal())
    torch.testing.assert_close(sums.mean(), joint.mean(1))
    assert sums.rows == 50


def test_covariances_of_every_reader() -> None:
    model, topology = traced("chain")
    x = inputs("chain", 40).float()
    found = collect(model, topology, list(x.split(16)))
    assert set(found.layers) == {"1.0", "3.0", "4.2"} and not found.skipped and found.images == 40
    unfolded = nn.functional.unfold(model[0](x), 3, padding=1).transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(
        found.layers["1.0"].covariance[0].float(), torch.cov(unfolded.T, correction=0), atol=1e-4, rtol=1e-3
    )
    assert found.layers["1.0"].rows == 40 * 64


@pytest.mark.parametrize("name", sorted(NETS))
def test_every_network_gives_moments_or_a_reason(name: str) -> None:
    """And the network is left as it was."""
    model, topology = traced(name)
    before, mode = copy.deepcopy(model.state_dict()), model.training
    found = collect(model, topology, [inputs(name, 6).float()])
    readers = {x.name for g in topology.groups for x in topology.readers(g.id)}
    assert set(found.layers) | set(found.skipped) == readers and not set(found.layers) & set(found.skipped)
    for gram in found.layers.values():
        assert float(torch.linalg.eigvalsh(gram.covariance.double()).min()) > -1e-5
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items()) and model.training == mode
    assert not any(m._forward_hooks for m in model.modules())


def test_a_layer_that_does_something_else_is_named() -> None:
    conv, standard = nn.Conv2d(3, 4, 3), StdConv(3, 4, 3)
    x = torch.randn(2, 3, 6, 6)
    assert plain(conv, x, conv(x)) and not plain(standard, x, standard(x))


def test_wide_layers_are_thinned_and_say_so() -> None:
    model, topology = traced("flatten")
    found = collect(model, topology, [inputs("flatten", 30).float()], widest=10)
    gram = found.layers["3"]
    assert gram.covariance.shape == (1, 10, 10) and gram.note == "10 of 24 columns, evenly spread"
    assert len({int(c) // 4 for c in gram.columns}) == 6  # every channel has at least one of its four places
    whole = collect(model, topology, [inputs("flatten", 30).float()]).layers["3"]
    assert not whole.note
    torch.testing.assert_close(gram.covariance[0], whole.covariance[0][gram.columns][:, gram.columns])
    for columns, most in ((24, 10), (5000, 4608), (4609, 4608), (7, 7)):
        chosen = thin(columns, most, 0)
        assert len(chosen) == most and int(chosen.max()) < columns and len(set(chosen.tolist())) == most


def test_sampling_is_repeatable_and_varies() -> None:
    assert torch.equal(sample("a", 0, 5, 100, 0), sample("a", 0, 5, 100, 0))
    assert not torch.equal(sample("a", 0, 5, 100, 0), sample("a", 1, 5, 100, 0))
    assert sample("a", 0, 5, 3, 0).tolist() == [0, 1, 2]


def test_large_maps_are_sampled() -> None:
    model, topology = traced("chain")
    x: Tensor = torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    gram = collect(build("chain"), topology, [x]).layers["1.0"]
    assert gram.rows == 32 * 64
    with torch.no_grad():
        exact = torch.cov(nn.functional.unfold(model[0](x), 3, padding=1).transpose(1, 2).flatten(0, 1).T, correction=0)
    assert float((gram.covariance[0] - exact).norm() / exact.norm()) < 0.2


def test_no_images() -> None:
    model, topology = traced("chain")
    with pytest.raises(DataError, match="no image"):
        collect(model, topology, [])
