"""How the checks state what must hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sagan_cli.errors import UsageError


def that(condition: bool, otherwise: str) -> None:
    """`assert`, except that `python -O` keeps it."""
    if not condition:
        raise AssertionError(otherwise)


def refused(build: Callable[[], Any]) -> bool:
    """Whether the call is refused with a UsageError; any other exception passes through."""
    try:
        build()
    except UsageError:
        return True
    return False
