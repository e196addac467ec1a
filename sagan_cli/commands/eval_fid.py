"""`sagan eval-fid`: score a model or images."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sagan_cli import console
from sagan_cli.commands.options import Device, Json, Quiet, Raw
from sagan_cli.errors import UsageError
from sagan_cli.evaluation.evaluate import evaluate
from sagan_cli.evaluation.options import DEFAULT, help_text, metric_of
from sagan_cli.plugins import registry


def eval_fid(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN|CHECKPOINT|FILE|FOLDER|ZIP|NPZ|-]",
            help="A model (FILE: an exported .safetensors) or images; - reads an .npz from stdin. "
            "Default: the newest run under runs/.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|NAME",
            help="The real images, or an .npz of mu and sigma. Default: the images that the model was trained on.",
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help=f"{', '.join(registry.names('metrics'))}. Default: the protocol's, and structure if available.",
        ),
    ] = None,
    n: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--count",
            min=2,
            help="Images to generate. Default: the protocol's. Fewer also limit the real images.",
        ),
    ] = None,
    n_real: Annotated[str | None, typer.Option(metavar="N|all", help="Real images to compare with.")] = None,
    protocol: Annotated[str, typer.Option(metavar="NAME", help=help_text())] = DEFAULT,
    extractor: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="inception-v3-compat (default), classifier (trained on the dataset's labels; no download), "
            "dinov2-*, clip-*, vgg16.",
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The extractor's weights, for machines without internet.")
    ] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="Add the FID of each class, and their mean.")] = False,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="SPLIT", help="train or test; held-out: the images of --holdout. Default: the protocol's."
        ),
    ] = None,
    held_out: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|NAME",
            help="Images that were not trained on, for the metric memorization. Default: those of the run's "
            "--holdout, or the test split.",
        ),
    ] = None,
    nearest: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the 16 images nearest to a training image, each beside it (.png)."),
    ] = None,
    fit: Annotated[
        str | None,
        typer.Option(metavar="HOW", help="Resize real images to the size of scored ones: auto, crop, pad, stretch."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="First seed: image i has seed SEED + i.")] = 0,
    truncation: Annotated[float | None, typer.Option(metavar="T", help="Limit latents to [-T, T].")] = None,
    raw: Raw = False,
    batch: Annotated[int, typer.Option(min=1, help="Batch size.")] = 64,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="Precision of the generator: fp32, bf16 or auto.")] = "fp32",
    knob: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A parameter of a metric, such as prc_neighbours=5. Repeatable."),
    ] = None,
    highest: Annotated[
        float | None, typer.Option("--max", metavar="X", help="Exit code 1 if the first metric is above X.")
    ] = None,
    lowest: Annotated[
        float | None, typer.Option("--min", metavar="X", help="Exit code 1 if the first metric is below X.")
    ] = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score a model or images: FID, KID, IS.

    Images are compared with real images. Precision, recall, the FID of each class, a structure score and the metrics
    of plugins are available as well.

    Examples:

      sagan eval-fid

      sagan eval-fid --extractor classifier -n 10000 --max 20

      sagan eval-fid samples/ --data real/ --metrics fid,kid --json
    """
    console.set_quiet(quiet)
    for flag, limit in (("--max", highest), ("--min", lowest)):
        if limit is not None and not math.isfinite(limit):
            raise UsageError(f"{flag} {limit}: not a number that a score can be compared with")
    record = evaluate(
        target, data, metrics=metrics, n=n, n_real=n_real, protocol=protocol, extractor=extractor, weights=weights,
        per_class=per_class, split=split, fit=fit, seed=seed, truncation=truncation, raw=raw, batch=batch,
        device=device, precision=precision, knobs=_knobs(knob or []), held_out=held_out, nearest=nearest,
        stdin=getattr(sys.stdin, "buffer", None), progress=console.progress, notify=console.note, warn=console.warn,
    )  # fmt: skip
    if record is not None:
        show(record, json_)
        _judge(record, highest, lowest)


def show(record: dict[str, Any], json_: bool) -> None:
    """Print one line per value, or the record as JSON.

    If the extractor is not the published Inception, its name follows the value.
    """
    if json_:
        console.emit_json(record)
        return
    published = record["weights_published"]
    usual = record["extractor"] == "inception-v3-compat" and published
    extractor = "" if usual else f"  {record['extractor']}"
    if published is False:
        extractor += f":{record['weights_sha256'][:8]}"
    for name, value in record["values"].items():
        metric = metric_of(name)
        console.result(f"{name} {_number(value)}{extractor if metric is None or metric.layer else ''}")
        if interval := record["intervals"].get(name):
            console.note(f"{name}: 95 % interval {_number(interval[0])} to {_number(interval[1])}")
    for name, value in record.get("per_class", {}).items():
        console.result(f"fid/{name} {_number(value)}{extractor}")


def _knobs(given: list[str]) -> dict[str, int]:
    """Parse `NAME=VALUE` strings."""
    found = {}
    for text in given:
        name, _, value = text.partition("=")
        if not value.isdecimal():
            raise UsageError(f"--knob {text}: write NAME=VALUE with a whole number above 0")
        found[name] = int(value)
    return found


def _number(value: float) -> str:
    text = f"{value:.4f}" if abs(value) >= 0.1 else f"{value:.6f}"
    return text.lstrip("-") if float(text) == 0 else text


def _judge(record: dict[str, Any], highest: float | None, lowest: float | None) -> None:
    """Exit with code 1 if the first value is outside --max and --min."""
    metric, value = record["metric"], record["value"]
    for flag, limit, wrong in (("--max", highest, "above"), ("--min", lowest, "below")):
        if limit is not None and (value > limit if wrong == "above" else value < limit):
            console.error(f"{metric} {_number(value)} is {wrong} {flag} {limit:g}", "sagan eval-fid")
            raise typer.Exit(1)
