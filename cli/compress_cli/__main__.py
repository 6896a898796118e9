"""``compress`` and ``python -m compress_cli``."""

from __future__ import annotations

from compress_cli.app import app


def main() -> None:
    """Runs the command line."""
    app(prog_name="compress")


if __name__ == "__main__":
    main()
