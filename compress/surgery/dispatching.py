"""A mode that sees every operation of a run, without torch's compiler."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class DispatchMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What the modes of a trace and of a simulation are made of."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch would import its compiler, a second and more, only to keep it away from here; a trace compiles nothing."""
        return False
