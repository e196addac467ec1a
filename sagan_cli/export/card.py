"""The model card of an exported generator: model, data, recipe, scores, limits, and how to load it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sagan_cli import __version__
from sagan_cli.errors import SaganError
from sagan_cli.evaluation import records
from sagan_cli.export.formats import exporter
from sagan_cli.export.trained_model import Check, TrainedModel, label

_COLOURS = {1: "grey", 3: "colour", 4: "colour and transparency"}
_RECIPE = (
    ("train.loss", "loss"), ("train.gp", "gradient penalty"), ("train.r1", "R1"), ("train.clip", "clipping"),
    ("train.penalty", "penalties"), ("train.augment", "augmentations"), ("train.constraint", "constraints"),
    ("train.ada", "target of adaptive augmentation"),
    ("model.spectral_norm", "spectral norm in"), ("train.decay_steps", "learning rates fall to 0 at step"),
    ("train.steps", "steps"), ("train.batch", "batch"), ("train.d_steps", "updates of D a step"),
    ("train.g_lr", "learning rate of G"), ("train.d_lr", "learning rate of D"), ("train.beta1", "Adam beta 1"),
    ("train.beta2", "Adam beta 2"), ("train.ema", "decay of the EMA"), ("train.seed", "seed"),
    ("data.split", "split"), ("data.fit", "fit"), ("data.flip", "mirrored"),
)  # fmt: skip
"""Settings that determine the weights -> name in the card."""
_UNUSED_AT_0 = ("train.gp", "train.r1", "train.ada", "train.clip", "train.decay_steps")
NOT_MEASURED = "Not measured. Run `sagan eval-fid` and export again."


def card(trained: TrainedModel, format_: str, file: str, check: Check | None, *, grid: str | None = None) -> str:
    """Return the card as Markdown.

    Args:
        format_: name of an export format.
        file: name of the model's file or folder, in the example that loads it.
        check: the comparison in the format's own runtime.
        grid: file name of an image of samples.
    """
    spec = trained.spec
    size = f"{spec.height}x{spec.width}"
    kind = "class-conditional" if spec.num_classes else "unconditional"
    parts = [
        f"# {title(trained)}",
        f"A {kind} Self-Attention GAN generator of {size} images in {_COLOURS.get(spec.channels, 'colour')}, trained "
        f"and exported with sagan {__version__}. " + exporter(format_).about,
        *([f"![Samples, not selected]({grid})", "*Samples of the first seeds, not selected.*"] if grid else []),
        "## How to load it",
        _loading(trained, format_, file),
        "## The model",
        _table(("", ""), _model_rows(trained)),
        "## Data",
        _data(trained),
        "## Recipe",
        _recipe(trained.run),
        "## Scores",
        _scores(trained.scores),
        "## Check of this file",
        _checked(check),
        "## Limits",
        _limits(trained),
        "## Licence",
        "The software is under Apache-2.0. **Licence of the weights: not stated.** The publisher of the weights states "
        "it here; the terms of the training data may restrict the choice.",
        "## Citation",
        "Zhang, Goodfellow, Metaxas and Odena, *Self-Attention Generative Adversarial Networks*, ICML 2019, "
        "arXiv:1805.08318.",
    ]
    return "\n\n".join(parts) + "\n"


def _loading(trained: TrainedModel, format_: str, file: str) -> str:
    """Return the example that loads the model."""
    text = exporter(format_).loading
    classes = trained.spec.num_classes
    values = {"file": file, "latent": trained.spec.latent, "call": _call(classes), "feed": _feed(trained)}
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text


def title(trained: TrainedModel) -> str:
    """Return a readable name."""
    return f"{trained.arch} {trained.spec.height}x{trained.spec.width} on {_data_name(trained)}"


def _data_name(trained: TrainedModel) -> str:
    return _line(label(trained.data["source"]).rstrip("/"))


def latest_scores(scores: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the latest row of each measurement: metric, value, interval and record; invalid records are left out."""
    found: dict[str, dict[str, Any]] = {}
    for record in scores:
        try:
            sound = records.check(dict(record), "metrics.jsonl")
        except SaganError:
            continue
        for metric, value in sound["values"].items():
            measured = {key: sound.get(key) for key in records.comparable(metric)}
            key = json.dumps([metric, measured], sort_keys=True, default=str)
            found.pop(key, None)
            found[key] = {
                "metric": metric, "value": value, "interval": records.interval(sound, metric), "record": sound
            }  # fmt: skip
    return list(found.values())


def _call(classes: int) -> str:
    return "z, torch.zeros(4, dtype=torch.long)" if classes else "z"


def _feed(trained: TrainedModel) -> str:
    y = ', "class": np.zeros(4, np.int64)' if trained.spec.num_classes else ""
    return f'{{"latent": np.random.randn(4, {trained.spec.latent}).astype(np.float32){y}}}'


