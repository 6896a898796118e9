"""``package.module:name``: the user's own code, named on the command line."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

_FORM = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def is_entrypoint(spec: str) -> bool:
    """Whether a text has the form ``package.module:name``."""
    return _FORM.fullmatch(spec) is not None


def import_entrypoint(spec: str) -> Any:
    """The object that ``package.module:name`` names. Importing runs the module: only ever call this with what the user typed.

    Modules of the working directory are found too, after everything that is installed.

    Raises:
        ImportError: the module or the name does not exist, or importing it failed.
    """
    module_name, _, attribute = spec.partition(":")
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        found: Any = importlib.import_module(module_name)
    except ImportError:
        raise
    except Exception as error:  # whatever the user's module does when it is imported
        raise ImportError(f"importing {module_name} failed: {error!r}") from error
    finally:
        sys.path.remove(here)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ImportError(f"{module_name} has no {attribute!r}")
        found = getattr(found, part)
    return found
