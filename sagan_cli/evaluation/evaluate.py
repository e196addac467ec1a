"""`evaluate`, the function behind `sagan eval-fid` and `sagan_cli.evaluate`.

It resolves the target, the real images and the settings; `scoring` computes the scores. Importing this module does not
import torch, so that invalid arguments are reported immediately.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from sagan_cli import runs
from sagan_cli.config.schema import DataConfig
from sagan_cli.errors import UsageError
from sagan_cli.evaluation.options import DEFAULT, HELD_OUT, TRAINING, Options, find, parse_metrics, require_knobs
from sagan_cli.generators import exported_file, find_model, open_found, run_of
from sagan_cli.plugins import registry
from sagan_cli.runs import UNKNOWN_DATA


@contextmanager
def _silent(label: str, total: int) -> Iterator[Callable[..., None]]:
    yield lambda done, total=None: None


def _ignore(message: str) -> None:
    """Drop a message."""


def evaluate(
    target: str | Path | None = None,
    data: str | Path | None = None,
    *,
    metrics: str | Sequence[str] | None = None,
    n: int | None = None,
    n_real: int | str | None = None,
    protocol: str = DEFAULT,
    extractor: str | None = None,
    weights: str | Path | None = None,
    per_class: bool = False,
    split: str | None = None,
    fit: str | None = None,
    seed: int = 0,
    truncation: float | None = None,
    raw: bool = False,
    batch: int = 64,
    device: str = "auto",
    precision: str = "fp32",
    knobs: Mapping[str, int] | None = None,
    held_out: str | Path | None = None,
    nearest: str | Path | None = None,
    stdin: IO[bytes] | None = None,
    progress: Callable[[str, int], AbstractContextManager[Any]] = _silent,
    notify: Callable[[str], None] = _ignore,
    warn: Callable[[str], None] = _ignore,
) -> dict[str, Any] | None:
    """Score a model or images against real images, and return the record, which is also added to the run.

    Args:
        target: a run, `RUN/best`, a checkpoint, an exported file, a folder, .zip or .npz of images, or "-" for an .npz
            from `stdin`; None is the newest run under runs/.
        data: the real images as a path or the name of a dataset, or an .npz of `mu` and `sigma`; None for the images
            that the model was trained on.
        metrics: names, or a comma-separated list; None for those of the protocol.
        n: number of generated images; None for the protocol's. With fewer, as many real images are used.
        n_real: number of real images, or "all".
        protocol: a row of `protocols.PROTOCOLS`; the arguments `extractor`, `split`, `truncation` and `raw` change it.
        weights: file of the extractor's weights.
        per_class: also compute the FID of each class.
        fit: how real images are resized to the size of the scored ones: auto, crop, pad or stretch.
        seed: image i has seed `seed` + i.
        raw: score the trained weights instead of their moving average.
        batch: batch size.
        knobs: parameters of metrics, as `{"prc_neighbours": 5}`.
        held_out: images that were not trained on, for the metric `memorization`; None for those that the run held out,
            or the test split of its dataset.
        nearest: .png file for the generated images that are nearest to a training image, each beside it.
        progress: (label, total) -> context manager whose value is called with the number of images done.
        notify, warn: called with one line each on the leading process.

    Returns:
        The record (`records.FIELDS` lists its keys); None on non-leading processes.

    Raises:
        UsageError, DataError, CheckpointError, SaganError: with one line that names the argument's flag or the file.
    """
    rules = find(protocol)
    require_knobs(knobs or {})
    listed = None if metrics is None else parse_metrics(metrics if isinstance(metrics, str) else ",".join(metrics))
    if truncation is not None and not 0 < truncation < float("inf"):
        raise UsageError(f"--truncation {truncation}: must be above 0")
    if weights is not None and not Path(weights).is_file():
        raise UsageError(f"--weights {weights}: no such file")
    if nearest is not None:
        _require_png(Path(nearest))
    target, data = (None if value is None else str(value) for value in (target, data))
    images = target == "-" or (target is not None and holds_images(Path(target)))
    if images and data is None:
        raise UsageError(f"{target}: images are scored against real images: name those with --data")
    checkpoint = None if images else find_model(target)
    reals = _count(n_real)
    begun = time.monotonic()

    from sagan_cli.engine.runtime import open_runtime
    from sagan_cli.evaluation.computation import Context
    from sagan_cli.evaluation.scoring import score_generator, score_images

    changed = rules.with_changes(
        extractor=extractor, split=None if split == HELD_OUT else split, truncation=truncation,
        ema=False if raw else None, knobs={**rules.knobs, **knobs} if knobs else None,
    )  # fmt: skip
    options = Options(
        changed, listed, n, reals, n_real == "all", None if weights is None else Path(weights), per_class, fit, seed,
        batch, HELD_OUT if split == HELD_OUT else TRAINING, None if nearest is None else Path(nearest),
    )  # fmt: skip
    with open_runtime(device, precision, distributed=True) as runtime:
        if not runtime.leads:
            progress, notify, warn = _silent, _ignore, _ignore
        context = Context(runtime, progress, notify, warn)
        if checkpoint is None:
            assert target is not None
            if split == HELD_OUT:
                raise UsageError(f"--split {HELD_OUT}: is for a run that was trained with --holdout")
            real = _data_settings(DataConfig(), data, changed.split, fit)
            _require_parts(real.data, split)
            record = score_images(target, stdin or io.BytesIO(), real, options, context, _others(real, held_out))
        else:
            sampler = open_found(checkpoint, runtime, raw=not changed.ema)
            trained = _trained_on(checkpoint, sampler.facts.data["source"], data)
            # The default protocol uses the split that the model was trained on.
            part = split or (trained.split if protocol == DEFAULT else rules.split)
            if part == HELD_OUT:
                if data is not None:
                    raise UsageError(f"--split {HELD_OUT}: is a part of the run's own images; leave out --data")
                part = trained.split
            if target is None:
                notify(f"scoring {checkpoint.parent.parent}, step {sampler.facts.step}")
            real = _data_settings(trained, data, part, fit)
            if split != HELD_OUT:
                _require_parts(real.data, split)
            record = score_generator(sampler, real, options, context, _others(trained, held_out))
            same_data = data is None and part == trained.split
            if record and same_data and record["dataset_digest"] != sampler.facts.data["digest"]:
                warn("the images are no longer the ones that this model was trained on")
    if record is not None:
        record["seconds"] = round(time.monotonic() - begun, 3)
        _keep(checkpoint, record, warn)
    return record


def holds_images(path: Path) -> bool:
    """Return whether a target is a set of images and not a model."""
    if exported_file(path) is not None:
        return False
    if path.is_dir():
        return not any((path / name).is_file() for name in ("run.json", runs.CHECKPOINT_FACTS))
    return path.suffix.lower() in (".zip", ".npz")


def _count(value: int | str | None) -> int | None:
    if value is None or value == "all":
        return None
    text = str(value)
    if not text.isdecimal() or int(text) < 2:
        raise UsageError(f"--n-real {text}: a number of at least 2, or all")
    return int(text)


def _trained_on(checkpoint: Path, source: str, data: str | None) -> DataConfig:
    """Return the data settings of a checkpoint's run; only the source for a checkpoint outside its run.

    An exported file may come from another machine, so only a dataset's name is accepted from it, not a path.

    Raises:
        UsageError: `data` is None, and the training images are unknown or on another machine.
    """
    if data is None and source == UNKNOWN_DATA:
        raise UsageError(
            f"{checkpoint}: was imported, and what it was trained on is not known: name the real images with --data"
        )
    run = _run_of_model(checkpoint)
    if run is None:
        if data is None and checkpoint.is_file() and source not in registry.names("datasets"):
            raise UsageError(f"{checkpoint}: was trained on {source}: name the folder of those images with --data")
        return replace(DataConfig(), data=source)
    return run.config().data


def _run_of_model(model: Path | None) -> runs.Run | None:
    """Return the run of a checkpoint directory; None for an exported file, even inside a run."""
    return run_of(model) if model is not None and model.is_dir() else None


def _data_settings(base: DataConfig, source: str | None, split: str, fit: str | None) -> DataConfig:
    """The settings of the real images; images other than the run's bring their own classes."""
    changes: dict[str, Any] = {"split": split, "data_root": os.environ.get("SAGAN_DATA_ROOT", base.data_root)}
    if source is not None:
        changes |= {"data": source, "unconditional": False}
    if source is not None or split != base.split:
        changes["holdout"] = 0.0  # none of these images was trained on
    if fit is not None:
        changes["fit"] = fit
    return replace(base, **changes)


