"""`sagan eval-fid`: a score, and everything that was done to get it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sagan_cli import console
from sagan_cli.errors import UsageError, closest
from sagan_cli.evaluation.metrics.table import of_values, parse_metrics
from sagan_cli.evaluation.protocols import help_text
from sagan_cli.evaluation.target import Request, evaluate_target
from sagan_cli.plugins import registry


def eval_fid(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN|CHECKPOINT|FILE|FOLDER|ZIP|NPZ|-]",
            help="What to score: a model (FILE: an exported .safetensors), or pictures; - reads an npz from stdin. "
            "Default the newest run under runs/.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|NAME", help="The real pictures, or an .npz of mu and sigma; default what a run trained on."
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help=f"{', '.join(registry.names('metrics'))}; default fid, and structure on drawn data."
        ),
    ] = None,
    n: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--count",
            min=2,
            help="Pictures to draw; default the protocol's. Fewer are compared with as many real ones.",
        ),
    ] = None,
    n_real: Annotated[str | None, typer.Option(metavar="N|all", help="Real pictures to compare with.")] = None,
    protocol: Annotated[str, typer.Option(metavar="NAME", help=help_text())] = "default",
    extractor: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="inception-v3-compat (default), classifier (trained on the data's labels, downloads nothing), "
            "dinov2-*, clip-*, vgg16.",
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The extractor's weights, for machines without internet.")
    ] = None,
    knob: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A parameter of a metric, as in prc_neighbours=5; repeats."),
    ] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="FID of each class, and their mean.")] = False,
    split: Annotated[str | None, typer.Option(metavar="SPLIT", help="train or test; default the protocol's.")] = None,
    fit: Annotated[
        str | None,
        typer.Option(metavar="HOW", help="Fit real pictures to the size of scored ones: auto, crop, pad, stretch."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="First seed: picture i has seed SEED + i.")] = 0,
    truncation: Annotated[float | None, typer.Option(metavar="T", help="Keep latents within [-T, T].")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="The trained weights instead of their moving average.")] = False,
    batch: Annotated[int, typer.Option(min=1, help="Pictures at a time.")] = 64,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.", envvar="SAGAN_DEVICE")] = "auto",
    precision: Annotated[str, typer.Option(help="Of the generator: fp32, bf16 or auto.")] = "fp32",
    highest: Annotated[
        float | None, typer.Option("--max", metavar="X", help="Exit code 1 if the first metric is above X.")
    ] = None,
    lowest: Annotated[
        float | None, typer.Option("--min", metavar="X", help="Exit code 1 if the first metric is below X.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only on stderr.")] = False,
) -> None:
    """Score a model or images: FID, KID, IS.

    Against real pictures; precision, recall, FID per class and a structure score as well.

    Examples:

      sagan eval-fid

      sagan eval-fid --extractor classifier -n 10000 --max 20

      sagan eval-fid samples/ --data real/ --metrics fid,kid --json
    """
    console.set_quiet(quiet)
    request = Request(
        target, data, None if metrics is None else parse_metrics(metrics), n, _count(n_real), protocol, extractor,
        weights, per_class, split, fit, seed, truncation, raw, batch, device, precision, _knobs(knob or []),
    )  # fmt: skip
    record = evaluate_target(
        request, console.progress, console.note, console.warn,
        lambda runtime: console.set_quiet(quiet or not runtime.leads),
    )  # fmt: skip
    if record is not None:
        show(record, json_)
        _judge(record, highest, lowest)


def show(record: dict[str, Any], json_: bool) -> None:
    """The result: a line a number, or the record. Numbers of other networks than the published Inception say so."""
    if json_:
        console.emit_json(record)
        return
    usual = record["extractor"] == "inception-v3-compat" and record["weights_published"]
    by = "" if usual else f"  {record['extractor']}" + ("" if record["weights_published"] is not False else
                                                        f":{record['weights_sha256'][:8]}")  # fmt: skip
    for name, value in record["values"].items():
        whose = "" if of_values()[name].layer is None else by
        console.result(f"{name} {_number(value)}{whose}")
        if interval := record["intervals"].get(name):
            console.note(f"{name}: 95 % interval {_number(interval[0])} to {_number(interval[1])}")
    for name, value in record.get("per_class", {}).items():
        console.result(f"fid/{name} {_number(value)}{by}")


def _number(value: float) -> str:
    text = f"{value:.4f}" if abs(value) >= 0.1 else f"{value:.6f}"
    return text.lstrip("-") if float(text) == 0 else text


def _knobs(given: list[str]) -> dict[str, int]:
    """`NAME=VALUE` texts as the parameters of metrics."""
    known = {name for metric in of_values().values() for name in metric.knobs}
    found = {}
    for text in given:
        name, _, value = text.partition("=")
        if name not in known:
            raise UsageError(
                f"--knob {text}: no metric has it{closest(name, known)}; there are {', '.join(sorted(known))}"
            )
        if not value.isdecimal() or not int(value):
            raise UsageError(f"--knob {text}: write NAME=VALUE with a whole number above 0")
        found[name] = int(value)
    return found


def _count(text: str | None) -> int | str | None:
    if text is None or text == "all":
        return text
    if not text.isdigit() or int(text) < 2:
        raise UsageError(f"--n-real {text}: a number of at least 2, or all")
    return int(text)


def _judge(record: dict[str, Any], highest: float | None, lowest: float | None) -> None:
    """What --max and --min ask of the first metric."""
    metric, value = record["metric"], record["value"]
    for flag, limit, wrong in (("--max", highest, "above"), ("--min", lowest, "below")):
        if limit is not None and (value > limit if wrong == "above" else value < limit):
            console.error(f"{metric} {_number(value)} is {wrong} {flag} {limit:g}", "sagan eval-fid")
            raise typer.Exit(1)
