"""The errors that a user can cause or mend. Everything else is a bug and keeps its traceback.

Every message is one line that names the flag, file or key and the way out. Only `sagan_cli.cli.main` turns these
into exit codes: 2 for a wrong command line, 1 for work that failed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SaganError(Exception):
    """Work that failed for a reason outside the code: exit code 1."""

    exit_code = 1


class UsageError(SaganError):
    """A command line, configuration key or environment variable that cannot be right: exit code 2."""

    exit_code = 2


class DataError(SaganError):
    """A data set that exists and cannot be trained on."""


class BadImage(SaganError):
    """One picture that cannot be read; packing counts and skips it."""


class PluginError(SaganError):
    """A plugin that cannot be found, imported or used."""


class CheckpointError(SaganError):
    """A checkpoint that is missing, damaged or of another format."""


def closest(name: str, known: Iterable[str]) -> str:
    """ " (did you mean 'x'?)" for a near miss, "" otherwise; made to stand at the end of a message."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""