def _require_png(path: Path) -> None:
    """Refuse a path that the picture cannot be written to.

    Raises:
        UsageError: stdout, another ending than .png, an existing file or a missing directory.
    """
    if str(path) == "-":
        raise UsageError("--nearest -: the scores go to standard output; name a .png file")
    if path.suffix.lower() != ".png":
        raise UsageError(f"--nearest {path}: name a .png file")
    if path.exists():
        raise UsageError(f"--nearest {path}: exists already; name another file")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--nearest {path}: there is no directory {path.parent}")


def _others(base: DataConfig, held_out: str | Path | None) -> DataConfig | None:
    """Return the settings of the images of `--held-out`, fitted as those of training."""
    return None if held_out is None else replace(base, data=str(held_out), unconditional=False, holdout=0.0)


def _require_parts(source: str, split: str | None) -> None:
    """Raise UsageError for --split with images that have no splits."""
    from sagan_cli.data.sources.opening import has_parts

    if split is not None and not has_parts(source):
        raise UsageError(f"--split {split}: {source} has no splits; name the other folder itself with --data")


def _keep(checkpoint: Path | None, record: dict[str, Any], warn: Callable[[str], None]) -> None:
    """Append the record to the run's metrics.jsonl."""
    run = _run_of_model(checkpoint)
    if run is None:
        return
    try:
        run.append_metrics(record)
    except OSError as e:
        warn(f"{run.path}/metrics.jsonl: the score could not be written there: {e.strerror}")
