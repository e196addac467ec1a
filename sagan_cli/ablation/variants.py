"""Variants of attention, as `sagan ablate --attn` names them; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from sagan_cli.config.schema import AUTO, SETTINGS
from sagan_cli.errors import UsageError, closest
from sagan_cli.geometry import geometry

NONE = "none"
KINDS = tuple(kind for kind in SETTINGS["model.attention"].choices if kind != AUTO)
FORMS_OF_NAME = (
    f"none, auto, a side as in 16, several as in 8+16, one of {', '.join(KINDS)}, or KIND@SIDE as in paper@16"
)


@dataclass(frozen=True)
class Variant:
    """A kind of attention block and the feature maps that have it."""

    name: str
    """Shortest notation: `16`, not `official@16`, if official is the default block."""
    attention: str
    """A value of `--attention`."""
    sides: tuple[int, ...] | None
    """Longer sides of feature maps, ascending; () is no attention, None the default maps of the architecture."""


def parse_variants(text: str, own: str = "official") -> tuple[Variant, ...]:
    """Parse a comma-separated list of variants; `require_maps` checks their sides against an image size.

    Args:
        own: kind of a variant that names only sides.

    Raises:
        UsageError: an unknown variant, an empty list, or the same variant twice.
    """
    words = [word.strip().lower() for word in text.split(",") if word.strip()]
    if not words:
        raise UsageError(f"--attn: no variant; write {FORMS_OF_NAME}")
    found = tuple(_variant(word, own) for word in words)
    _require_different(found)
    return found


def require_maps(variants: tuple[Variant, ...], height: int, width: int) -> None:
    """Check that images of this size have the feature maps of all variants.

    Raises:
        UsageError: a map that does not exist; the message lists those that do.
    """
    sites = geometry(height, width).attention_sites()
    size = str(height) if height == width else f"{height}x{width}"
    legal = ", ".join(map(str, sites))
    for variant in variants:
        for side in variant.sides or ():
            if side not in sites:
                raise UsageError(f"--attn {variant.name}: images of {size} have feature maps {legal}, not {side}")


def _variant(word: str, own: str) -> Variant:
    if word == NONE:
        return Variant(NONE, own, ())
    kind, at, places = word.partition("@")
    if kind == AUTO:
        kind = own
    if not at and (word in KINDS or word == AUTO):
        return Variant(kind, kind, None)
    if not at:
        kind, places = own, word
    known = kind in (*KINDS, own)
    if known and all(part.isdecimal() and int(part) for part in places.split("+")):
        sides = sorted(int(part) for part in places.split("+"))
        if len(set(sides)) < len(sides):
            raise UsageError(f"--attn {word}: names a map twice")
        where = "+".join(map(str, sides))
        return Variant(where if kind == own else f"{kind}@{where}", kind, tuple(sides))
    near = closest(kind, KINDS) if at and not known else closest(word, (NONE, *KINDS))
    raise UsageError(f"--attn {word}: no such variant{near}; write {FORMS_OF_NAME}")


def _require_different(variants: tuple[Variant, ...]) -> None:
    seen: dict[tuple[str, tuple[int, ...] | None], str] = {}
    for variant in variants:
        key = variant.attention, variant.sides
        if key in seen:
            raise UsageError(f"--attn: {seen[key]} and {variant.name} are the same variant; remove one of them")
        seen[key] = variant.name
