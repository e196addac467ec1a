"""Placement of attention in the published networks, and the options of their architectures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from sagan_cli.config.schema import option_text
from sagan_cli.contracts import ModelSpec
from sagan_cli.errors import UsageError, closest
from sagan_cli.geometry import check_attention, default_attention
from sagan_cli.model.attention_blocks import KINDS, QK_NORMS, RATIOS, attention_block
from sagan_cli.plugins.registry import default_options

PLACES = ("auto", "published", "sides")
"""`published`: the stages of the source; `sides`: the maps of `--attn-at`; `auto`: see `attended`."""
ATTENTION: dict[str, tuple[Any, ...]] = {
    "attention": KINDS, "attn_ratio": RATIOS, "qk_norm": QK_NORMS, "places": PLACES,
}  # fmt: skip
"""Options of the architectures with attention, and their values."""


def checked_options(spec: ModelSpec, arch: str, allowed: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Return all options of an architecture, after checking those of `spec` against `allowed` (name -> allowed values).

    Raises:
        UsageError: unknown option or value.
    """
    for name, value in spec.options.items():
        text = option_text(name, value)
        if name not in allowed:
            raise UsageError(f"{text}: architecture '{arch}' has no such option{closest(name, allowed)}")
        if value not in allowed[name]:
            values = ", ".join(map(str, allowed[name]))
            raise UsageError(f"{text}: " + (f"choose {values}" if allowed[name][1:] else f"'{arch}' has {values} only"))
    return {**default_options(arch), **spec.options}


def no_attention(spec: ModelSpec, arch: str) -> None:
    """Refuse attention in an architecture without any.

    Raises:
        UsageError: `spec.attn_at` is not empty.
    """
    if spec.attn_at:
        sides = ",".join(map(str, spec.attn_at))
        raise UsageError(f"--attn-at {sides}: architecture '{arch}' has no attention; write --attn-at none, or auto")


def settled(spec: ModelSpec, sides: Sequence[int], published: Sequence[int], *, auto: bool) -> ModelSpec:
    """Resolve `--attn-at` for an architecture with published attention stages; the result is recorded.

    `auto` means the published stages: `attn_at` then lists G's maps, and the option `places` is `published`, since D
    has its own.

    Args:
        sides: longer sides of the maps of G's stages, in order.
        published: as for `attended`.
        auto: whether `--attn-at` is auto; otherwise `spec.attn_at` is the user's choice.
    """
    places = spec.options.get("places", "auto")
    if places == "published" or (places == "auto" and auto):
        if not spec.attn_at and not auto:
            return spec
        stages = {min(stage, len(sides) - 1) for stage in published}
        attn_at = tuple(sorted(sides[stage] for stage in stages))
        return replace(spec, attn_at=attn_at, options={**spec.options, "places": "published"})
    # Without this option, the default map of `sagan` would mean the published stages: see `attended`.
    return replace(spec, options={**spec.options, "places": "sides"}) if spec.attn_at else spec


def attended(spec: ModelSpec, sides: Sequence[int], published: Sequence[int]) -> dict[int, str]:
    """Return stage number -> longer side of its map, for the stages that are followed by attention.

    The option `places` decides. Old specifications without it do not distinguish `--attn-at auto` from the default map
    of `sagan`, so that map means the published stages there.

    Args:
        sides: longer sides of the maps of all stages, in the order of the network.
        published: stages with attention in the source; a smaller network uses its last stage instead.

    Raises:
        UsageError: a side that is not a feature map at this image size.
    """
    check_attention(spec.height, spec.width, spec.attn_at)
    if not spec.attn_at:
        return {}
    places = spec.options.get("places", "auto")
    usual = spec.attn_at == default_attention(spec.height, spec.width)
    if places == "published" or (places == "auto" and usual):
        stages = sorted({min(stage, len(sides) - 1) for stage in published})
    else:
        stages = [stage for stage, side in enumerate(sides) if side in spec.attn_at]
    return {stage: str(sides[stage]) for stage in stages}


class AttentionBlocks(nn.ModuleDict):
    """The attention blocks of a network by the longer side of their map, in the order of the network."""

    def __init__(
        self,
        spec: ModelSpec,
        places: Mapping[int, str],
        widths: Sequence[int],
        *,
        spectral: bool = False,
        arch: str,
    ) -> None:
        options = {**default_options(arch), **spec.options}
        super().__init__(
            {
                side: attention_block(
                    widths[stage],
                    options["attention"],
                    options["attn_ratio"],
                    spectral=spectral,
                    qk_norm=options.get("qk_norm", "none"),
                )
                for stage, side in places.items()
            }
        )
        self.places = dict(places)

    def after(self, stage: int) -> nn.Module:
        """Return the attention block after a stage, or the identity."""
        return self[self.places[stage]] if stage in self.places else nn.Identity()

    def layers(self) -> dict[str, nn.Module]:
        """Return the blocks that have attention maps, that is, all but the residual control."""
        return {side: block for side, block in self.items() if hasattr(block, "maps")}


class AttentionNetwork(nn.Module):
    """Base of the networks with attention blocks."""

    attention: AttentionBlocks

    def attention_layers(self) -> dict[str, nn.Module]:
        """Return the attention blocks by longer side of their map, in the order of the forward pass."""
        return self.attention.layers()
