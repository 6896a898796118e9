"""Ray, as far as it is decided without Ray: how it is named, what it has room for, which nodes are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compress.errors import CompressError, ConfigError
from compress.pipeline import Job, make_job
from compress.workers import RayWanted
from compress.workers.ray_cluster import on_node, place_seconds, refuse_no_room, refuse_unlike, room, store_size
from compress.workers.ray_scorer import facts_here

GIB = 2**30


@pytest.mark.parametrize(
    ("text", "address", "actors"),
    [
        ("ray", None, None),
        ("ray:4", None, 4),
        ("ray://head:10001", "head:10001", None),
        ("ray://10.0.0.1:10001/64", "10.0.0.1:10001", 64),
        ("ray://[::1]:10001/2", "[::1]:10001", 2),
    ],
)
def test_spellings(text: str, address: str | None, actors: int | None) -> None:
    assert RayWanted.read(text) == RayWanted(address, actors) == make_job(flags={"workers": text}).ray


@pytest.mark.parametrize(
    "text",
    "ray: ray:0 ray:-2 ray:x ray:4000 rays ray4 ray:// ray://head ray://:1 ray://h:x ray://h:1/0 ray://h:1?a=2 many".split(),
)
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(CompressError, match="workers is") as told:
        make_job(flags={"workers": text})
    assert "ray:4" in told.value.hint


def test_who_scores_is_a_circumstance() -> None:
    """A run that several processes began goes on with Ray, and the other way round."""
    assert Job(workers="ray").to_json() == Job(workers=2).to_json() == Job().to_json()
    assert Job(workers=2).ray is None


def node(cpus: float, gib: float, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "Resources": {"CPU": cpus, "memory": gib * GIB}}


def test_room_is_what_nodes_have_one_by_one() -> None:
    """What two nodes have left over together is room for nobody."""
    nodes = [node(3, 100), node(8, 2.5), node(8, 100, alive=False), {"Alive": True, "Resources": {}}]
    assert room(nodes, threads=1, memory=GIB) == 3 + 2
    assert room(nodes, threads=2, memory=GIB) == 1 + 2
    assert room(nodes, threads=4, memory=3 * GIB) == 0
    with pytest.raises(ConfigError, match=r"has 4 CPUs and 3\.0 GiB .*: 3 nodes, with 3 CPUs and 100\.0 GiB; 8 CPUs"):
        refuse_no_room(nodes, threads=4, memory=3 * GIB)


@pytest.mark.parametrize("what", ["torch", "compress"])
def test_a_node_with_another_version_is_refused(what: str) -> None:
    here = facts_here("here")
    refuse_unlike(here, (here, replace(here, node="10.0.0.2", pid=1, shared_memory=0)))
    with pytest.raises(ConfigError, match=rf"the node 10\.0\.0\.2 has another {what} than this process: 9"):
        refuse_unlike(here, (here, replace(here, node="10.0.0.2", **{what: "9"})))


def test_nodes_may_have_other_instructions_than_this_machine_but_not_than_each_other() -> None:
    here = facts_here("here")
    there = [replace(here, node=f"10.0.0.{i}", instructions="x86_64 other AVX2") for i in range(3)]
    refuse_unlike(here, there)
    with pytest.raises(ConfigError, match=r"round otherwise: 10\.0\.0\.0 with x86_64 other AVX2, here with "):
        refuse_unlike(here, [*there, here])


@pytest.mark.parametrize("said", ["soon", "0", "-1", "inf", "nan"])
def test_an_absurd_patience_is_refused(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place_seconds() == 120
    monkeypatch.setenv("COMPRESS_RAY_SECONDS", said)
    with pytest.raises(ConfigError, match=f"COMPRESS_RAY_SECONDS is '{said}'"):
        place_seconds()


def test_what_a_node_lacks_is_told_with_the_node() -> None:
    missing = ModuleNotFoundError("No module named 'mine'")
    assert "10.0.0.2" in str(on_node("10.0.0.2", missing, following=True)) and "working-dir" in str(on_node("n", missing, True))
    assert on_node("10.0.0.2", missing, following=False) is missing
    assert "lacks a file" in str(on_node("10.0.0.2", FileNotFoundError(2, "No such file", "/data/x"), following=False))


def test_the_store_of_a_local_ray_fits_into_shared_memory() -> None:
    """Where it cannot, Ray takes the disk, and refuses nothing: at most 10 GB are asked for."""
    for shared in (0, 64 << 20, 200 << 20, 1 << 40):
        asked = store_size(shared)
        assert 80 << 20 <= asked <= 256 << 20
        assert asked < shared or shared < 100 << 20


WITHOUT = """
import sys
sys.modules["ray"] = None
from compress.errors import ConfigError
from compress.workers import RayActors, RayWanted
try:
    RayActors(RayWanted(), threads=1, memory=1)
except ConfigError as told:
    print(told)
"""


def test_without_ray_it_is_told_what_to_install(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, env=environment, check=True)
    assert "need the package ray" in done.stdout and "pip install 'smaller-convnets[ray]'" in done.stdout
