"""What `auto` means for the built-in architectures: the block, the ratio and the norms that each was published with.

The architectures build by this table, and settings are compared by it before PyTorch loads. A plugin's own are its
affair: here they stay `auto`.
"""

from __future__ import annotations

from typing import Any

AUTO = "auto"
"""The value of a setting that is left to the architecture."""
SAID_BY_FLAG = ("attention", "attn_ratio", "spectral_norm")
"""The options of an architecture that have a flag of their own; all others come by `--set model.options.NAME`."""
USUAL: dict[str, dict[str, Any]] = {
    "sagan": {"attention": "official", "attn_ratio": 8, "spectral_norm": "both"},
    "sagan-dcgan": {"attention": "port", "attn_ratio": 8, "spectral_norm": "both"},
    "sagan-tutorial": {"attention": "port", "attn_ratio": 8, "spectral_norm": "none"},
    "sagan-cifar": {"attention": "official", "attn_ratio": 8, "spectral_norm": "both"},
    "dcgan": {"spectral_norm": "none"},
}
"""Architecture -> its options where nothing is said of them; one that it has not is not there."""


def shown(option: str, value: Any) -> str:
    """An option as a user writes it: `--attn-ratio 3`, `--set model.options.heads=3`."""
    if option in SAID_BY_FLAG:
        return f"--{option.replace('_', '-')} {value}"
    return f"--set model.options.{option}={value}"
