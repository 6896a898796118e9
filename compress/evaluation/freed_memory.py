"""Memory that a search has freed, given back to the system.

Solutions and sliced weights of every size come and go beside each other, and C's allocator keeps what is freed in pieces that
later sizes do not fit: over thousands of candidates a process would hold several times what it uses.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from time import monotonic

_SECONDS = 5.0
"""Between two times; one takes milliseconds."""
_last = 0.0


def give_back(*, at_once: bool = False) -> None:
    """Hands free memory back where the C library can (glibc), at most every five seconds unless ``at_once``."""
    global _last
    if at_once or monotonic() - _last >= _SECONDS:
        with suppress(OSError, AttributeError, TypeError):  # another C library, or none to be asked
            ctypes.CDLL(None).malloc_trim(0)
        _last = monotonic()
