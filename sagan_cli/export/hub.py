"""Export to a Hugging Face folder: model.safetensors, config.json, a model card with YAML header, and samples."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sagan_cli.engine import sample
from sagan_cli.engine.runtime import Runtime
from sagan_cli.errors import SaganError, UsageError
from sagan_cli.export import single_file
from sagan_cli.export.card import card, latest_scores, title
from sagan_cli.export.formats import CARD
from sagan_cli.export.trained_model import Check, TrainedModel, describe, label
from sagan_cli.runs import MODEL

CONFIG, SAMPLES = "config.json", "samples.png"
FILES = (MODEL, CONFIG, CARD, SAMPLES)
TASK = "unconditional-image-generation"
TAGS = ("gan", "sagan", "self-attention", "image-generation", "arxiv:1805.08318")
ROWS, COLUMNS = 10, 8
"""Largest number of rows of samples, and samples in a row."""


def write_hub(trained: TrainedModel, folder: Path, *, name: str, notify: Callable[[str], None]) -> Check:
    """Fill the empty directory `folder`; `name` is its name in the card.

    Raises:
        SaganError: the file draws other images than the generator.
    """
    data = single_file.to_bytes(trained)
    check = single_file.verify(data, trained)
    notify(f"drawing {SAMPLES}")
    (folder / MODEL).write_bytes(data)
    (folder / CONFIG).write_text(config(trained), encoding="utf-8")
    (folder / SAMPLES).write_bytes(_samples(trained))
    text = header(trained) + card(trained, "hf", name, check, grid=SAMPLES)
    (folder / CARD).write_text(text, encoding="utf-8")
    return check


def config(trained: TrainedModel) -> str:
    """Return config.json: the facts of the file's header, for readers and the Hub. Loading uses the header."""
    values = {"library_name": "sagan-cli", "model_type": trained.arch, **describe(trained)}
    return json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def header(trained: TrainedModel) -> str:
    """Return the card's YAML header, with one result in `model-index` for each score."""
    from huggingface_hub import EvalResult, ModelCardData

    source = label(trained.data["source"]).rstrip("/")
    results = []
    for row in latest_scores(trained.scores):
        record = row["record"]
        args = {k: record.get(k) for k in ("extractor", "weights_sha256", "n_fake", "n_real", "protocol", "departures")}
        results.append(EvalResult(
            task_type=TASK, dataset_type=_slug(source), dataset_name=source, dataset_split=record["split"] or "unknown",
            metric_type=row["metric"], metric_name=f"{row['metric']} ({record['extractor'] or 'no extractor'})",
            metric_value=row["value"], metric_args=args,
        ))  # fmt: skip
    data = ModelCardData(
        library_name="sagan-cli", license="unknown", pipeline_tag=TASK, datasets=[_slug(source)],
        tags=[*TAGS, *(["class-conditional"] if trained.spec.num_classes else [])],
        model_name=title(trained) if results else None, eval_results=results or None,
    )  # fmt: skip
    return f"---\n{data.to_yaml()}\n---\n\n"


def _slug(text: str) -> str:
    """Return a dataset's name in the characters that the Hub allows."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:90] or "unnamed"


def _samples(trained: TrainedModel) -> bytes:
    """Return a PNG grid of the first seeds: one row per class, or a square."""
    classes = min(trained.spec.num_classes, ROWS)
    if classes:
        requests = [sample.Request(seed, y) for y in range(classes) for seed in range(COLUMNS)]
    else:
        requests = [sample.Request(seed) for seed in range(36)]
    runtime = Runtime(torch.device("cpu"), "fp32")
    drawn = next(sample.pictures(trained.generator, trained.spec, requests, runtime, batch=len(requests)))[0]
    return sample.encode(sample.grid(drawn, COLUMNS if classes else None), "png")


def ready_to_push(repository: str) -> Any:
    """Return a client of the Hub; called before any work, so that a missing login is reported first.

    Raises:
        UsageError: not the name of a repository.
        SaganError: not logged in.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", repository):
        raise UsageError(f"--push {repository}: write user/name")
    import huggingface_hub

    if not huggingface_hub.get_token():
        raise SaganError(f"--push {repository}: not logged in to Hugging Face: run 'hf auth login', or set HF_TOKEN")
    return huggingface_hub.HfApi(library_name="sagan-cli")


def push(client: Any, folder: Path, repository: str) -> str:
    """Create the repository if it is missing, upload the files, and return its address.

    Raises:
        SaganError: the Hub refuses, or cannot be reached.
    """
    try:
        url = client.create_repo(repo_id=repository, repo_type="model", exist_ok=True)
        client.upload_folder(
            repo_id=repository, folder_path=str(folder), allow_patterns=list(FILES), commit_message="sagan export"
        )
    except Exception as e:
        # The client's errors have no common base: its own, httpx's or requests', OSError.
        if not isinstance(e, OSError) and type(e).__module__.split(".")[0] not in _CLIENTS:
            raise
        line = " ".join(str(e).split())[:300] or type(e).__name__
        raise SaganError(f"--push {repository}: {line}; {folder} is written and can be uploaded later") from e
    return str(url)


_CLIENTS = ("huggingface_hub", "httpx", "httpcore", "requests", "urllib3")
