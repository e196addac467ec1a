"""Score records: written by `sagan eval-fid`, read by `sagan compare`; which records are comparable.

A record is one flat JSON object of all computed values and all facts that they depend on. `FIELDS` lists the keys;
`comparable` returns those that must be equal in order to rank two values of a metric.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from sagan_cli import runs
from sagan_cli.errors import SaganError, UsageError
from sagan_cli.evaluation.options import builtin_metrics, metric_of

KIND = "evaluation"
"""Distinguishes a record from the other lines of metrics.jsonl."""
FORMAT = 1

Record = dict[str, Any]

# A field is compared if it changes the expected value of a score although the generator is the same. These are not:
#   seed, device, processes, versions     they change it by less than its interval, or only by rounding
#   fake, checkpoint, step, fake_size     they are what is compared; the extractor resizes all images to its own size
#   protocol                              a name for the fields below; flags may change them
#   data, weights_published               data_digest and weights_sha256 have the same information
FEATURES = ("extractor", "weights_sha256", "layers", "resize")
"""The network, the layer and the resizing that features were computed with."""
REAL = ("real_size", "fit", "split", "data_digest", "n_real")
"""The real images. Size and fit also change the digest; they come first so that a message names them."""
DRAWN = ("colour", "truncation", "ema", "batch_norm", "labels", "precision")
"""How a model generated the images; unknown for images in a folder, so compared only between two models."""
COMPARABLE = (*FEATURES, "n_fake", *REAL, *DRAWN)
"""All of them in the order in which a difference is reported. `n_fake` is compared for every metric: FID, IS, precision
and recall are biased in it; KID and structure are not, but vary more with few images."""
_REQUIRED_FOR_COMPARISON = ("extractor", "weights_sha256", "data_digest", "n_real", "n_fake")
"""Fields that must not be null where they are compared: two unknown values are not equal."""

_NONE = type(None)
FIELDS: dict[str, tuple[type, ...]] = {
    "kind": (str,), "format": (int,),
    "metric": (str,), "value": (int, float), "interval": (list, tuple, _NONE), "values": (dict,), "intervals": (dict,),
    "per_class": (dict, _NONE),
    "extractor": (str, _NONE), "weights_sha256": (str, _NONE), "weights_published": (bool, _NONE), "layers": (dict,),
    "protocol": (str, _NONE), "resize": (str, _NONE), "colour": (str, _NONE), "fit": (str, _NONE),
    "n_real": (int, _NONE), "n_fake": (int,), "real_size": (str, _NONE), "fake_size": (str, _NONE),
    "data": (str, _NONE), "data_digest": (str, _NONE), "split": (str, _NONE),
    "held_out_digest": (str, _NONE),
    "fake": (str,), "fake_kind": (str,), "checkpoint": (str, _NONE), "step": (int, _NONE),
    "checkpoint_sha256": (dict, str, _NONE),
    "seed": (int, _NONE), "truncation": (int, float, _NONE), "ema": (bool, _NONE), "batch_norm": (str, _NONE),
    "labels": (str, _NONE),
    **{knob: (int, _NONE) for metric in builtin_metrics().values() for knob in metric.knobs},
    "precision": (str, _NONE), "device": (str,), "processes": (int,), "versions": (dict,), "seconds": (int, float),
    "time": (str,), "warnings": (list,),
}  # fmt: skip
"""Key -> types of its value in JSON; a plugin's metric adds its knobs and details."""
_REQUIRED = ("format", "metric", "value", "values", "fake", "fake_kind", *COMPARABLE)


def comparable(metric: str) -> tuple[str, ...]:
    """Return the fields that must be equal in order to rank two values of `metric`, in the order of reporting.

    Fields of the real images and of the extractor are omitted for metrics that do not use them.
    """
    found = metric_of(metric)
    unused: tuple[str, ...] = ()
    further: tuple[str, ...] = ()
    if found is not None:
        further = (*(("held_out_digest",) if found.held_out else ()), *found.knobs)
        unused = (*(REAL if found.real == "none" else ()), *(FEATURES if found.layer is None else ()))
    return (*(field for field in COMPARABLE if field not in unused), *further)


def better(metric: str) -> str | None:
    """Return "lower" or "higher"; None if no installed metric computes this value."""
    found = metric_of(metric)
    return None if found is None else found.better[metric]


def difference(a: Record, b: Record, metric: str) -> tuple[str, Any, Any] | None:
    """Return the first field in which two records differ, with both values; None if they are comparable."""
    both_drawn = is_model(a) and is_model(b)
    for field in comparable(metric):
        if field in DRAWN and not both_drawn:
            continue
        one, two = a.get(field), b.get(field)
        if field == "layers":
            layer = _layer_of(metric) or metric  # not the layers of other metrics
            field = f"layers.{layer}"
            one, two = (side.get(layer) for side in (one or {}, two or {}))
        if one != two:
            return field, one, two
    return None


def is_record(value: Any) -> bool:
    """Return whether a JSON value is marked as a score record; `check` validates it."""
    return isinstance(value, dict) and value.get("kind") == KIND


def is_model(record: Record) -> bool:
    """Return whether the scored images were generated by a model, so that the sampling settings are known."""
    return bool(record["fake_kind"] == "model")


