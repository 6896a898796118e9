"""Workers as actors of a Ray cluster: on this machine, or on many."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from compress.core import Listen, Warned, ignore, plural
from compress.errors import ConfigError, WorkerError, one_line
from compress.workers.base import Answered, Arrived, FileRecipe, Lost, Recipe, RequestPart
from compress.workers.ray_cluster import connect, on_node, place_seconds, refuse_no_room, refuse_unlike, room
from compress.workers.ray_scorer import NodeFacts, RayScorer, facts_here
from compress.workers.ray_wanted import RayWanted
from compress.workers.serving import Failed, Scored

_PIECE = 16 << 20
"""Bytes of a file that are one object in the store: a small store takes a large file, too."""
_TURN = 1.0
"""Seconds between two looks at the clock."""
_REST = 30.0
"""Seconds that those are waited for which the cluster has room for, once the first is there."""
_MOST = 1024
_EVERYWHERE = "compress and torch have to be installed on every node"

_Question = Literal["facts", "follow", "score"]


@dataclass
class _Actor:
    handle: Any
    asked: dict[Any, _Question] = field(default_factory=dict)
    """References to answers that are not there yet."""
    facts: NodeFacts | None = None
    """None until it has a place."""
    lost: Lost | None = None


class RayActors:
    """So many actors, each with an evaluation of its own; a ``Transport``.

    An actor asks Ray for as many CPUs as it has threads, for memory, and for no GPU: scores are computed on the CPU. Actors are
    spread over the nodes. A file that a recipe names is put into Ray's store once, and read from there by each actor. One that
    finds no place waits for it, and joins the others when there is one. Ray itself restarts nothing: who asks repeats what a
    lost actor had, and a new one follows the last recipe.

    Args:
        wanted: which cluster, and how many actors.
        threads: of each.
        memory: bytes of each.
        listen: receives warnings.

    Raises:
        ConfigError: Ray is not installed, the head cannot be reached, there is room for nobody, or nodes are unlike.
        WorkerError: no actor finds a place.
    """

    def __init__(self, wanted: RayWanted, *, threads: int, memory: int, listen: Listen = ignore) -> None:
        self._recipe: bytes | None = None
        self._pieces: list[Any] = []
        self._heard: list[Answered | Lost | Arrived] = []
        self._actors: list[_Actor] = []
        self._moved = 0
        self._first: NodeFacts | None = None
        self._alone, self._patience = 0.0, place_seconds()
        self._wanted = f"{threads} {'CPU' if threads == 1 else 'CPUs'} and {memory / 2**30:.1f} GiB of memory"
        self._connection = connect(wanted)
        try:
            ray = self._connection.ray
            self._here = facts_here("here")
            if wanted.actors is None:
                refuse_no_room(ray.nodes(), threads, memory)
            fit = min(_MOST, room(ray.nodes(), threads, memory))
            asks = {"num_cpus": threads, "num_gpus": 0, "memory": memory, "scheduling_strategy": "SPREAD"}
            self._class = ray.remote(RayScorer).options(max_restarts=0, max_task_retries=0, **asks)
            self._actors += [self._start() for _ in range(wanted.actors or fit)]
            if self.width > fit:
                said = (
                    f"the Ray cluster has room for {fit} of {plural(self.width, 'actor')}: the others join when there is more"
                )
                listen(Warned(said))
            self._assemble(min(fit, self.width))
            for note in self._slow_stores():
                listen(Warned(note))
        except BaseException:
            self.close()
            raise

    @property
    def width(self) -> int:
        """How many actors there are, with and without a place."""
        return len(self._actors)

    @property
    def moved(self) -> int:
        """Bytes of parts, recipes and answers so far; not of the files that recipes name."""
        return self._moved

    @property
    def there(self) -> tuple[NodeFacts, ...]:
        """Where actors are, and what they compute with."""
        return tuple(a.facts for a in self._actors if a.facts is not None and a.lost is None)

    @property
    def pids(self) -> tuple[int, ...]:
        """Their process ids, each on its node; 0 of one without a place."""
        return tuple(0 if a.facts is None or a.lost is not None else a.facts.pid for a in self._actors)

    @property
    def unlike_here(self) -> str | None:
        """The nodes' instructions, where scores of this process could be rounded otherwise; None where they are its own."""
        theirs = self._first.instructions if self._first is not None else self._here.instructions
        return None if theirs == self._here.instructions else theirs

    def load(self, recipe: Recipe) -> None:
        """Every actor follows this recipe; returns when its file is in Ray's store."""
        self._recipe = pickle.dumps(recipe)
        self._pieces = []  # the last file's may go
        if isinstance(recipe, FileRecipe):
            put = self._connection.ray.put
            self._pieces = [put(piece) for piece in _pieces(Path(recipe.path))]
        for number, actor in enumerate(self._actors):
            if actor.lost is not None:
                self.replace(number)
            elif actor.facts is not None:
                self._follow(actor)

    def first_loaded(self) -> None:
        """Waits until all actors that have a place have followed their recipes.

        Raises:
            ConfigError: a node lacks what is needed for it.
            WorkerError: it cannot be followed, or an actor was lost over it.
        """
        while not self.there or any("follow" in a.asked.values() for a in self._actors):
            self._listen()
            for heard in self._heard:
                if isinstance(heard, Lost):
                    self.close()
                    raise WorkerError(f"a worker {heard.reason} while it started")
                if isinstance(heard, Answered):
                    self.close()
                    raise heard.error or WorkerError("a worker answered before it was asked")

    def ready(self, worker: int) -> bool:
        """Whether it has a place, or had one: who is asked after its loss tells of it."""
        return self._actors[worker].facts is not None

    def give(self, worker: int, part: RequestPart) -> None:
        """Hands an actor a part."""
        asked = self._actors[worker]
        if asked.lost is not None:
            self._heard.append(asked.lost)
            return
        told = pickle.dumps(part)
        self._moved += len(told)
        asked.asked[asked.handle.score.remote(told)] = "score"

    def wait(self) -> Answered | Lost | Arrived:
        """The next answer, loss or arrival.

        Raises:
            WorkerError: no actor has a place, and none found one for as long as the first may take.
        """
        while not self._heard:
            self._listen()
        return self._heard.pop(0)

    def replace(self, worker: int) -> None:
        """A new actor in the place of one that is lost, wherever there is room."""
        self._end(self._actors[worker])
        self._actors[worker] = self._start()

    def close(self) -> None:
        """Ends all of them, and a Ray that was started for them."""
        for actor in self._actors:
            self._end(actor)
        self._pieces = []
        self._connection.end()

    def _start(self) -> _Actor:
        actor = _Actor(self._class.remote())
        actor.asked[actor.handle.facts.remote()] = "facts"
        return actor

    def _follow(self, actor: _Actor) -> None:
        if self._recipe is not None:
            self._moved += len(self._recipe)
            actor.asked[actor.handle.follow.remote(self._recipe, self._pieces)] = "follow"

    def _end(self, actor: _Actor) -> None:
        actor.asked.clear()
        with suppress(Exception):  # it is gone, or Ray is
            self._connection.ray.kill(actor.handle, no_restart=True)

    def _assemble(self, fit: int) -> None:
        """Waits for the actors that the cluster has room for, for the others not long, and compares where they are."""
        ends: float | None = None
        while len(self.there) < max(1, fit) and (ends is None or time.monotonic() < ends):
            self._listen()
            for heard in self._heard:
                if isinstance(heard, Answered) and heard.error is not None:
                    raise heard.error
                if isinstance(heard, Lost):
                    raise WorkerError(f"a worker {heard.reason} while it started")
            if self.there and ends is None:
                ends = time.monotonic() + _REST
        self._heard.clear()

    def _slow_stores(self) -> Iterator[str]:
        """Ray puts its store on the disk, and says so on the node only, where shared memory is smaller than the store."""
        stores = {n["NodeManagerAddress"]: n["Resources"].get("object_store_memory", 0) for n in self._connection.ray.nodes()}
        for node in dict.fromkeys(self.there):
            store = int(stores.get(node.node, 0))
            if 0 < node.shared_memory < store:
                yield (
                    f"on the node {node.node} Ray keeps its objects on the disk: its store has {store >> 20} MiB, /dev/shm "
                    f"{node.shared_memory >> 20} MiB (ray start --object-store-memory, docker run --shm-size)"
                )

    def _listen(self) -> None:
        """Waits for some time until an actor says something or is lost, and takes it down.

        Raises:
            WorkerError: for too long nobody had a place.
        """
        waiting = {ref: number for number, actor in enumerate(self._actors) for ref in actor.asked}
        if not waiting:
            raise WorkerError("no worker is left to wait for")
        done, _ = self._connection.ray.wait(list(waiting), timeout=_TURN)
        for ref in done:
            self._hear(waiting[ref], ref)
        if done or any(a.facts is not None and a.asked for a in self._actors):
            self._alone = 0.0
            return
        self._alone = self._alone or time.monotonic()
        if time.monotonic() - self._alone > self._patience:
            raise WorkerError(
                f"no actor found a place in the Ray cluster: each wants {self._wanted}",
                hint="`ray status` on the head shows what is taken; the same command goes on from the journal",
            )

    def _hear(self, number: int, ref: Any) -> None:
        actor, failures = self._actors[number], self._connection.ray.exceptions
        question = actor.asked.pop(ref)
        try:
            answer = self._connection.ray.get(ref)
        except failures.RayTaskError as error:
            where = "" if actor.facts is None else f" on {actor.facts.node}"
            told = WorkerError(f"a Ray actor{where} failed: {one_line(error)}", hint=_EVERYWHERE)
            self._heard.append(Answered(number, (), told))
        except failures.RayError as error:
            self._lose(number, actor, error)
        else:
            self._take(number, actor, question, answer)

    def _take(self, number: int, actor: _Actor, question: _Question, answer: Any) -> None:
        if question == "facts":
            try:
                refuse_unlike(self._here, (self._first or answer, answer))
            except ConfigError as error:
                self._heard.append(Answered(number, (), error))
                return
            actor.facts = answer
            self._first = self._first or answer
            self._follow(actor)
            self._heard.append(Arrived(number))
            return
        self._moved += len(answer)
        said: Scored | Failed | None = pickle.loads(answer)
        if isinstance(said, Failed):
            assert actor.facts is not None
            self._heard.append(Answered(number, (), on_node(actor.facts.node, said.error, question == "follow")))
        elif said is not None:
            self._heard.append(Answered(number, said.scores))

    def _lose(self, number: int, actor: _Actor, error: Exception) -> None:
        """Ray's error of a call is that of all calls of the actor."""
        actor.asked.clear()
        if getattr(error, "actor_init_failed", False):
            told = WorkerError(f"a Ray actor does not start: {one_line(error)}", hint=_EVERYWHERE)
            self._heard.append(Answered(number, (), told))
            return
        unreached = isinstance(error, self._connection.ray.exceptions.ActorUnavailableError)
        why = "is not reached any more" if unreached else "died"
        if "memory pressure" in str(error):
            why = "was ended by Ray for want of memory"
        actor.lost = Lost(number, why if actor.facts is None else f"on {actor.facts.node} {why}")
        self._heard.append(actor.lost)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece
