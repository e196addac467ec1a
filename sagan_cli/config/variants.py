"""What `sagan ablate --attn` names: the twins, each by what stands where attention could. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sagan_cli.config.schema import SETTINGS
from sagan_cli.errors import UsageError, closest
from sagan_cli.geometry import default_attention, geometry

NONE, OFFICIAL, RESIDUAL = "none", "official", "residual"
KINDS = SETTINGS["model.attention"].choices
FORMS_OF_NAME = f"none, a side as in 16, several as in 8+16, one of {', '.join(KINDS)}, or KIND@SIDE as in paper@16"


@dataclass(frozen=True)
class Variant:
    """One twin: what differs between it and the others."""

    name: str
    """As it is written, at its shortest: `16` and not `official@16`."""
    attention: str
    """A value of `--attention`; what stands at the sides."""
    sides: tuple[int, ...] | None
    """Longer sides of feature maps, smallest first; () is none, None the default place, until `placed`."""


def parse_variants(text: str) -> tuple[Variant, ...]:
    """The variants of a comma list, in its order, their sides not yet held against a picture size.

    Raises:
        UsageError: a word that names none, an empty list, or the same twin twice.
    """
    words = [word.strip().lower() for word in text.split(",") if word.strip()]
    if not words:
        raise UsageError(f"--attn: names no variant; write {FORMS_OF_NAME}")
    found = tuple(_variant(word) for word in words)
    _require_different(found)
    return found


def placed(variants: tuple[Variant, ...], height: int, width: int) -> tuple[Variant, ...]:
    """The same with their sides known, for pictures of this size.

    Raises:
        UsageError: a side that these pictures do not have, or two names for one twin.
    """
    sites = geometry(height, width).attention_sites()
    size = str(height) if height == width else f"{height}x{width}"
    legal = ", ".join(map(str, sites))
    found = []
    for variant in variants:
        sides = default_attention(height, width) if variant.sides is None else variant.sides
        if variant.sides is None and not sides:
            raise UsageError(
                f"--attn {variant.name}: pictures of {size} have no default place; write {variant.name}@SIDE, one of "
                f"{legal}"
            )
        for side in sides:
            if side not in sites:
                raise UsageError(f"--attn {variant.name}: pictures of {size} have feature maps {legal}, and no {side}")
        found.append(replace(variant, sides=sides))
    _require_different(tuple(found))
    return tuple(found)


def _variant(word: str) -> Variant:
    if word == NONE:
        return Variant(NONE, OFFICIAL, ())
    kind, at, places = word.partition("@")
    if not at and word in KINDS:
        return Variant(word, word, None)
    if not at:
        kind, places = OFFICIAL, word
    known = kind in KINDS
    if known and all(part.isdecimal() and int(part) for part in places.split("+")):
        sides = sorted(int(part) for part in places.split("+"))
        if len(set(sides)) < len(sides):
            raise UsageError(f"--attn {word}: the same map twice")
        where = "+".join(map(str, sides))
        return Variant(where if kind == OFFICIAL else f"{kind}@{where}", kind, tuple(sides))
    near = closest(kind, KINDS) if at and not known else closest(word, (NONE, *KINDS))
    raise UsageError(f"--attn {word}: no such variant{near}; write {FORMS_OF_NAME}")


def _require_different(variants: tuple[Variant, ...]) -> None:
    seen: dict[tuple[str, tuple[int, ...] | None], str] = {}
    for variant in variants:
        key = variant.attention, variant.sides
        if key in seen:
            raise UsageError(f"--attn: {seen[key]} and {variant.name} are the same twin; leave one of them out")
        seen[key] = variant.name