def interval(record: Record, metric: str) -> tuple[float, float] | None:
    """Return the 95 % interval of a metric; None if none was computed."""
    found = record.get("intervals", {}).get(metric)
    if found is None and metric == record["metric"]:
        found = record.get("interval")
    return None if found is None else (found[0], found[1])


def shown(metric: str, value: float) -> str:
    """Return a value with the usual digits of its metric: 12.3456 for FID, 0.012345 for KID."""
    found = metric_of(metric)
    return f"{value:.{4 if found is None else found.digits}f}"


def read_records(target: Path) -> list[Record]:
    """Return the records of a run, of one of its checkpoints, or of a file of JSON or JSON lines; newest last.

    Raises:
        UsageError: no such path, or a directory of another kind.
        SaganError: there is no record, or one is damaged.
    """
    if target.is_file():
        return parse(_text(target), str(target))
    if not target.exists():
        raise UsageError(f"{target}: no such run, checkpoint or file of scores")
    if (target / runs.CHECKPOINT_FACTS).is_file():
        return _of_checkpoint(target)
    if not (target / "run.json").is_file():
        way_out = "save its score with 'sagan eval-fid ... --json > score.json' and name that file"
        raise UsageError(f"{target}: neither a run nor a checkpoint directory; {way_out}")
    found = _of_run(runs.open_run(target))
    if not found:
        raise SaganError(f"{target}: has no score yet; compute one with 'sagan eval-fid {target}'")
    return found


def parse(text: str, source: str) -> list[Record]:
    """Return the records in one JSON object or in JSON lines; other objects are ignored.

    Raises:
        SaganError: the text is no JSON, has no record, or has an invalid one; the message begins with `source`.
    """
    try:
        values = {source: json.loads(text)}
    except ValueError:
        # Not splitlines: JSON strings may contain other line separators.
        lines = {f"{source}, line {n}": line for n, line in enumerate(text.split("\n"), 1) if line.strip()}
        values = {place: _json(line, place) for place, line in lines.items()}
    found = [check(value, place) for place, value in values.items() if is_record(value)]
    if not found:
        raise SaganError(f'{source}: has no score (an object with "kind": "{KIND}", as sagan eval-fid --json prints)')
    return found


def check(record: Record, source: str) -> Record:
    """Return the record after checking that the keys for comparisons are present, of the right type and finite.

    Raises:
        SaganError: it is invalid; the message names `source` and the key.
    """

    def wrong(key: str, what: str) -> SaganError:
        return SaganError(f"{source}: not a sound score record: '{key}' {what}")

    if record.get("format") != FORMAT:
        raise SaganError(
            f"{source}: score record of format {record.get('format')!r}; this version of sagan reads {FORMAT}"
        )
    for key in _REQUIRED:
        if key not in record:
            raise wrong(key, "is missing")
    for key, types in FIELDS.items():
        # bool is a subclass of int in Python, but not in JSON.
        if key in record and (not isinstance(record[key], types) or (type(record[key]) is bool and bool not in types)):
            raise wrong(key, f"is of type {type(record[key]).__name__}")
        if isinstance(record.get(key), str) and not record[key].isprintable():
            raise wrong(key, "contains control characters")
    if record["values"].get(record["metric"]) != record["value"]:
        raise wrong("value", f"is not values.{record['metric']}")
    for metric, value in record["values"].items():
        if not _finite(value):
            raise wrong(f"values.{metric}", f"is {value!r}, not a finite number")
        for key in comparable(metric):
            if record.get(key) is None and (key in _REQUIRED_FOR_COMPARISON or key not in COMPARABLE):
                raise wrong(key, f"is not given, and {metric} cannot be compared without it")
        layer = _layer_of(metric)
        if layer and not record["layers"].get(layer):
            raise wrong(f"layers.{layer}", "is missing")
    bounds = {f"intervals.{name}": pair for name, pair in record.get("intervals", {}).items()}
    for key, pair in {"interval": record.get("interval"), **bounds}.items():
        if pair is not None and not (len(pair) == 2 and all(map(_finite, pair)) and pair[0] <= pair[1]):
            raise wrong(key, "is not two finite numbers, the lower one first")
    return record


def _layer_of(value: str) -> str | None:
    """Return the key in `layers` of the metric that computes a value."""
    found = metric_of(value)
    return None if found is None else found.layer


def _of_run(run: runs.Run) -> list[Record]:
    return [check(line, str(run.path / "metrics.jsonl")) for line in run.metrics() if is_record(line)]


def _of_checkpoint(path: Path) -> list[Record]:
    whole = path.resolve()
    run = runs.Run(whole.parent.parent)
    if whole.parent != run.checkpoints or not (run.path / "run.json").is_file():
        raise UsageError(f"{path}: a checkpoint outside its run has no scores; name the run or a file of scores")
    found = [r for r in _of_run(run) if r.get("step") == int(whole.name)]
    if not found:
        raise SaganError(f"{path}: has no score yet; compute one with 'sagan eval-fid {path}'")
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as e:
        raise SaganError(f"{file}: not JSON: name a run, or the output of sagan eval-fid --json") from e


def _json(line: str, place: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as e:
        raise SaganError(f"{place}: not JSON: {e}; name a run, or the output of sagan eval-fid --json") from e


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
