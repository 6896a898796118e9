"""Every nesting in which people keep a network's tensors loads the same network, or is refused and says what is there."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from compress_models import MODELS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from compress.errors import CheckpointError
from compress.networks.architecture import Architecture
from compress.networks.checkpoint import load, save, state_digest
from compress.networks.state_dicts import is_averaged

ZOO = {"lenet": MODELS["lenet"], "digits_net": MODELS["digits_net"]}
State = dict[str, Any]


def network(seed: int = 0, name: str = "digits_net") -> nn.Module:
    torch.manual_seed(seed)
    return MODELS[name]().eval()


def written(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def under(prefix: str) -> Callable[[State], State]:
    return lambda s: {f"{prefix}{k}": v for k, v in s.items()}


def within(key: str, **beside: Any) -> Callable[[State], State]:
    return lambda s: {key: s, **beside}


OPTIMISER = {"state": {0: {"exp_avg": torch.ones(3, 3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
WRAPPERS: dict[str, Callable[[State], State]] = {
    **{f"under {p}": under(p) for p in ("module.", "_orig_mod.", "model.", "net_g.", "backbone.")},
    **{f"in {k}": within(k, epoch=3) for k in ("state_dict", "model", "params", "params_ema", "generator", "model_state")},
    "ordered": lambda s: OrderedDict(s),
    "with an optimiser": within("network", optimizer=OPTIMISER, iter=7),
    "with a tensor": within("weights", class_weights=torch.ones(5)),
    "with a small module": within("net", loss={"weight": torch.ones(5)}),
    "in a list": lambda s: {"models": [s]},
    "counted": lambda s: {"n_averaged": torch.tensor(5), **under("module.")(s)} if _flat(s) else {"checkpoint": s},
}


def _flat(state: State) -> bool:
    return all(isinstance(v, Tensor) for v in state.values())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wrappers=st.lists(st.sampled_from(sorted(WRAPPERS)), max_size=4), named=st.booleans())
def test_any_nesting_is_the_same_network_or_says_what_it_holds(
    wrappers: list[str], named: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = network()
    content: State = dict(model.state_dict())
    for name in wrappers:
        if _flat(content) or not name.startswith("under"):
            content = WRAPPERS[name](content)
    path = written(tmp_path_factory.getbasetemp() / "m.pt", content)
    loaded = load(path, zoo=ZOO, arch="digits_net" if named else None)
    assert loaded.architecture.name == "digits_net"
    assert loaded.digest == state_digest(model.state_dict())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    plain=st.sampled_from(["model", "params", "state_dict", "online_model", "net_g", "generator"]),
    averaged=st.sampled_from(
        ["model_ema", "params_ema", "state_dict_ema", "ema", "ema_model", "netG_ema", "swa_model", "modelEMA"]
    ),
    dotted=st.booleans(),
    prefix=st.sampled_from(["", "module."]),
)
def test_plain_weights_are_taken_and_the_averaged_ones_can_be_chosen(
    plain: str, averaged: str, dotted: bool, prefix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    one, two = under(prefix)(dict(network(0).state_dict())), under(prefix)(dict(network(1).state_dict()))
    content = {plain: one, averaged: two, "epoch": 3}
    if dotted:
        content = {**under(f"{plain}.")(one), **under(f"{averaged}.")(two), "step": torch.tensor(4)}
    path = written(tmp_path_factory.getbasetemp() / "m.pt", content)
    first = load(path, zoo=ZOO)
    assert first.digest == state_digest(network(0).state_dict())
    assert averaged in first.warnings[0] and "--weights ema" in first.warnings[0]
    for which, seed in (("plain", 0), ("ema", 1), (plain, 0), (averaged, 1)):
        chosen = load(path, zoo=ZOO, weights=which)
        assert chosen.digest == state_digest(network(seed).state_dict()), which
    with pytest.raises(CheckpointError, match=averaged) as caught:
        load(path, zoo=ZOO, weights="nothing")
    assert "--weights" in caught.value.hint


def test_a_file_of_our_own_holds_one_set_of_weights(tmp_path: Path) -> None:
    model = network(0)
    path = tmp_path / "own.safetensors"
    save(path, model, architecture=Architecture("digits_net"))
    for which in (None, "plain"):
        assert load(path, zoo=ZOO, weights=which).digest == state_digest(model.state_dict())
    for which in ("ema", "teacher"):
        with pytest.raises(CheckpointError, match="one set of weights") as caught:
            load(path, zoo=ZOO, weights=which)
        assert "--weights" in caught.value.hint


@pytest.mark.parametrize("buffers", [True, False])
@pytest.mark.parametrize("key", [None, "model", "state_dict"])
def test_an_averaged_model_of_torch_loads(buffers: bool, key: str | None, tmp_path: Path) -> None:
    model = network()
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=buffers)
    averaged.update_parameters(network(1))
    averaged.update_parameters(network(2))
    state = averaged.state_dict()
    assert "n_averaged" in state
    loaded = load(written(tmp_path / "m.pt", state if key is None else {key: state}), zoo=ZOO)
    assert loaded.digest == state_digest(averaged.module.state_dict())
    assert "averages" in loaded.warnings[0]


def test_averages_registered_beside_the_weights_load(tmp_path: Path) -> None:
    """mmcv's hook keeps ``ema_stem_0_weight`` as a buffer beside ``stem.0.weight``."""
    plain, averaged = dict(network(0).state_dict()), dict(network(1).state_dict())
    state = plain | {f"ema_{k.replace('.', '_')}": v for k, v in averaged.items()}
    path = written(tmp_path / "m.pt", {"meta": {"epoch": 1}, "state_dict": state})
    assert load(path, zoo=ZOO).digest == state_digest(plain)
    assert load(path, zoo=ZOO, weights="ema").digest == state_digest(averaged)


