"""What `sagan visualize-attn` writes: which kind a path means, and scenes as the bytes of each kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sagan_cli.errors import UsageError, closest

if TYPE_CHECKING:
    from sagan_cli.attention.figure import Style
    from sagan_cli.attention.rows import Points
    from sagan_cli.attention.scene import Scene

STILLS, NUMBERS, ANIMATIONS = ("png", "svg", "pdf"), ("npz", "safetensors"), ("gif", "webp")
KINDS = (*STILLS, "html", *NUMBERS, *ANIMATIONS)


def kind_of(out: str, format_: str | None, steps: bool) -> str:
    """The kind that --out and --format agree on.

    Raises:
        UsageError: they do not, there is no such kind, or an animation of a single checkpoint.
    """
    if format_ is not None and format_ not in KINDS:
        raise UsageError(f"--format {format_}: choose one of {', '.join(KINDS)}{closest(format_, KINDS)}")
    suffix = "" if out == "-" else Path(out).suffix.lower().removeprefix(".")
    if suffix in KINDS and format_ not in (None, suffix):
        raise UsageError(f"--format {format_} contradicts --out {out}")
    if suffix and suffix not in KINDS and format_ is None:
        raise UsageError(f"--out {out}: '.{suffix}' is not one of .{' .'.join(KINDS)} (or give --format)")
    if not suffix and out != "-" and format_ is None:
        raise UsageError(f"--out {out}: end it in .{', .'.join(KINDS[:-1])} or .{KINDS[-1]}, or give --format")
    kind = format_ or suffix or "png"
    if kind in ANIMATIONS and not steps:
        raise UsageError(f"--out {out}: a {kind} shows a run's checkpoints one after the other: add --steps")
    return kind


def encoded(
    kind: str,
    scenes: Sequence[Scene],
    drawn: Sequence[tuple[str, str]],
    points: Points,
    *,
    title: str,
    style: Style,
    about: Mapping[str, Any],
) -> bytes:
    """One or more scenes of the same pictures as a file.

    Args:
        drawn: the layers of a figure; pages and numbers take all that the scenes have.
        points: the query points of each picture.
        about: what the file says of its making.
    """
    if kind == "html":
        from sagan_cli.attention.page import page

        return page(scenes, title=f"What {title} looks at")
    if kind in NUMBERS:
        from sagan_cli.attention import numbers

        return (numbers.npz if kind == "npz" else numbers.safetensors)(numbers.arrays(scenes), about)

    from sagan_cli.attention import plotting
    from sagan_cli.attention.figure import describe, figure
    from sagan_cli.attention.rows import layer_of, rows_of, strip

    def still(scene: Scene) -> Any:
        words = [describe(layer_of(scene, key)) for key in drawn]
        return figure(rows_of(scene, drawn, points), title=f"{title}{_at(scene)}", lines=words, style=style)

    if kind in ANIMATIONS:
        return plotting.animation([still(scene) for scene in scenes], kind)
    if len(scenes) == 1:
        plot = still(scenes[0])
    else:
        words = [f"{', then '.join(scenes[0].captions)}; a layer adds |gamma o| / |x|"]
        words += [f"last, {describe(layer_of(scenes[-1], key))}" for key in drawn]
        name = f"{title}{_at(scenes[0])} to {scenes[-1].step or 0:,}"
        plot = figure(strip(scenes, drawn, points), title=name, lines=words, style=style)
    return plotting.encode(plot, kind, about)


def _at(scene: Scene) -> str:
    return "" if scene.step is None else f", step {scene.step:,}"
