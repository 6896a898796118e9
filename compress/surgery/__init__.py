"""Cutting a network by its plan, simulating the cut, and the guard that compares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.core import lazy

if TYPE_CHECKING:
    from compress.surgery.channel_moments import MOMENTS as MOMENTS
    from compress.surgery.channel_moments import reduced_dims as reduced_dims
    from compress.surgery.copying import deep_copy as deep_copy
    from compress.surgery.cutting import cut as cut
    from compress.surgery.cutting import cut_state as cut_state
    from compress.surgery.cutting import is_channel_map as is_channel_map
    from compress.surgery.cutting import own_tensors as own_tensors
    from compress.surgery.cutting import refresh_attributes as refresh_attributes
    from compress.surgery.cutting import replaced as replaced
    from compress.surgery.cutting import shaped_to as shaped_to
    from compress.surgery.dispatching import DispatchMode as DispatchMode
    from compress.surgery.guard import Verified as Verified
    from compress.surgery.guard import random_plan as random_plan
    from compress.surgery.guard import verify as verify
    from compress.surgery.guard_training import verify_training as verify_training
    from compress.surgery.rewriting import cuttable as cuttable
    from compress.surgery.skipping import Skipped as Skipped
    from compress.surgery.skipping import silence as silence
    from compress.surgery.steadiness import unsteady as unsteady
else:  # so that a name that is gone is an error to a type checker, and not Any
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "channel_moments": "MOMENTS reduced_dims",
            "copying": "deep_copy",
            "cutting": "cut cut_state is_channel_map own_tensors refresh_attributes replaced shaped_to",
            "dispatching": "DispatchMode",
            "guard": "Verified random_plan verify",
            "guard_training": "verify_training",
            "rewriting": "cuttable",
            "skipping": "Skipped silence",
            "steadiness": "unsteady",
        },
    )
