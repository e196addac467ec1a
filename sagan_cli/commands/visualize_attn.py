"""`sagan visualize-attn`: where every point looks, as the paper's figure, an interactive page, or numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sagan_cli import console
from sagan_cli.attention import target as attention
from sagan_cli.attention.output import ANIMATIONS, KINDS, NUMBERS, encoded, kind_of
from sagan_cli.commands.sample import LAST_SEED, label_of, parse_seeds, refuse_existing, requests_of
from sagan_cli.errors import UsageError, closest
from sagan_cli.files import write_atomic
from sagan_cli.generators import find_checkpoint

if TYPE_CHECKING:
    from sagan_cli.attention.scenes import Pair

MOST, MOST_POINTS = 1000, 7
SCALES, FITS = ("auto", "zero", "range"), ("crop", "pad", "stretch")


def visualize_attn(
    target: Annotated[
        str | None,
        typer.Argument(metavar="[RUN|CHECKPOINT]", help="A run or checkpoint directory; default the newest run."),
    ] = None,
    n: Annotated[
        int | None,
        typer.Option("-n", "--count", min=1, max=MOST, help="Pictures (default 4; 16 for .html; 1 for --steps)."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=LAST_SEED, help="First seed, as of 'sagan sample'.")] = None,
    seeds: Annotated[str | None, typer.Option(metavar="LIST", help="Exact seeds, as in 0-3,7.")] = None,
    class_: Annotated[
        str | None, typer.Option("--class", metavar="NAME|INDEX|all", help="Class to draw, as of 'sagan sample'.")
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER", help="32, G32, D16, G, D or all; repeatable. Default: G's layer of the largest map."
        ),
    ] = None,
    query: Annotated[
        list[str] | None,
        typer.Option(metavar="X,Y", help="A point to ask, in pixels from the top left; repeatable."),
    ] = None,
    queries: Annotated[
        int | None, typer.Option(min=1, max=MOST_POINTS, help="Points chosen in each picture (default 5).")
    ] = None,
    random_queries: Annotated[
        bool, typer.Option("--random-queries", help="Points at random (by --seed), not telling ones.")
    ] = False,
    image: Annotated[
        Path | None, typer.Option(metavar="FILE|FOLDER", help="Your own pictures, as the discriminator sees them.")
    ] = None,
    fit: Annotated[
        str | None, typer.Option(metavar="HOW", help="Fit --image by crop, pad or stretch; default as in training.")
    ] = None,
    steps: Annotated[
        bool, typer.Option("--steps", help="The same pictures at every checkpoint of the run: a strip or animation.")
    ] = False,
    scale: Annotated[
        str, typer.Option(metavar="HOW", help="Dark is: zero; range, the map's least value; auto, as the maps need.")
    ] = "auto",
    cells: Annotated[bool, typer.Option("--cells", help="Every key's cell in one colour, not smoothed.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Maps alone, without the picture under them.")] = False,
    out: Annotated[str, typer.Option(metavar="PATH|-", help=f".{', .'.join(KINDS)}; - for stdout.")] = "attn.png",
    format_: Annotated[
        str | None, typer.Option("--format", metavar="KIND", help="Kind of output when --out does not say.")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="G's trained weights instead of their moving average.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.", envvar="SAGAN_DEVICE")] = "auto",
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace a file that exists.")] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="One JSON object on stdout: every layer in few numbers.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only on stderr.")] = False,
) -> None:
    """Show attention maps.

    As the paper's figure, an interactive page, or numbers.

    Examples:

      sagan visualize-attn --out attn.png

      sagan visualize-attn --out attn.html -n 16

      sagan visualize-attn --layer D16 --image photo.jpg --query 12,20 --out mine.svg

      sagan visualize-attn --steps --out alive.gif
    """  # fmt: skip
    console.set_quiet(quiet)
    kind = kind_of(out, format_, steps)
    if out == "-":
        console.refuse_terminal()
        if json_:
            raise UsageError("--json and --out - both want stdout: write the picture to a file")
    else:
        refuse_existing(Path(out), kind, force)
    if seeds is not None and (n is not None or seed is not None):
        raise UsageError("--seeds lists every seed: leave out -n and --seed")
    if image is not None and (seeds is not None or class_ == "all"):
        raise UsageError("--image shows your own pictures: leave out --seeds and --class all")
    if image is None and fit is not None:
        raise UsageError("--fit is for --image: give both or neither")
    _require("--fit", fit, FITS)
    _require("--scale", scale, SCALES)
    asked = _asked(query or [], queries, random_queries)
    listed = parse_seeds(seeds) if seeds is not None else None
    checkpoint = find_checkpoint(target)
    paths = attention.checkpoints_of(checkpoint) if steps else [checkpoint]

    from sagan_cli.attention.figure import Style
    from sagan_cli.attention.numbers import summary
    from sagan_cli.attention.rows import random_points, telling_points
    from sagan_cli.engine.runtime import open_runtime

    wanted = layer or []
    everything = json_ or kind == "html" or kind in NUMBERS
    with open_runtime(device, "fp32") as runtime:
        pair = attention.opened(paths[-1], runtime, raw, wanted, image is not None or (everything and not wanted))
        _refuse_outside(asked, pair)
        layers = attention.choose_layers(pair, wanted, own_pictures=image is not None, everything=everything)
        count = n or {"html": 4 if steps else 16}.get(kind, 1 if steps and kind not in NUMBERS + ANIMATIONS else 4)
        shown: attention.Drawn | attention.Own
        if image is not None:
            shown = _own(image, count, fit, class_, checkpoint, pair)
        else:
            if class_ == "all" and n is None and pair.sampler.class_names:
                count = len(pair.sampler.class_names)
            shown = attention.Drawn(requests_of(pair.sampler, count, seed or 0, listed, class_)[0])
        if target is None:
            console.note(f"looking at {checkpoint.parent.parent}, step {pair.sampler.facts.step}")
        scenes = []
        for path in paths[:-1]:
            earlier = attention.opened(path, runtime, raw, wanted, pair.discriminator is not None)
            scenes.append(shown.scene(earlier, layers, runtime))
        scenes.append(shown.scene(pair, layers, runtime))
    last, first = scenes[-1], layers.drawn[0]
    attention.warn_of_idle(last)
    if asked:
        points: Any = [tuple((x + 0.5, y + 0.5) for x, y in asked)] * len(last.captions)
    elif random_queries:
        points = random_points(last, first, queries or 5, seed or 0)
    else:
        points = telling_points(last, first, queries or 5)
    about: dict[str, Any] = {
        "checkpoint": str(checkpoint), "step": last.step, "weights": pair.sampler.weights,
        "sha256": pair.sampler.facts.digests,
        "seeds": [r.seed for r in shown.requests] if isinstance(shown, attention.Drawn) else None,
        "images": list(shown.names) if isinstance(shown, attention.Own) else None,
    }  # fmt: skip
    style = Style(cells=cells, plain=plain, scale=scale)
    title = attention.title_of(checkpoint)
    data = encoded(kind, scenes, layers.drawn, points, title=title, style=style, about=about)
    if out == "-":
        console.write_bytes(data)
    else:
        write_atomic(Path(out), data)
    if json_:
        report = {"out": out, "format": kind, **about, "captions": list(last.captions), "queries": points}
        report["layers"] = [summary(own) for own in last.layers]
        if steps:
            report["steps"] = [{"step": s.step, "layers": [summary(own) for own in s.layers]} for s in scenes]
        console.emit_json(report)
    elif out != "-":
        console.result(out)


def _require(flag: str, value: str | None, choices: tuple[str, ...]) -> None:
    if value is not None and value not in choices:
        raise UsageError(f"{flag} {value}: choose one of {', '.join(choices)}{closest(value, choices)}")


def _asked(texts: list[str], queries: int | None, random: bool) -> list[tuple[int, int]]:
    """The pixels of --query."""
    if texts and (queries is not None or random):
        raise UsageError("--query names every point: leave out --queries and --random-queries")
    if len(texts) > MOST_POINTS:
        raise UsageError(f"--query: {len(texts)} points; there are colours for {MOST_POINTS}")
    points = []
    for text in texts:
        match = re.fullmatch(r"\s*(\d{1,6})\s*,\s*(\d{1,6})\s*", text)
        if not match:
            raise UsageError(f"--query {text}: write X,Y in whole pixels from the top left, as in 12,20")
        points.append((int(match[1]), int(match[2])))
    return points


def _refuse_outside(points: list[tuple[int, int]], pair: Pair) -> None:
    spec = pair.sampler.spec
    for x, y in points:
        if x >= spec.width or y >= spec.height:
            size = f"{spec.width} wide and {spec.height} high"
            raise UsageError(f"--query {x},{y}: outside the pictures, which are {size}, counted from 0")


def _own(image: Path, most: int, fit: str | None, class_: str | None, checkpoint: Path, pair: Pair) -> attention.Own:
    """The user's pictures, and the class that D is told."""
    from sagan_cli.attention.own_images import fit_of, read_pictures

    spec, names = pair.sampler.spec, pair.sampler.class_names
    if class_ is not None and not names:
        raise UsageError(f"--class {class_}: this model has no classes")
    label = None if class_ is None else label_of(class_, names)
    pictures, files = read_pictures(image, most, spec, fit or fit_of(checkpoint, spec))
    return attention.Own(pictures, files, label)
