"""What an exported generator says of itself: the JSON in a file's header, written and, from strangers, checked."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from sagan_cli import __version__
from sagan_cli.contracts import ModelSpec
from sagan_cli.engine.checkpoint import Facts
from sagan_cli.errors import CheckpointError
from sagan_cli.export.subject import Subject
from sagan_cli.plugins import registry

FORMAT = 1
"""Of exported generators; a file of another one is refused by name."""
DIGEST = "sha256"
"""The key of the digest over facts and tensors."""

_LIMITS = {
    "height": (1, 1 << 14), "width": (1, 1 << 14), "channels": (1, 64), "num_classes": (0, 1_000_000),
    "latent": (1, 1 << 20), "base_width": (1, 1 << 16),
}  # fmt: skip
"""The least and the most; within these no product of sides overflows."""
_WORD = re.compile(r"[\w.+!-]{1,100}( [\w.+!-]{1,100}){0,3}")
_HASH = re.compile(r"[0-9a-f]{1,128}")


def describe(subject: Subject) -> dict[str, Any]:
    """The facts of a generator as JSON values, without the digest."""
    return {
        "format": FORMAT,
        "sagan": __version__,
        "arch": subject.arch,
        "arch_package": subject.arch_package,
        "spec": {**asdict(subject.spec), "options": dict(subject.spec.options)},
        "class_names": list(subject.class_names),
        "weights": subject.weights,
        "step": subject.step,
        "data": {key: subject.data[key] for key in ("source", "digest", "count")},
        "checkpoint": dict(subject.digests),
    }


def published(subject: Subject) -> Subject:
    """The same without the places on this machine where its data lie, for a file that is given to others."""
    return replace(subject, data={**subject.data, "source": label(subject.data["source"])})


def label(source: str) -> str:
    """What a data set may be called in public: a registered name as it is, of a path the last part (`celeba/`)."""
    path = Path(source)
    if source in registry.names("datasets") or not (path.name != source or path.exists()):
        return source
    name = path.name or path.resolve().name
    return name if path.suffix else f"{name}/"


def check(facts: dict[str, Any], path: Path) -> tuple[Facts, str]:
    """The facts of a file, every value of its type and within reason, and whether the weights are `ema` or `raw`.

    Raises:
        CheckpointError: another format, or the first key that is wrong.
    """

    def need(good: object, key: str, what: str) -> None:
        if not good:
            raise CheckpointError(f"{path}: damaged: '{key}' in its header {what}")

    version = facts.get("format")
    if type(version) is not int or version != FORMAT:
        found = repr(version)[:40]
        raise CheckpointError(f"{path}: model format {found}; this version of sagan reads format {FORMAT}")
    for key, good, what in _WANTED:
        need(good(facts.get(key)), key, what)
    names, spec = facts["class_names"], _spec(facts["spec"], need)
    need(len(names) == spec.num_classes, "class_names", f"names {len(names)} classes of {spec.num_classes}")
    data = facts["data"]
    need(isinstance(data.get("source"), str) and data["source"].isprintable(), "data.source", "is not a line of text")
    need(isinstance(data.get("digest"), str) and _HASH.fullmatch(data["digest"]), "data.digest", "is not a digest")
    need(_count(data.get("count")), "data.count", "is not a count")
    return Facts(
        path, facts["step"], facts["arch"], facts["arch_package"], spec, tuple(names), data, facts["checkpoint"]
    ), facts["weights"]


def _spec(value: dict[str, Any], need: Callable[[object, str, str], None]) -> ModelSpec:
    keys = {f.name for f in fields(ModelSpec)}
    need(set(value) == keys, "spec", f"has other keys than {', '.join(sorted(keys))}")
    for key, (low, high) in _LIMITS.items():
        need(type(value[key]) is int and low <= value[key] <= high, f"spec.{key}", f"is not a number {low} to {high}")
    sides = value["attn_at"]
    good = isinstance(sides, list) and len(sides) <= 32 and all(map(_count, sides))
    need(good, "spec.attn_at", "is not a list of sides")
    need(isinstance(value["options"], dict), "spec.options", "is not an object")
    return ModelSpec(**{**value, "attn_at": tuple(sides)})


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


def _word(value: Any) -> bool:
    return isinstance(value, str) and _WORD.fullmatch(value) is not None


def _names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) and v.isprintable() for v in value)


def _digests(value: Any) -> bool:
    return isinstance(value, dict) and all(
        k.isprintable() and isinstance(v, str) and _HASH.fullmatch(v) for k, v in value.items()
    )


_WANTED: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("sagan", _word, "is not a version"),
    ("arch", _word, "is not a name"),
    ("arch_package", _word, "is not a package and its version"),
    ("spec", lambda v: isinstance(v, dict), "is not an object"),
    ("class_names", _names, "is not a list of names"),
    ("weights", lambda v: v in ("ema", "raw"), "is neither ema nor raw"),
    ("step", _count, "is not a step"),
    ("data", lambda v: isinstance(v, dict), "is not an object"),
    ("checkpoint", _digests, "is not a map of digests"),
    (DIGEST, lambda v: isinstance(v, str) and _HASH.fullmatch(v) is not None, "is not a digest"),
)
