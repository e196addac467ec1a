"""The output of `sagan visualize-attn`: the kind of a path, and attention data as the bytes of each kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sagan_cli.errors import UsageError, closest

if TYPE_CHECKING:
    from sagan_cli.attention.attention_data import AttentionData, Key
    from sagan_cli.attention.figure import Style
    from sagan_cli.attention.plotting import Plot
    from sagan_cli.attention.query_points import Points

STILLS, NUMBERS, ANIMATIONS = ("png", "svg", "pdf"), ("npz", "safetensors"), ("gif", "webp")
KINDS = (*STILLS, "html", *NUMBERS, *ANIMATIONS)


def kind_of(out: str, format_: str | None, steps: bool) -> str:
    """Return the kind of output by --out and --format.

    Raises:
        UsageError: they differ, there is no such kind, or it is an animation without --steps.
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


def encode(
    kind: str,
    checkpoints: Sequence[AttentionData],
    drawn: Sequence[Key],
    points: Points,
    *,
    title: str,
    style: Style,
    about: Mapping[str, Any],
) -> bytes:
    """Return the bytes of a file.

    Args:
        checkpoints: the same images or latents at one or more checkpoints.
        drawn: the layers of a figure; a page and numbers contain all layers of the data.
        points: the query points of each image.
        about: metadata of a PNG and of numbers.
    """
    if kind == "html":
        from sagan_cli.attention.page import page

        return page(checkpoints, title=f"Attention of {title}")
    if kind in NUMBERS:
        from sagan_cli.attention import attention_data

        write = attention_data.npz if kind == "npz" else attention_data.safetensors
        return write(attention_data.arrays(checkpoints), about)

    from sagan_cli.attention import plotting
    from sagan_cli.attention.figure import describe, figure, rows_by_step, rows_of

    def still(data: AttentionData) -> Plot:
        lines = [describe(data.layer(key)) for key in drawn]
        return figure(rows_of(data, drawn, points), title=f"{title}{_at(data)}", lines=lines, style=style)

    if kind in ANIMATIONS:
        return plotting.animation([still(data) for data in checkpoints], kind)
    if len(checkpoints) == 1:
        return plotting.encode(still(checkpoints[0]), kind, about)
    first, last = checkpoints[0], checkpoints[-1]
    lines = [f"{', then '.join(first.captions)}; 'adds' is |gamma o| / |x|"]
    lines += [f"At the last step, {describe(last.layer(key))}" for key in drawn]
    name = f"{title}{_at(first)} to {last.step or 0:,}"
    rows = rows_by_step(checkpoints, drawn, points)
    return plotting.encode(figure(rows, title=name, lines=lines, style=style), kind, about)


def _at(data: AttentionData) -> str:
    return "" if data.step is None else f", step {data.step:,}"
