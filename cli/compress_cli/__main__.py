"""``compress`` and ``python -m compress_cli``."""

from __future__ import annotations

import os

# Before torch starts its threads: on a busy host those that spin while they wait take the processor from those that work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from compress_cli.app import app


def main() -> None:
    """Runs the command line."""
    app(prog_name="compress")


if __name__ == "__main__":
    main()
