"""Errors that a user can cause or correct. Any other exception is a bug.

Every message is one line that names the flag, file or key and the way out. Only `sagan_cli.cli.main` turns these
into exit codes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SaganError(Exception):
    """A task that failed for a reason outside the code: exit code 1."""

    exit_code = 1


class UsageError(SaganError):
    """An invalid command line, configuration key or environment variable: exit code 2."""

    exit_code = 2


class DataError(SaganError):
    """A dataset that exists and cannot be used."""


class BadImage(SaganError):
    """An image that cannot be read; packing counts and skips it."""


class PluginError(SaganError):
    """A plugin that cannot be found, imported or used."""


class CheckpointError(SaganError):
    """A checkpoint that is missing, damaged or of another format."""


def closest(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the end of a message, or "" if no known name is similar."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""
