"""The end of the process: whether Python takes itself apart first, which after PyTorch takes a third of a second.

A command that has written everything and holds nothing may say `quickly()`. Then all that programs register for the
end still runs, and only the destruction of every object, which ends in the same nothing, is left out.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Iterable
from typing import TextIO

_wanted = False


def quickly() -> None:
    """Said by a command whose files are closed and whose results are written."""
    global _wanted
    _wanted = True


def now(code: int, streams: Iterable[TextIO]) -> None:
    """End the process with `code`, `streams` flushed, if `quickly` was said and nobody would miss the rest; or return.

    It would be missed by a thread that still runs, and by a debugger, a profiler or `python -i`, which go on after the
    program.
    """
    watched = sys.gettrace() or sys.getprofile() or sys.flags.inspect
    if not _wanted or watched or threading.active_count() > 1:
        return
    atexit._run_exitfuncs()  # as `sys.exit` would: what plugins, logging and temporary files left to be done
    for stream in streams:
        stream.flush()
    os._exit(code)
