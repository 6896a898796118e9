"""Which channels belong together, read off one run of the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.core import lazy

if TYPE_CHECKING:
    from compress.coupling.agreement import CouplingAgreement as CouplingAgreement
    from compress.coupling.agreement import asks_for_values as asks_for_values
    from compress.coupling.symbolic import NotTraceable as NotTraceable
    from compress.coupling.symbolic import symbolic_graph as symbolic_graph
    from compress.coupling.tracer import trace as trace
    from compress.coupling.tracer import trace_with_agreement as trace_with_agreement
    from compress.coupling.trial_cut import shaken as shaken
    from compress.coupling.value_questions import value_branches as value_branches
else:  # so that a name that is gone is an error to a type checker, and not Any
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "agreement": "CouplingAgreement asks_for_values",
            "symbolic": "NotTraceable symbolic_graph",
            "tracer": "trace trace_with_agreement",
            "trial_cut": "shaken",
            "value_questions": "value_branches",
        },
    )
