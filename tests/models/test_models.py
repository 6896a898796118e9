from __future__ import annotations

import copy
import importlib
import inspect
import io
from pathlib import Path

import compress_models
import pytest
import torch
from compress_models import CATALOGUE, MODELS, summary
from compress_models.resnet import ZeroPadShortcut
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

SMALL = [n for n in MODELS if n not in ("resnet110", "resnet110p", "resnet44", "resnet44p", "resnet32", "resnet32p")]


def images(name: str, n: int = 2) -> Tensor:
    channels, side = {"lenet": (1, 28), "digits_net": (1, 8)}.get(name, (3, 32))
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", SMALL)
def test_a_batch_becomes_logits_and_rows_do_not_mix(name: str) -> None:
    model = MODELS[name](num_classes=7).eval()
    x = images(name, 3)
    with torch.no_grad():
        y = model(x)
        assert y.shape == (3, 7)
        torch.testing.assert_close(model(x[1:2]), y[1:2], rtol=1e-4, atol=1e-5)
    assert y.std() > 0


@pytest.mark.parametrize("name", MODELS)
def test_every_factory_takes_the_common_arguments_and_says_what_it_is(name: str) -> None:
    parameters = inspect.signature(MODELS[name]).parameters
    assert {"num_classes", "in_channels", "width"} <= set(parameters)
    assert MODELS[name].__doc__


@pytest.mark.parametrize("name", SMALL)
def test_width_scales_the_network(name: str) -> None:
    def size(width: float) -> int:
        with torch.device("meta"):
            return sum(p.numel() for p in MODELS[name](width=width).parameters())

    assert size(0.5) < size(1.0) < size(2.0)


PUBLISHED = {  # parameters, from the papers or from the checkpoints in common use
    "vgg14": 14_724_042,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
    "densenet40": 1_019_722,
    "lenet": 61_706,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_are_the_published_ones(name: str) -> None:
    assert sum(p.numel() for p in MODELS[name]().parameters()) == PUBLISHED[name]


@pytest.mark.parametrize("name", ["resnet20", "vgg14", "densenet40", "mobilenetv2_cifar"])
def test_a_state_dict_goes_round(name: str) -> None:
    first, second = MODELS[name]().eval(), MODELS[name]().eval()
    second.load_state_dict(first.state_dict())
    x = images(name)
    with torch.no_grad():
        assert torch.equal(first(x), second(x))


def test_a_published_option_a_checkpoint_has_no_tables_and_loads_strictly() -> None:
    model = MODELS["resnet20"]()
    published = {k: v for k, v in model.state_dict().items() if not k.endswith(("sources", "num_batches_tracked"))}
    assert len(published) == 19 * 5 + 2
    fresh = MODELS["resnet20"]()
    fresh.load_state_dict(published)
    assert fresh.get_submodule("layer2.0.shortcut").sources.tolist() == [-1] * 8 + list(range(16)) + [-1] * 8


def reference(x: Tensor, sources: list[int], stride: int) -> Tensor:
    x = x[:, :, ::stride, ::stride]
    return torch.stack([x[:, s] if s >= 0 else torch.zeros_like(x[:, 0]) for s in sources], 1)


@settings(max_examples=60, deadline=None)
@given(sources=st.lists(st.integers(-1, 4), min_size=1, max_size=9), stride=st.integers(1, 2), how=st.integers(0, 2))
def test_a_shortcut_is_exactly_its_table(sources: list[int], stride: int, how: int) -> None:
    module = ZeroPadShortcut(5, 5, stride)
    table = torch.tensor(sources)
    if how == 0:
        module.sources = table
    elif how == 1:  # what surgery does: a deep copy in which the buffer is another one
        module = copy.deepcopy(module, {id(module.sources): table})
    else:
        module.sources = torch.full_like(table, -1)
        module.load_state_dict({"sources": table})
    x = torch.randn(2, 5, 5, 5)
    assert torch.equal(module(x), reference(x, sources, stride))


@pytest.mark.parametrize("sources", [[-1, -1, 0, 1, 2, -1], [2, 0, -1, 1], [-1, 1, 2]])
def test_a_shortcut_survives_graph_capture(sources: list[int]) -> None:
    module = ZeroPadShortcut(3, 3, 2)
    module.sources = torch.tensor(sources)
    x = torch.randn(2, 3, 6, 6)
    assert torch.equal(torch.fx.symbolic_trace(module)(x), module(x))
    assert torch.equal(torch.export.export(module, (x,)).module()(x), module(x))


def test_a_default_shortcut_is_only_slices_and_a_pad() -> None:
    graph = torch.export.export(ZeroPadShortcut(4, 8, 2), (torch.randn(1, 4, 8, 8),)).graph
    called = {str(n.target) for n in graph.nodes if n.op == "call_function"}
    assert called <= {"aten.alias.default", "aten.slice.Tensor", "aten.pad.default", "aten.constant_pad_nd.default"}, called


def test_a_shortcut_pickles_with_its_table() -> None:
    module = ZeroPadShortcut(2, 4, 1)
    module.sources = torch.tensor([1, -1, 0])
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    x = torch.randn(1, 2, 3, 3)
    assert torch.equal(loaded(x), reference(x, [1, -1, 0], 1))


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="from 4 to 2"):
        ZeroPadShortcut(4, 2, 1)
    with pytest.raises(ValueError, match="at least 12"):
        MODELS["lenet"](size=8)


@pytest.mark.parametrize("name", MODELS)
def test_the_catalogue_says_of_a_network_what_it_is(name: str) -> None:
    """It is read without torch, so it is written down, and counted here."""
    with torch.device("meta"):
        assert sum(p.numel() for p in MODELS[name]().parameters()) == CATALOGUE[name].params
    factory = getattr(compress_models, name)
    assert factory is MODELS[name] and factory.__name__ == name
    assert summary(name) and (inspect.getdoc(factory) or "").replace("\n", " ").startswith(summary(name))


def test_every_factory_of_the_families_is_in_the_catalogue() -> None:
    families = {entry.module for entry in CATALOGUE.values()}
    files = {p.stem for p in Path(compress_models.__file__).parent.glob("*.py")} - {"__init__", "widths"}
    assert families == files
    for family in families:
        module = importlib.import_module(f"compress_models.{family}")
        made = {n for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module.__name__ and n[0] != "_"}
        assert made == {n for n, entry in CATALOGUE.items() if entry.module == family}
    with pytest.raises(AttributeError, match="no attribute 'resnet21'"):
        compress_models.resnet21  # noqa: B018
