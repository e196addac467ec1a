"""`sagan visualize-attn`: attention maps as a figure, an interactive page, or numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sagan_cli import console
from sagan_cli.attention import targets
from sagan_cli.attention.output import ANIMATIONS, KINDS, NUMBERS, encode, kind_of
from sagan_cli.commands.options import Device, Force, Quiet, Raw
from sagan_cli.commands.sample import LAST_SEED, label_of, parse_seeds, refuse_existing, requests_of
from sagan_cli.errors import UsageError, closest
from sagan_cli.files import write_atomic
from sagan_cli.generators import find_model

if TYPE_CHECKING:
    from sagan_cli.attention.compute_maps import CheckpointNetworks

MAX_IMAGES, MAX_QUERIES = 1000, 7
SCALES, FITS = ("auto", "zero", "range"), ("crop", "pad", "stretch")


def visualize_attn(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN|CHECKPOINT|FILE]", help="A run, a checkpoint or an exported file; default: the newest run."
        ),
    ] = None,
    n: Annotated[
        int | None,
        typer.Option("-n", "--count", min=1, max=MAX_IMAGES, help="Images (default 4; 16 for .html; 1 for --steps)."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=LAST_SEED, help="First seed, as in 'sagan sample'.")] = None,
    seeds: Annotated[str | None, typer.Option(metavar="LIST", help="Seeds, for example 0-3,7.")] = None,
    class_: Annotated[
        str | None, typer.Option("--class", metavar="NAME|INDEX|all", help="Class, as in 'sagan sample'.")
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER",
            help="A layer, as 32, G32 or D16; G, D or all for all layers of one or both networks; repeatable. "
            "Default: the largest of G.",
        ),
    ] = None,
    query: Annotated[
        list[str] | None,
        typer.Option(metavar="X,Y", help="Query point in pixels from the top left; repeatable."),
    ] = None,
    queries: Annotated[
        int | None, typer.Option(min=1, max=MAX_QUERIES, help="Number of queries chosen in each image (default 5).")
    ] = None,
    random_queries: Annotated[
        bool, typer.Option("--random-queries", help="Choose queries at random (by --seed).")
    ] = False,
    image: Annotated[
        Path | None, typer.Option(metavar="FILE|FOLDER", help="Show the discriminator's attention on your own images.")
    ] = None,
    fit: Annotated[
        str | None, typer.Option(metavar="HOW", help="Fit --image by crop, pad or stretch; default: as in training.")
    ] = None,
    steps: Annotated[
        bool,
        typer.Option("--steps", help="The same images at every checkpoint of the run, as rows or as an animation."),
    ] = False,
    scale: Annotated[
        str,
        typer.Option(
            metavar="HOW", help="Darkest colour at 0 (zero), at the map's minimum (range), or automatic (auto)."
        ),
    ] = "auto",
    cells: Annotated[bool, typer.Option("--cells", help="Do not smooth: one colour for each key's cell.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Show maps without the image under them.")] = False,
    out: Annotated[str, typer.Option(metavar="PATH|-", help=f".{', .'.join(KINDS)}; - for stdout.")] = "attn.png",
    format_: Annotated[
        str | None, typer.Option("--format", metavar="KIND", help="Kind of output if --out has no ending.")
    ] = None,
    raw: Raw = False,
    device: Device = "auto",
    force: Force = False,
    json_: Annotated[bool, typer.Option("--json", help="Print a summary of every layer as one JSON object.")] = False,
    quiet: Quiet = False,
) -> None:
    """Show attention maps as a figure, page or numbers.

    Examples:

      sagan visualize-attn --out attn.png

      sagan visualize-attn --out attn.html -n 16

      sagan visualize-attn --layer D16 --image photo.jpg --query 12,20 --out mine.svg

      sagan visualize-attn --steps --out steps.gif
    """  # fmt: skip
    console.set_quiet(quiet)
    kind = kind_of(out, format_, steps)
    if out == "-":
        console.refuse_terminal()
        if json_:
            raise UsageError("--json and --out - both write to stdout: write the figure to a file")
    else:
        refuse_existing(Path(out), kind, force)
    if seeds is not None and (n is not None or seed is not None):
        raise UsageError("--seeds lists every seed: leave out -n and --seed")
    if image is not None and (seeds is not None or class_ == "all"):
        raise UsageError("--image shows your own images: leave out --seeds and --class all")
    if image is None and fit is not None:
        raise UsageError("--fit is for --image: give both or neither")
    _require("--fit", fit, FITS)
    _require("--scale", scale, SCALES)
    given = _query_points(query or [], queries, random_queries)
    listed = parse_seeds(seeds) if seeds is not None else None
    checkpoint = find_model(target)
    paths = targets.checkpoints_of(checkpoint) if steps else [checkpoint]

    from sagan_cli.attention.attention_data import summary
    from sagan_cli.attention.figure import Style
    from sagan_cli.attention.query_points import random_points, representative_points
    from sagan_cli.engine.runtime import open_runtime

    wanted = layer or []
    everything = json_ or kind == "html" or kind in NUMBERS
    with open_runtime(device, "fp32") as runtime:
        needs_d = image is not None
        pair = targets.open_networks(paths[-1], runtime, raw, wanted, needs_d=needs_d, all_layers=everything)
        _refuse_outside(given, pair)
        layers = targets.select_layers(pair, wanted, own_images=image is not None, everything=everything)
        count = n or {"html": 4 if steps else 16}.get(kind, 1 if steps and kind not in NUMBERS + ANIMATIONS else 4)
        shown: targets.SampledImages | targets.OwnImages
        if image is not None:
            shown = _own_images(image, count, fit, class_, checkpoint, pair)
        else:
            if class_ == "all" and n is None and pair.sampler.class_names:
                count = len(pair.sampler.class_names)
            shown = targets.SampledImages(requests_of(pair.sampler, count, seed or 0, listed, class_)[0])
        if target is None:
            console.note(f"attention of {checkpoint.parent.parent}, step {pair.sampler.facts.step}")
        checkpoints = []
        for path in paths[:-1]:
            needs_d = pair.discriminator is not None
            earlier = targets.open_networks(path, runtime, raw, wanted, needs_d=needs_d)
            checkpoints.append(shown.attention(earlier, layers, runtime))
        checkpoints.append(shown.attention(pair, layers, runtime))
    last, first = checkpoints[-1], layers.drawn[0]
    targets.warn_of_idle(last)
    if given:
        points: Any = [tuple((x + 0.5, y + 0.5) for x, y in given)] * len(last.captions)
    elif random_queries:
        points = random_points(last, first, queries or 5, seed or 0)
    else:
        points = representative_points(last, first, queries or 5)
    about: dict[str, Any] = {
        "checkpoint": str(checkpoint), "step": last.step, "weights": pair.sampler.weights,
        "sha256": pair.sampler.facts.digests,
        "seeds": [r.seed for r in shown.requests] if isinstance(shown, targets.SampledImages) else None,
        "images": list(shown.names) if isinstance(shown, targets.OwnImages) else None,
    }  # fmt: skip
    style = Style(cells=cells, plain=plain, scale=scale)
    title = targets.title_of(checkpoint)
    content = encode(kind, checkpoints, layers.drawn, points, title=title, style=style, about=about)
    if out == "-":
        console.write_bytes(content)
    else:
        write_atomic(Path(out), content)
    if json_:
        report = {"out": out, "format": kind, **about, "captions": list(last.captions), "queries": points}
        report["layers"] = [summary(own) for own in last.layers]
        if steps:
            report["steps"] = [{"step": s.step, "layers": [summary(own) for own in s.layers]} for s in checkpoints]
        console.emit_json(report)
    elif out != "-":
        console.result(out)


def _require(flag: str, value: str | None, choices: tuple[str, ...]) -> None:
    if value is not None and value not in choices:
        raise UsageError(f"{flag} {value}: choose one of {', '.join(choices)}{closest(value, choices)}")


def _query_points(texts: list[str], queries: int | None, random: bool) -> list[tuple[int, int]]:
    """Parse --query."""
    if texts and (queries is not None or random):
        raise UsageError("--query lists every query: leave out --queries and --random-queries")
    if len(texts) > MAX_QUERIES:
        raise UsageError(f"--query: {len(texts)} queries; the limit is {MAX_QUERIES}")
    points = []
    for text in texts:
        match = re.fullmatch(r"\s*(\d{1,6})\s*,\s*(\d{1,6})\s*", text)
        if not match:
            raise UsageError(f"--query {text}: write X,Y in whole pixels from the top left, as in 12,20")
        points.append((int(match[1]), int(match[2])))
    return points


def _refuse_outside(points: list[tuple[int, int]], pair: CheckpointNetworks) -> None:
    spec = pair.sampler.spec
    for x, y in points:
        if x >= spec.width or y >= spec.height:
            size = f"{spec.width} wide and {spec.height} high"
            raise UsageError(f"--query {x},{y}: outside the images, which are {size}, counted from 0")


def _own_images(
    image: Path, most: int, fit: str | None, class_: str | None, checkpoint: Path, pair: CheckpointNetworks
) -> targets.OwnImages:
    """Read --image and --class."""
    spec, names = pair.sampler.spec, pair.sampler.class_names
    if class_ is not None and not names:
        raise UsageError(f"--class {class_}: this model has no classes")
    label = None if class_ is None else label_of(class_, names)
    images, files = targets.read_images(image, most, spec, fit or targets.fit_of(checkpoint, spec))
    return targets.OwnImages(images, files, label)