def test_parts_kept_apart_are_joined(tmp_path: Path) -> None:
    state = dict(network().state_dict())
    parts: State = {}
    for key, tensor in state.items():
        part, _, rest = key.partition(".")
        parts.setdefault(part, {})[rest] = tensor
    assert len(parts) > 2
    assert load(written(tmp_path / "m.pt", {"model": parts, "epoch": 1}), zoo=ZOO).digest == state_digest(state)


def test_tensors_saved_without_the_attribute_that_holds_them(tmp_path: Path) -> None:
    inner = network()

    def factory() -> nn.Module:
        return nn.Sequential(OrderedDict(net=MODELS["digits_net"]()))

    loaded = load(written(tmp_path / "m.pt", inner.state_dict()), zoo={"wrapped": factory}, arch="wrapped")
    assert torch.equal(loaded.model.state_dict()["net.stem.0.weight"], inner.state_dict()["stem.0.weight"])


@pytest.mark.parametrize("dotted", [False, True])
def test_two_networks_that_fit_are_not_guessed_between(dotted: bool, tmp_path: Path) -> None:
    one, two = dict(network(0).state_dict()), dict(network(1).state_dict())
    content = {**under("student.")(one), **under("teacher.")(two)} if dotted else {"student": one, "teacher": two}
    path = written(tmp_path / "m.pt", content)
    with pytest.raises(CheckpointError, match=r"student.*teacher") as caught:
        load(path, zoo=ZOO, arch="digits_net")
    assert "--weights" in caught.value.hint
    assert load(path, zoo=ZOO, arch="digits_net", weights="teacher").digest == state_digest(two)
    assert load(path, zoo=ZOO, arch="digits_net", weights="student").digest == state_digest(one)


def test_the_entry_that_fits_is_found_among_others(tmp_path: Path) -> None:
    wanted = dict(network().state_dict())
    content = {"discriminator": dict(network(1, "lenet").state_dict()), "generator": wanted, "optim": OPTIMISER}
    loaded = load(written(tmp_path / "m.pt", content), zoo=ZOO, arch="digits_net")
    assert loaded.digest == state_digest(wanted)
    assert "'generator'" in loaded.warnings[0]


def test_part_of_a_larger_network_is_taken_only_for_a_named_architecture(tmp_path: Path) -> None:
    state = under("backbone.")(dict(network().state_dict())) | {"head.weight": torch.ones(4, 4), "head.bias": torch.ones(4)}
    path = written(tmp_path / "m.pt", state)
    with pytest.raises(CheckpointError, match="no known network"):
        load(path, zoo=ZOO)
    loaded = load(path, zoo=ZOO, arch="digits_net")
    assert "2 tensors outside 'backbone.'" in " ".join(loaded.warnings)


def test_what_fits_nothing_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "m.pt", {"ema": {"shadow_params": [torch.ones(3)]}, "best": {"x": {"a.weight": torch.ones(3)}}})
    with pytest.raises(CheckpointError, match=r"best\.x.*1 tensor"):
        load(path, zoo=ZOO, arch="digits_net")
    with pytest.raises(CheckpointError, match="1 tensor without names"):
        load(written(tmp_path / "m.pt", {"shadow_params": [torch.ones(3)]}), zoo=ZOO)


@pytest.mark.parametrize(
    ("name", "averaged"),
    [("model_ema", True), ("emaModel", True), ("swa_state_dict", True), ("schema", False), ("cinema", False),
     ("avgpool", False), ("params_ema", True), ("semantic", False), ("ema0", True), ("averaged_model", True)],
)  # fmt: skip
def test_names_of_averages(name: str, averaged: bool) -> None:
    assert is_averaged(name) is averaged
