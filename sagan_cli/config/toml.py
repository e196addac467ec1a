"""A resolved configuration as TOML that `--config` accepts, each line with the place that its value came from."""

from __future__ import annotations

import json
from typing import Any

from sagan_cli.config.resolve import Resolved
from sagan_cli.config.schema import OPTIONS_KEY, SETTINGS


def to_toml(resolved: Resolved) -> str:
    """The whole configuration; reading it back gives the same values."""
    lines: list[str] = []
    section = ""
    for key in SETTINGS:
        table, name = key.split(".", 1)
        if table != section:
            lines += ([""] if lines else []) + [f"[{table}]"]
            section = table
        lines.append(f"{f'{name} = {_literal(resolved.config.get(key))}':<32}  # {resolved.sources[key]}")
    if resolved.config.model.options:
        lines += ["", f"[{OPTIONS_KEY}]"]
        for name, value in resolved.config.model.options.items():
            lines.append(f"{json.dumps(name)} = {_literal(value)}")
    return "\n".join(lines) + "\n"


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # JSON's escapes are TOML's
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_literal(v) for v in value) + "]"
    return repr(value)
