"""``compress`` and ``python -m compress_cli``."""

from __future__ import annotations

import os

# Before torch starts its threads: on a busy host those that spin while they wait take the processor from those that work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if os.environ.get("WORLD_SIZE", "1") != "1":
    # Which parameters a network leaves unused is not known beforehand; DistributedDataParallel warns whenever it finds none.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

from compress_cli.app import app
from compress_cli.safe_console import show_traceback, show_warnings


def main() -> None:
    """Runs the command line."""
    show_warnings()
    try:
        app(prog_name="compress")
    except Exception:
        show_traceback()
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
