"""A Ray cluster: joined or started, what it has room for, and whether its nodes compute alike."""

from __future__ import annotations

import logging
import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from compress.core import cores, seconds_of
from compress.errors import ConfigError, WorkerError, one_line
from compress.workers.ray_scorer import NodeFacts
from compress.workers.ray_wanted import RayWanted

_STORE = 256 << 20
"""Bytes of the object store of a Ray that is started here: a file passes through it once, in pieces."""
_LEAST_STORE = 80 << 20
"""That Ray takes."""
_SECONDS = 5.0
"""That a head may take to accept a connection."""
_GIB = 2**30
PLACE = "COMPRESS_RAY_SECONDS"
_PLACE_SECONDS = 120.0


@dataclass(frozen=True)
class RayConnection:
    """This process at a Ray cluster.

    Attributes:
        ray: the module.
        ours: whether the connection, and a Ray that was started for it, ends with the workers.
    """

    ray: Any
    ours: bool

    def end(self) -> None:
        """Leaves the cluster, and ends it if it was started for these workers."""
        if self.ours:
            with suppress(Exception):  # its head may be gone
                self.ray.shutdown()


def connect(wanted: RayWanted) -> RayConnection:
    """Joins the cluster; where none is named and none runs, starts one on this machine.

    Raises:
        ConfigError: Ray is not installed, nobody answers there, or versions differ.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            f"workers on Ray need the package ray: {one_line(error)}", hint="pip install 'smaller-convnets[ray]'"
        ) from error
    if ray.is_initialized():
        return RayConnection(ray, ours=False)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if wanted.address is not None:
            _reach(wanted.address)
            ray.init(f"ray://{wanted.address}", **quiet)
        elif not _joined(ray, quiet):
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing here calls home
            ray.init(
                address="local",
                num_cpus=cores(),
                include_dashboard=False,
                object_store_memory=store_size(_shared_memory()),
                **quiet,
            )
    except ConfigError:
        raise
    except Exception as error:  # of many kinds, Ray's own and its libraries'
        ray.shutdown()
        raise ConfigError(f"{wanted.told} cannot be joined: {one_line(error)}", hint=_cure(str(error), ray)) from error
    return RayConnection(ray, ours=True)


@contextmanager
def ray_kept(wanted: RayWanted | None) -> Iterator[None]:
    """All workers of the block use one connection, and one Ray where it has to be started; nothing where none is wanted.

    Raises:
        ConfigError: as of :func:`connect`.
    """
    connection = None if wanted is None else connect(wanted)
    try:
        yield
    finally:
        if connection is not None:
            connection.end()


def _joined(ray: Any, quiet: Mapping[str, Any]) -> bool:
    """Whether there is a running Ray that this machine belongs to, or that RAY_ADDRESS names; it is joined."""
    named = os.environ.get("RAY_ADDRESS", "")
    if named and named not in ("auto", "local"):
        _reach(named.rpartition("://")[2])
    try:
        ray.init(address="auto", **quiet)
    except ConnectionError:
        if named not in ("", "auto", "local"):
            raise
        return False
    return True


def _reach(address: str) -> None:
    """Ray tries for half a minute and says little; an open port is told at once.

    Raises:
        ConfigError: nobody listens there.
    """
    parts = urlsplit(f"ray://{address}")
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.hostname is None or port is None:
        raise ConfigError(f"{address!r} is no address of a Ray head", hint="HOST:PORT, as in ray://10.0.0.1:10001")
    try:
        socket.create_connection((parts.hostname, port), _SECONDS).close()
    except OSError as error:
        raise ConfigError(
            f"no Ray head can be reached at {address}: {error.strerror or error}",
            hint="start it there (ray start --head), and give the port of its Ray Client server, 10001 unless "
            "--ray-client-server-port says otherwise",
        ) from error


def _cure(said: str, ray: Any) -> str:
    """For what Ray says when it cannot be joined."""
    here = f"this process has Ray {ray.__version__}"
    if "version" in said.lower():
        return f"{here}: install the same Ray and the same Python here and on all nodes"
    if "grpc" in said.lower():
        return "pip install 'smaller-convnets[ray]'"
    return (
        f"{here}; `ray status` on the head says whether it runs; 10001 is the port of its Ray Client server; a cluster that "
        "wants a token wants RAY_AUTH_MODE=token and RAY_AUTH_TOKEN here, too"
    )


def _shared_memory() -> int:
    folder = Path("/dev/shm")
    return shutil.disk_usage(folder).free if folder.is_dir() else 0


def place_seconds() -> float:
    """That the first actor may take to find a place: ``COMPRESS_RAY_SECONDS``, 120 by default.

    Raises:
        ConfigError: it is no number above 0.
    """
    return seconds_of(PLACE, _PLACE_SECONDS)


def store_size(shared: int) -> int:
    """Bytes of an object store that this much free shared memory holds; where it holds none, Ray takes the disk for it."""
    return int(min(_STORE, 0.8 * shared)) if 0.8 * shared >= _LEAST_STORE else _STORE


def room(nodes: Iterable[Mapping[str, Any]], threads: int, memory: int) -> int:
    """How many actors find a place on nodes that do nothing else.

    Args:
        nodes: as ``ray.nodes()`` tells of them.
        threads: CPUs of an actor.
        memory: bytes of one.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    return sum(min(int(has.get("CPU", 0)) // threads, int(has.get("memory", 0)) // memory) for has in alive)


def refuse_no_room(nodes: Sequence[Mapping[str, Any]], threads: int, memory: int) -> None:
    """Refuses a cluster that has room for no actor at all.

    Raises:
        ConfigError: what an actor wants, and what the nodes have, are told.
    """
    if room(nodes, threads, memory):
        return
    has = [node["Resources"] for node in nodes if node["Alive"]]
    seen = "; ".join(f"{r.get('CPU', 0):g} CPUs and {r.get('memory', 0) / _GIB:.1f} GiB" for r in has[:8])
    raise ConfigError(
        f"no node of the Ray cluster has {threads} CPUs and {memory / _GIB:.1f} GiB of memory for an actor: "
        f"{len(has)} nodes, with {seen}",
        hint="--score-threads 1, or larger nodes; where nodes start when they are wanted, name the actors: --workers ray:4",
    )


def refuse_unlike(here: NodeFacts, there: Sequence[NodeFacts]) -> None:
    """Refuses nodes whose scores could be others than this process's, or than each other's.

    Raises:
        ConfigError: another torch or compress than here, or other instructions among the nodes.
    """
    for node in there:
        for what in ("torch", "compress"):
            mine, theirs = getattr(here, what), getattr(node, what)
            if mine != theirs:
                raise ConfigError(
                    f"the node {node.node} has another {what} than this process: {theirs}; here {mine}",
                    hint="install the same on all nodes: one container image does it",
                )
    first = there[0] if there else None
    for node in there:
        if first is not None and node.instructions != first.instructions:
            raise ConfigError(
                f"nodes compute with other instructions, and so round otherwise: {first.node} with {first.instructions}, "
                f"{node.node} with {node.instructions}",
                hint="let Ray run on nodes of one kind",
            )


def on_node(node: str, error: Exception, following: bool) -> Exception:
    """An error that an actor's node raised, with what it may lack.

    Args:
        node: its address.
        error: as it was raised there.
        following: it was raised while a recipe was followed.
    """
    if following and isinstance(error, ImportError | AttributeError):
        return ConfigError(
            f"the node {node} cannot make what it is sent: {one_line(error)}",
            hint="install there what this process has, or send your own modules along: ray job submit --working-dir .",
        )
    if isinstance(error, FileNotFoundError):
        return ConfigError(
            f"the node {node} lacks a file: {one_line(error)}",
            hint="put it there, or on a disk that all nodes share; images of --data are sent and need not be there",
        )
    if isinstance(error, WorkerError):
        return WorkerError(f"on the node {node}: {error.message}", hint=error.hint)
    return error
