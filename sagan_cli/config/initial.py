"""Settings of the networks that trained weights have, for `--init-from`. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sagan_cli.config.schema import AUTO, OPTION_FLAGS, OPTIONS_KEY, SETTINGS
from sagan_cli.contracts import ModelSpec
from sagan_cli.plugins import registry

INIT_FROM = "--init-from"
"""Source of these settings."""


def network_settings(arch: str, spec: ModelSpec) -> dict[str, Any]:
    """Return the settings that build networks of this specification, without its classes, which the data decide."""
    found: dict[str, Any] = {
        "model.arch": arch, "model.width": spec.base_width, "model.latent": spec.latent,
        "model.attn_at": ",".join(map(str, spec.attn_at)) or "none",
        "data.size": str(spec.height) if spec.height == spec.width else f"{spec.height}x{spec.width}",
        "data.channels": str(spec.channels),
    }  # fmt: skip
    for name, value in spec.options.items():
        flag = name in OPTION_FLAGS and str(value) in SETTINGS[f"model.{name}"].choices
        found[f"model.{name}" if flag else f"{OPTIONS_KEY}.{name}"] = str(value) if flag else value
    return found


def contradictions(values: Mapping[str, Any], initial: Mapping[str, Any]) -> list[str]:
    """Return the keys whose values build other networks than `initial` describes; sizes 64 and 64x64 are equal."""
    arch = initial["model.arch"]
    keys = {*initial, *(f"model.{name}" for name in OPTION_FLAGS)}
    keys |= {key for key in values if key.startswith(OPTIONS_KEY + ".")}
    return [k for k in sorted(keys) if _normal(k, values.get(k), arch) != _normal(k, initial.get(k), arch)]


def _normal(key: str, value: Any, arch: str) -> Any:
    name = key.rpartition(".")[2]
    if key == "data.size":
        sides = re.split("[xX×]", str(value).strip())
        return sides[0], sides[-1]
    if key == "model.attn_at":
        return sorted(side.strip() for side in str(value).lower().split(","))
    if value in (None, AUTO) and (name in OPTION_FLAGS or key.startswith(OPTIONS_KEY)):
        value = registry.default_options(arch).get(name, AUTO)
    return str(value) if name in OPTION_FLAGS else value