def _model_rows(trained: TrainedModel) -> list[tuple[str, str]]:
    spec = trained.spec
    rows = [
        ("architecture", f"`{trained.arch}` of {_line(trained.arch_package)}"),
        ("parameters", f"{sum(p.numel() for p in trained.generator.parameters()):,}"),
        ("output", f"{spec.channels} x {spec.height} x {spec.width}, in [-1, 1]"),
        ("latent", f"{spec.latent} numbers, N(0, 1)"),
        ("width", f"{spec.base_width} channels at full resolution"),
        ("attention", ", ".join(f"map with longer side {side}" for side in spec.attn_at) or "none"),
        ("classes", ", ".join(map(_line, trained.class_names[:50])) or "none"),
        ("weights", "EMA" if trained.weights == "ema" else "as trained, not averaged"),
        ("step", f"{trained.step:,}"),
        ("spectral norm", "folded into the weights"),
    ]
    if len(trained.class_names) > 50:
        rows[6] = ("classes", f"{rows[6][1]} and {len(trained.class_names) - 50} more")
    return rows + [(f"option {_line(k)}", _line(v)) for k, v in sorted(trained.spec.options.items())]


def _data(trained: TrainedModel) -> str:
    data = trained.data
    if imported := (trained.run or {}).get("imported"):
        return (
            f"Unknown: the weights were imported from `{_line(imported['file'])}` of {_line(imported['project'])} "
            f"(sha256 `{_line(imported['sha256'])}`)."
        )
    return (
        f"{data['count']:,} images of **{_data_name(trained)}**, fitted to the size above; sha256 of the training "
        f"images: `{data['digest']}`."
    )


def _recipe(run: Mapping[str, Any] | None) -> str:
    if run is None:
        return "Unknown: exported from a checkpoint or file outside its run."
    if run.get("imported"):
        return "Unknown: the weights were trained elsewhere and imported."
    config = run.get("config", {})
    rows = []
    for key, name in _RECIPE:
        section, _, field = key.partition(".")
        value = config.get(section, {}).get(field)
        if value not in (None, "") and not (key in _UNUSED_AT_0 and value == 0):
            rows.append((name, _line("yes" if value is True else "no" if value is False else value)))
    machine = run.get("machine", {})
    rows += [(k, _line(machine[k])) for k in ("device", "precision", "processes") if machine.get(k) is not None]
    presets = {s.removeprefix("preset ") for s in run.get("sources", {}).values() if str(s).startswith("preset ")}
    rows += [("preset", _line(name)) for name in sorted(presets)]
    return "Adam; losses and penalties as in the table.\n\n" + _table(("", ""), rows)


def _scores(scores: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for row in latest_scores(scores):
        record, metric = row["record"], row["metric"]
        low_high = row["interval"]
        interval = f"{records.shown(metric, low_high[0])} to {records.shown(metric, low_high[1])}" if low_high else ""
        weights = "" if record["weights_published"] in (True, None) else f" (weights {record['weights_sha256'][:8]})"
        protocol = _line(record["protocol"])
        if record.get("departures"):
            protocol += " but " + ", ".join(map(_line, record["departures"]))
        rows.append((
            f"{metric} ({records.better(metric) or '?'} is better)", records.shown(metric, row["value"]), interval,
            f"{_line(record['extractor'] or 'none')}{weights}", f"{record['n_fake']:,}",
            f"{record['n_real']:,} of {_line(record['split'])}" if record["n_real"] else "", protocol,
        ))  # fmt: skip
    if not rows:
        return NOT_MEASURED
    heads = ("metric", "value", "95 % interval", "extractor", "drawn", "real", "protocol")
    return _table(heads, rows) + "\n\nScores of different extractors, counts or protocols are not comparable."


def _checked(check: Check | None) -> str:
    if check is None:
        return "None."
    rows = [
        (f"{batch}", f"{check.differences[batch]:.2g}", f"{check.milliseconds[batch]:.1f}",
         f"{check.torch_milliseconds[batch]:.1f}")
        for batch in sorted(check.differences)
    ]  # fmt: skip
    return f"Loaded again, run in {check.runtime} and compared with the original network:\n\n" + _table(
        ("batch", "largest difference", "milliseconds", "PyTorch, milliseconds"), rows
    )


def _limits(trained: TrainedModel) -> str:
    size = f"{trained.spec.height}x{trained.spec.width}"
    lines = [
        f"It draws {size} images like its training data, and nothing else: no text prompts, no image editing.",
        "It reproduces the imbalances of its training data.",
        "Convolutional GANs learn textures before structure: check shapes, for example the number of limbs.",
        "It was not tested for memorised training images; do not publish weights trained on private images.",
    ]
    if trained.weights == "raw":
        lines.append("These are the weights as trained; the EMA usually draws better images.")
    return "\n".join(f"- {line}" for line in lines)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _line(value: object) -> str:
    """Return a value as text that is safe in a Markdown table."""
    text = " ".join(str(value).split())
    return "".join(f"\\{c}" if c in "|<>[]`*_\\" else c for c in text)
