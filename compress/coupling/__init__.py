"""Which channels belong together, read off one run of the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.core import lazy

if TYPE_CHECKING:
    from compress.coupling.dependency_graph import disagreements as disagreements
    from compress.coupling.symbolic import NotTraceable as NotTraceable
    from compress.coupling.symbolic import symbolic_graph as symbolic_graph
    from compress.coupling.tracer import trace as trace
    from compress.coupling.trial_cut import shaken as shaken

__all__, __getattr__, __dir__ = lazy(
    __name__,
    {
        "dependency_graph": "disagreements",
        "symbolic": "NotTraceable symbolic_graph",
        "tracer": "trace",
        "trial_cut": "shaken",
    },
)
