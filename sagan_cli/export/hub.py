"""A generator as a Hugging Face folder: model.safetensors, config.json, a card with its YAML header, and samples."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sagan_cli.engine import sample
from sagan_cli.engine import sample as pictures
from sagan_cli.engine.runtime import Runtime
from sagan_cli.errors import SaganError, UsageError
from sagan_cli.export import single_file
from sagan_cli.export.card import card, latest_scores, title
from sagan_cli.export.facts import describe, label
from sagan_cli.export.naming import CARD
from sagan_cli.export.subject import Check, Subject
from sagan_cli.runs import MODEL

CONFIG, SAMPLES = "config.json", "samples.png"
FILES = (MODEL, CONFIG, CARD, SAMPLES)
ROWS, COLUMNS = 10, 8
"""The most rows of samples, and how many stand in one."""


def write_hub(subject: Subject, folder: Path, *, name: str, notify: Callable[[str], None]) -> Check:
    """Fill the empty directory `folder`; `name` is what the card calls it.

    Raises:
        SaganError: the file does not draw what the generator draws.
    """
    data = single_file.to_bytes(subject)
    check = single_file.proven(data, subject)
    notify(f"drawing {SAMPLES}")
    (folder / MODEL).write_bytes(data)
    (folder / CONFIG).write_text(config(subject), encoding="utf-8")
    (folder / SAMPLES).write_bytes(_samples(subject))
    text = header(subject) + card(subject, "hf", name, check, grid=SAMPLES)
    (folder / CARD).write_text(text, encoding="utf-8")
    return check


def config(subject: Subject) -> str:
    """config.json: the facts of the file's header, for people and for the Hub; loading reads the header."""
    values = {"library_name": "sagan-cli", "model_type": subject.arch, **describe(subject)}
    return json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def header(subject: Subject) -> str:
    """The card's YAML header; every text is written as JSON, which YAML reads as it is."""
    source = label(subject.data["source"]).rstrip("/")
    lines = [
        "---",
        "library_name: sagan-cli",
        "license: unknown  # yours to choose; the terms of the training data may bind you",
        "pipeline_tag: unconditional-image-generation",
        "tags:",
        *(f"- {tag}" for tag in ("gan", "sagan", "self-attention", "image-generation", "arxiv:1805.08318")),
        *(["- class-conditional"] if subject.spec.num_classes else []),
        f"datasets:\n- {json.dumps(_slug(source))}",
        *_model_index(subject, source),
        "---",
    ]
    return "\n".join(lines) + "\n\n"


def _model_index(subject: Subject, source: str) -> list[str]:
    """`model-index` as the Hub reads it: one result for each score."""
    results: dict[int, dict[str, Any]] = {}
    for row in latest_scores(subject.scores):
        record = row["record"]
        args = {k: record.get(k) for k in ("extractor", "weights_sha256", "n_fake", "n_real", "protocol", "departures")}
        result = results.setdefault(id(record), {
            "task": {"type": "unconditional-image-generation"},
            "dataset": {"name": source, "type": _slug(source), "split": record["split"] or "unknown"},
            "metrics": [],
        })  # fmt: skip
        name = f"{row['metric']} ({record['extractor'] or 'no extractor'})"
        result["metrics"].append({"type": row["metric"], "name": name, "value": row["value"], "args": args})
    if not results:
        return []
    return ["model-index:", f"- name: {json.dumps(title(subject), ensure_ascii=False)}", "  results:"] + [
        f"  - {json.dumps(result, ensure_ascii=False)}" for result in results.values()
    ]


def _slug(text: str) -> str:
    """A data set's name as the Hub allows one."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:90] or "unnamed"


def _samples(subject: Subject) -> bytes:
    """A grid of the first seeds: a row a class, or a square."""
    classes = min(subject.spec.num_classes, ROWS)
    if classes:
        requests = [sample.Request(seed, y) for y in range(classes) for seed in range(COLUMNS)]
    else:
        requests = [sample.Request(seed) for seed in range(36)]
    runtime = Runtime(torch.device("cpu"), "fp32")
    drawn = next(sample.pictures(subject.generator, subject.spec, requests, runtime, batch=len(requests)))[0]
    return pictures.encode(pictures.grid(drawn, COLUMNS if classes else None), "png")


def ready_to_push(repository: str) -> Any:
    """A client of the Hub that may write, to be had before any work.

    Raises:
        UsageError: not the name of a repository.
        SaganError: no client is installed, or nobody is logged in.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", repository):
        raise UsageError(f"--push {repository}: write user/name")
    try:
        import huggingface_hub
    except ImportError as e:
        raise SaganError("--push needs huggingface_hub, which cannot be imported: pip install 'sagan-cli[hub]'") from e
    if not huggingface_hub.get_token():
        raise SaganError(f"--push {repository}: not logged in to Hugging Face: run 'hf auth login', or set HF_TOKEN")
    return huggingface_hub.HfApi(library_name="sagan-cli")


def push(client: Any, folder: Path, repository: str) -> str:
    """Create the repository if it is not there, upload this module's files, and return the address.

    Raises:
        SaganError: the Hub refuses, or cannot be reached.
    """
    try:
        url = client.create_repo(repo_id=repository, repo_type="model", exist_ok=True)
        client.upload_folder(
            repo_id=repository, folder_path=str(folder), allow_patterns=list(FILES), commit_message="sagan export"
        )
    except Exception as e:
        # The client's errors share no base: its own, httpx's or requests', the system's.
        if not isinstance(e, OSError) and type(e).__module__.split(".")[0] not in _CLIENTS:
            raise
        line = " ".join(str(e).split())[:300] or type(e).__name__
        raise SaganError(f"--push {repository}: {line}; {folder} is written and can be uploaded later") from e
    return str(url)


_CLIENTS = ("huggingface_hub", "httpx", "httpcore", "requests", "urllib3")
