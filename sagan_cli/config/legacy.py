"""Settings as a run recorded them, in today's words, and what they come to: two runs are held against each other so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sagan_cli.config.architectures import AUTO, SAID_BY_FLAG, USUAL
from sagan_cli.config.schema import SETTINGS

NEWER = "train.decay_from"
"""A record without this setting is from before `auto` came for what the architecture decides."""
BEFORE_AUTO = {"model.attention": "official", "model.attn_ratio": 8, "model.spectral_norm": "both"}
"""What stood there for a setting that was left alone, and never reached the architecture."""


def recorded(before: Mapping[str, Any]) -> dict[str, Any]:
    """The `section.key` leaves of a record; one of today is as it was."""
    leaves = dict(before)
    if leaves and NEWER not in leaves:
        for key, usual in BEFORE_AUTO.items():
            value = leaves.get(key, usual)
            leaves[key] = AUTO if value == usual else str(value)
    return leaves


def effective(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """All settings, those that the leaves lack by their defaults, and `auto` replaced by what the architecture makes
    of it: settings that build the same are equal.
    """
    filled: dict[str, Any] = {key: setting.default for key, setting in SETTINGS.items()} | dict(leaves)
    usual = USUAL.get(filled["model.arch"], {})
    for name in SAID_BY_FLAG:
        if filled.get(f"model.{name}") == AUTO and name in usual:
            filled[f"model.{name}"] = str(usual[name])
    return filled
