"""Workers: a request's plans scored by several processes, with the answers of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.core import lazy

if TYPE_CHECKING:
    from compress.workers.base import Answered as Answered
    from compress.workers.base import Arrived as Arrived
    from compress.workers.base import FileRecipe as FileRecipe
    from compress.workers.base import Lost as Lost
    from compress.workers.base import Recipe as Recipe
    from compress.workers.base import RequestPart as RequestPart
    from compress.workers.base import ScorePart as ScorePart
    from compress.workers.base import Transport as Transport
    from compress.workers.beside import WorkEnded as WorkEnded
    from compress.workers.beside import alone as alone
    from compress.workers.beside import side_by_side as side_by_side
    from compress.workers.processes import WorkerProcesses as WorkerProcesses
    from compress.workers.processes import refuse_unguarded as refuse_unguarded
    from compress.workers.ray_actors import RayActors as RayActors
    from compress.workers.ray_cluster import ray_kept as ray_kept
    from compress.workers.ray_wanted import RayWanted as RayWanted
    from compress.workers.sizing import check_memory as check_memory
    from compress.workers.sizing import fitting as fitting
    from compress.workers.spreading import ScoresArrived as ScoresArrived
    from compress.workers.spreading import SpreadEvaluation as SpreadEvaluation
else:  # so that a name that is gone is an error to a type checker, and not Any
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "base": "Answered Arrived FileRecipe Lost RequestPart Recipe ScorePart Transport",
            "processes": "WorkerProcesses refuse_unguarded",
            "ray_actors": "RayActors",
            "ray_cluster": "ray_kept",
            "ray_wanted": "RayWanted",
            "beside": "WorkEnded alone side_by_side",
            "sizing": "check_memory fitting",
            "spreading": "ScoresArrived SpreadEvaluation",
        },
    )
