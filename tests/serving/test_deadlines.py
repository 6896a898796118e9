"""No server, however it misbehaves, holds a client, a deployment or a measurement for longer than was said."""

from __future__ import annotations

import json
import threading
import time
import tracemalloc
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bad_servers import BAD, ENDLESS, Behaviour, bad, endless_body, gzip_bomb, redirect
from support.covering import thinned
from support.serving_nets import images, net
from support.v2server import V2Server, serving

from compress.errors import CompressError, ServingError
from compress.serving.client import Client, Served
from compress.serving.deployment import DeploymentLimits, deploy
from compress.serving.load_test import Scenario, asking, sustained
from compress.serving.model_repository import LOCK, locked
from compress.serving.packages import package
from compress.serving.settings import Serving
from compress.serving.v2_protocol import Answer, decode

TIMEOUT = 0.6
LIMITS = DeploymentLimits(timeout=TIMEOUT)
SLACK = 1.2
"""Seconds that a busy machine may add."""
IMAGES = images()
INPUT = {"input": IMAGES[:2]}
CALLS: dict[str, Callable[[Client], Any]] = {
    "live": lambda c: c.live(),
    "ready": lambda c: c.ready("net", "2"),
    "until_ready": lambda c: c.until_ready("net", "2", within=TIMEOUT),
    "interface": lambda c: c.interface("net"),
    "statistics": lambda c: c.statistics("net"),
    "load": lambda c: c.load("net"),
    "unload": lambda c: c.unload("net"),
    "infer": lambda c: c.infer("net", INPUT),
}


def ended(*actions: Callable[[], Any], within: float) -> list[Any]:
    """What actions, all at once, return or raise; an assertion fails where one goes on for longer."""
    outcomes: list[Any] = [None] * len(actions)

    def run(at: int) -> None:
        try:
            outcomes[at] = (actions[at](),)
        except BaseException as error:
            outcomes[at] = (error,)

    threads = [threading.Thread(target=run, args=(at,), daemon=True) for at in range(len(actions))]
    until = time.monotonic() + within
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    late = [at for at, outcome in enumerate(outcomes) if outcome is None]
    assert not late, f"{late} still at it after {within:.1f} s"
    return [outcome[0] for outcome in outcomes]


@pytest.mark.parametrize("behaviour", thinned(BAD, of=2), ids=lambda b: b.__name__)
def test_every_exchange_ends_by_its_deadline(behaviour: Behaviour) -> None:
    with bad(behaviour) as world, ExitStack() as stack:
        clients = [stack.enter_context(Client(world.url, timeout=TIMEOUT)) for _ in CALLS]
        actions = [partial(call, client) for call, client in zip(CALLS.values(), clients, strict=True)]
        outcomes = ended(*actions, within=TIMEOUT + SLACK)
    for name, outcome in zip(CALLS, outcomes, strict=True):
        if isinstance(outcome, CompressError):
            assert outcome.hint
        elif behaviour is redirect:
            assert outcome is False, name
        else:  # what is packed is whole, and of no use beyond its status
            assert behaviour is gzip_bomb, name
            assert name in ("live", "ready", "until_ready")


@pytest.mark.parametrize("behaviour", thinned(BAD, of=3, turn=1), ids=lambda b: b.__name__)
def test_a_server_that_turns_bad_after_publishing_has_the_version_taken_back(tmp_path: Path, behaviour: Behaviour) -> None:
    """docs/serving.md: within three timeouts of publishing the repository is as it was and the lock is free."""
    with ExitStack() as stack:
        worlds, actions = [], []
        for at, moment in enumerate(("/load", "/versions/2/ready", "/infer")):
            repository, new = _served(tmp_path / str(at))
            world = stack.enter_context(serving(repository, bad=behaviour, bad_from=moment))
            worlds.append((repository, _tree(repository)))
            actions.append(partial(_put, world, new))
        outcomes = ended(*actions, within=3 * TIMEOUT + SLACK)
    for (repository, before), outcome in zip(worlds, outcomes, strict=True):
        assert isinstance(outcome, ServingError)
        assert "as it was" in outcome.message or "rolled back" in outcome.message
        assert _tree(repository) == before
        assert not [p for p in repository.rglob(".*") if p.name != LOCK]
        with locked(repository):
            pass


@pytest.mark.parametrize("moment", ["/v2/health/live", "/v2/models/net/ready", "/v2/models/net"])
@pytest.mark.parametrize("behaviour", ENDLESS[::4], ids=lambda b: b.__name__)
def test_a_server_that_is_bad_before_publishing_costs_nothing(tmp_path: Path, behaviour: Behaviour, moment: str) -> None:
    repository, new = _served(tmp_path)
    before = _tree(repository)
    with serving(repository, bad=behaviour, bad_from=moment) as world:
        (outcome,) = ended(lambda: _put(world, new), within=2 * TIMEOUT + SLACK)
    assert isinstance(outcome, ServingError)
    assert _tree(repository) == before


def test_a_server_that_answers_everything_just_in_time_does_not_add_up(tmp_path: Path) -> None:
    """Each answer comes before its own deadline; loading, comparing and going back have one each."""
    repository, new = _served(tmp_path)
    before = _tree(repository)
    with serving(repository, slow_by={"net": 0.8 * TIMEOUT}) as world:
        (outcome,) = ended(lambda: _put(world, new), within=3 * TIMEOUT + SLACK)
    assert isinstance(outcome, ServingError)
    assert _tree(repository) == before


@pytest.mark.parametrize(
    "behaviour",
    thinned(ENDLESS[::3], of=5),
    ids=lambda b: b.__name__,
)
def test_a_measurement_ends_where_the_server_turns_bad(tmp_path: Path, behaviour: Behaviour) -> None:
    repository, _ = _served(tmp_path)
    scenario = Scenario(bound=0.2, requests=100, rounds=1, confirm=100, connections=4)
    with serving(repository) as world:

        def measure() -> Any:
            connect = asking(world.url, "net", timeout=TIMEOUT)
            return sustained({"net": connect}, scenario, listen=lambda event: turn(world))

        def turn(world: V2Server) -> None:
            world.bad, world.bad_from = behaviour, "/infer"

        (outcome,) = ended(measure, within=30.0 + TIMEOUT + SLACK)
    assert isinstance(outcome, ServingError)


@pytest.mark.parametrize("behaviour", [endless_body, gzip_bomb], ids=lambda b: b.__name__)
@pytest.mark.parametrize("call", ["live", "interface"])
def test_an_answer_is_bounded_in_memory(behaviour: Behaviour, call: str) -> None:
    with bad(behaviour) as world, Client(world.url, timeout=30.0) as client:
        tracemalloc.start()
        try:
            ended(lambda: CALLS[call](client), within=30.0)
            assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
        finally:
            tracemalloc.stop()


def test_a_redirect_is_not_followed() -> None:
    with bad(redirect) as world, Client(world.url, timeout=TIMEOUT) as client:
        assert client.live() is False
        with pytest.raises(ServingError, match="answers 307"):
            client.interface("net")
    assert len(world.log) == 2


# ---- what an answer says ---------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([10**400, 1e308, -1, 2**63, "FP32", "input", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "datatype", "shape", "data", "inputs", "outputs", "versions", "parameters", "error"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


def _tensors(values: Any) -> Any:
    size = st.integers(-3, 6) | values
    parameters = st.none() | st.fixed_dictionaries({"binary_data_size": size})
    entry = {"name": values, "datatype": st.sampled_from(["FP32", "BOOL", "BYTES", "INT64"]) | values}
    entry |= {"shape": st.lists(size, max_size=3) | values, "data": st.lists(values, max_size=4) | values}
    one = st.fixed_dictionaries(entry, optional={"parameters": parameters})
    return st.fixed_dictionaries({"outputs": st.lists(one, max_size=2)}, optional={"inputs": st.lists(one), "versions": values})


@given(facts=JSON | _tensors(JSON), tail=st.binary(max_size=24), length=st.none() | st.integers(-5, 40) | st.text(max_size=3))
def test_any_json_is_an_answer_or_an_error_of_ours(facts: Any, tail: bytes, length: Any) -> None:
    data = json.dumps(facts).encode()
    headers = {} if length is None else {"inference-header-content-length": str(length)}
    for body, head in ((data, headers), (data + tail, {"inference-header-content-length": str(len(data))})):
        try:
            assert isinstance(decode(body, head), Answer)
        except ServingError as error:
            assert error.hint


@given(facts=JSON | _tensors(JSON))
def test_any_description_is_one_or_an_error_of_ours(facts: Any) -> None:
    class Told(Client):
        def _json(self, *_: Any) -> Any:
            return json.loads(json.dumps(facts))

    with Told("http://127.0.0.1:9", timeout=0.1) as client:
        for call in (lambda: client.interface("net"), lambda: client.infer("net", INPUT)):
            try:
                assert isinstance(call(), Served)
            except ServingError as error:
                assert error.hint


# ---- the small repository --------------------------------------------------------------------------------------------


def _served(folder: Path) -> tuple[Path, Path]:
    """A repository with one version of a model, and the file of the next."""
    repository = folder / "repository"
    package(net(folder / "old.onnx", 1), repository, "triton", name="net", serving=Serving(max_batch=4))
    return repository, net(folder / "new.onnx", 2)


def _put(world: V2Server, new: Path) -> Any:
    return deploy(new, np.asarray(IMAGES), repository=world.repository, url=world.url, name="net", limits=LIMITS)


def _tree(repository: Path) -> dict[str, bytes]:
    files = (p for p in sorted(repository.rglob("*")) if p.is_file() and p.name != LOCK)
    return {str(p.relative_to(repository)): p.read_bytes() for p in files}
