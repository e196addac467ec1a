"""Where the attention of a published network stands, and the options that its architecture takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from sagan_cli.config.architectures import USUAL, shown
from sagan_cli.contracts import ModelSpec
from sagan_cli.errors import UsageError, closest
from sagan_cli.geometry import check_attention, default_attention
from sagan_cli.model.attention import KINDS, RATIOS, attention_block

PLACES = ("auto", "published", "sides")
"""`published` stages of each network; the `sides` of `--attn-at`; or as `auto` says, see `attended`."""
ATTENTION: dict[str, tuple[Any, ...]] = {"attention": KINDS, "attn_ratio": RATIOS, "places": PLACES}
"""Options of every architecture here that attends, and their values."""


def options(spec: ModelSpec, arch: str, known: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """What a specification says of the options `known` (name -> possible values); those it does not name are absent.

    Raises:
        UsageError: an option that the architecture has not, or a value that the option has not.
    """
    for name, value in spec.options.items():
        said = shown(name, value)
        if name not in known:
            raise UsageError(f"{said}: architecture '{arch}' has no such option{closest(name, known)}")
        if value not in known[name]:
            there = ", ".join(map(str, known[name]))
            raise UsageError(f"{said}: " + (f"choose {there}" if known[name][1:] else f"'{arch}' has {there} only"))
    return dict(spec.options)


def no_attention(spec: ModelSpec, arch: str) -> None:
    """Refuse attention in a network that never had any.

    Raises:
        UsageError: `spec.attn_at` is not empty.
    """
    if spec.attn_at:
        sides = ",".join(map(str, spec.attn_at))
        raise UsageError(f"--attn-at {sides}: architecture '{arch}' has no attention; write --attn-at none, or auto")


def settled(spec: ModelSpec, sides: Sequence[int], published: Sequence[int], *, auto: bool) -> ModelSpec:
    """What an architecture with published stages makes of `--attn-at`, as its specification records it.

    Its `auto` is the published stages: `attn_at` then names G's maps, and the option `places` says that D has its own.

    Args:
        sides: of the maps on which G's stages end, in its order.
        published: as for `attended`.
        auto: whether `--attn-at` was left at auto; if not, `spec.attn_at` holds what was said.
    """
    places = spec.options.get("places", "auto")
    if places == "published" or (places == "auto" and auto):
        if not spec.attn_at and not auto:
            return spec
        stages = {min(stage, len(sides) - 1) for stage in published}
        attn_at = tuple(sorted(sides[stage] for stage in stages))
        return replace(spec, attn_at=attn_at, options={**spec.options, "places": "published"})
    # Without the word, the map that `auto` comes to in `sagan` would stand for the published stages: see `attended`.
    return replace(spec, options={**spec.options, "places": "sides"}) if spec.attn_at else spec


def attended(spec: ModelSpec, sides: Sequence[int], published: Sequence[int]) -> dict[int, str]:
    """Number of a stage -> longer side of the map that it ends on, for the stages after which a network attends.

    The option `places` says which they are. Specifications from before it was recorded told no `--attn-at auto` from
    the map that `auto` comes to in `sagan`, so that map stands for the published stages there, and every other list for
    itself. () is the twin without attention.

    Args:
        sides: of the maps of all stages, in the order of the network.
        published: stages with attention in the source; where a small picture has fewer, its last stage.

    Raises:
        UsageError: a side that is no feature map of these pictures.
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


class Attention(nn.ModuleDict):
    """The attention blocks of one network by the longer side of their map, in the order of the network."""

    def __init__(
        self,
        spec: ModelSpec,
        places: Mapping[int, str],
        widths: Sequence[int],
        *,
        spectral: bool = False,
        arch: str,
    ) -> None:
        said = {**USUAL[arch], **spec.options}
        super().__init__(
            {
                side: attention_block(widths[stage], said["attention"], said["attn_ratio"], spectral=spectral)
                for stage, side in places.items()
            }
        )
        self.places = dict(places)

    def after(self, stage: int) -> nn.Module:
        """What follows a stage: its attention block, or the identity."""
        return self[self.places[stage]] if stage in self.places else nn.Identity()

    def layers(self) -> dict[str, nn.Module]:
        """Those that have maps to look at: all but the residual control."""
        return {side: block for side, block in self.items() if hasattr(block, "maps")}
