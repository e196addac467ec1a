"""Assertions of the conformance checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sagan_cli.errors import UsageError


def require(condition: bool, otherwise: str) -> None:
    """Raise AssertionError(otherwise) unless the condition holds, also under `python -O`."""
    if not condition:
        raise AssertionError(otherwise)


def raises_usage_error(call: Callable[[], Any]) -> bool:
    """Return whether the call raises UsageError; other exceptions propagate."""
    try:
        call()
    except UsageError:
        return True
    return False
