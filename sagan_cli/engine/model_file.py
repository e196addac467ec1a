"""Read a generator from one .safetensors file, as `sagan export` writes it, without trusting its contents.

The header has one key, `sagan`: facts as sorted JSON, with a sha256 over the facts and all tensors. There is one key
because the library writes several in an order that changes from run to run. `export.single_file` writes such files.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sagan_cli.contracts import ModelSpec
from sagan_cli.engine import networks, sample
from sagan_cli.engine.checkpoint import SPEC_LIMITS, Facts
from sagan_cli.errors import CheckpointError, UsageError
from sagan_cli.files import utf8_name
from sagan_cli.model.layers import fold_network_
from sagan_cli.plugins import registry

FORMAT = 1
"""Version of the facts; another one is refused."""
KEY, DIGEST = "sagan", "sha256"
"""The key of the facts in the header, and the key of the digest in the facts."""
STDIN = Path("standard input")
"""Name in messages of a model that was read from a pipe."""
DTYPE_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""The types that a file may have, by their names in the header."""
_WORD = re.compile(r"[\w.+!-]{1,100}( [\w.+!-]{1,100}){0,3}")
_HASH = re.compile(r"[0-9a-f]{1,128}")


def read_file(source: Path | IO[bytes], device: torch.device | None = None) -> sample.Sampler:
    """Read the generator of a file or stream; it is ready to draw on `device` (the CPU by default).

    Facts, tensor names, types and shapes are checked before weights are read, and the digest before they are used.

    Raises:
        CheckpointError: one line that names the file and the reason.
        PluginError: its architecture is installed and fails.
    """
    device = device or torch.device("cpu")
    if isinstance(source, Path):
        return _read(source, source, device)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model.safetensors"
        with copy.open("wb") as f:
            shutil.copyfileobj(source, f, 1 << 20)
        return _read(copy, STDIN, device)


def _read(file: Path, path: Path, device: torch.device) -> sample.Sampler:
    """Read `file`; `path` is its name in messages."""
    try:
        with file.open("rb") as f:
            start = f.read(4)
    except OSError as e:
        raise CheckpointError(f"{path}: cannot be read: {e.strerror or e}") from e
    try:
        with utf8_name(file) as name, safe_open(name, framework="pt") as opened:
            metadata = opened.metadata() or {}
            if KEY not in metadata:
                raise CheckpointError(f"{path}: a safetensors file, but none that 'sagan export' wrote")
            stated = _load_json(metadata[KEY], f"{path}: damaged: the description in its header")
            facts, weights = _checked(stated, path)
            network = _expected(facts)
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            _compare({n: (tuple(s.get_shape()), s.get_dtype()) for n, s in slices.items()}, network, path)
            # Copies, because the library maps the file, which may change or disappear.
            tensors = {name: opened.get_tensor(name).clone() for name in slices}
    except SafetensorError as e:
        # Only now: a sound file may begin with these bytes as well, which are the length of its header.
        if start[:1] == b"\x80" or start == b"PK\x03\x04":
            raise CheckpointError(
                f"{path}: not a safetensors file: it looks like a pickle, which sagan never opens"
            ) from e
        line = " ".join(str(e).split())[:200]
        raise CheckpointError(f"{path}: not a safetensors file, or damaged or cut short: {line}") from e
    claimed = stated.pop(DIGEST)
    if content_digest(stated, tensors) != claimed:
        raise CheckpointError(f"{path}: damaged: its sha256 is not the one in its header")
    network = _filled(network, tensors, facts)
    return sample.Sampler(sample.ready(network, device), facts.spec, facts.class_names, facts, weights)


def _expected(facts: Facts) -> nn.Module:
    """Return the folded network that the facts describe, on the meta device.

    Raises:
        CheckpointError: the architecture is not installed, or refuses the facts.
    """
    if facts.arch not in registry.names("architectures"):
        raise CheckpointError(
            f"{facts.path}: needs architecture '{facts.arch}' of package {facts.arch_package}; install it"
        )
    try:
        with torch.device("meta"):
            return _built(facts)
    except (UsageError, RuntimeError) as e:
        line = " ".join(str(e).split())[:300]
        raise CheckpointError(f"{facts.path}: architecture '{facts.arch}' refuses its description: {line}") from e


def _built(facts: Facts) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        network, _ = networks.build(facts.arch, facts.spec)
    return fold_network_(network.eval().requires_grad_(False))


def _compare(found: Mapping[str, tuple[tuple[int, ...], str]], network: nn.Module, path: Path) -> None:
    """Compare shapes and types of a file's tensors with those of the network."""
    expected = network.state_dict()
    for name, tensor in expected.items():
        if name not in found:
            raise CheckpointError(f"{path}: does not fit its architecture: tensor '{name}' is missing")
        for what, has, needs in zip(
            ("shape", "type"), found[name], (tuple(tensor.shape), DTYPE_NAMES.get(tensor.dtype)), strict=True
        ):
            if has != needs:
                raise CheckpointError(
                    f"{path}: does not fit its architecture: tensor '{name}' has {what} {has}, not {needs}"
                )
    if extra := sorted(set(found) - set(expected)):
        raise CheckpointError(f"{path}: does not fit its architecture: it has no tensor {extra[0][:100]!r}")


def _filled(network: nn.Module, tensors: dict[str, Tensor], facts: Facts) -> nn.Module:
    """Return the network with its weights; built again in memory if it has tensors that are not in the file."""
    network.load_state_dict(tensors, assign=True)
    if sample.hollow(network):
        network = _built(facts)
        network.load_state_dict(tensors)
    return network


def content_digest(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 over the facts, and name, type, shape and bytes of each tensor in the order of names."""
    digest = hashlib.sha256(facts_text(facts).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, DTYPE_NAMES[tensor.dtype], list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def facts_text(facts: Mapping[str, Any]) -> str:
    """Return the facts as JSON, always the same text."""
    return json.dumps(facts, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _load_json(text: bytes | str, what: str) -> dict[str, Any]:
    """Parse a JSON object without NaN and duplicate keys; `what` begins the message.

    Raises:
        CheckpointError: it is anything else.
    """
    try:
        value = json.loads(
            text if isinstance(text, str) else text.decode("utf-8"),
            parse_constant=_refuse,
            parse_float=_finite,
            object_pairs_hook=_without_duplicates,
        )
    except RecursionError:
        raise CheckpointError(f"{what} is nested too deeply") from None
    except ValueError as e:  # UnicodeDecodeError and JSONDecodeError are such
        raise CheckpointError(f"{what} is not valid JSON: {' '.join(str(e).split())[:200]}") from e
    if not isinstance(value, dict):
        raise CheckpointError(f"{what} is not a JSON object")
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large a number")
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _checked(facts: dict[str, Any], path: Path) -> tuple[Facts, str]:
    """Return the facts of a file after checking every type and range, and whether the weights are `ema` or `raw`.

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
    for key, good, what in _CHECKS:
        need(good(facts.get(key)), key, what)
    names, spec = facts["class_names"], _spec(facts["spec"], need)
    need(len(names) == spec.num_classes, "class_names", f"names {len(names)} classes of {spec.num_classes}")
    data = facts["data"]
    need(isinstance(data.get("source"), str) and one_line(data["source"]), "data.source", "is not a line of text")
    need(isinstance(data.get("digest"), str) and _HASH.fullmatch(data["digest"]), "data.digest", "is not a digest")
    need(_count(data.get("count")), "data.count", "is not a count")
    return Facts(
        path, facts["step"], facts["arch"], facts["arch_package"], spec, tuple(names), data, facts["checkpoint"]
    ), facts["weights"]


def _spec(value: dict[str, Any], need: Callable[[object, str, str], None]) -> ModelSpec:
    keys = {f.name for f in fields(ModelSpec)}
    need(set(value) == keys, "spec", f"has other keys than {', '.join(sorted(keys))}")
    for key, (low, high) in SPEC_LIMITS.items():
        need(type(value[key]) is int and low <= value[key] <= high, f"spec.{key}", f"is not a number {low} to {high}")
    sides = value["attn_at"]
    good = isinstance(sides, list) and len(sides) <= 32 and all(map(_count, sides))
    need(good, "spec.attn_at", "is not a list of sides")
    need(isinstance(value["options"], dict), "spec.options", "is not an object")
    return ModelSpec(**{**value, "attn_at": tuple(sides)})


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


def one_line(text: str) -> bool:
    """Return whether a text has no control characters, line ends or halves of surrogate pairs."""
    return not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text)


def _word(value: Any) -> bool:
    return isinstance(value, str) and _WORD.fullmatch(value) is not None


def _names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) and one_line(v) for v in value)


def _digests(value: Any) -> bool:
    return isinstance(value, dict) and all(
        k.isprintable() and isinstance(v, str) and _HASH.fullmatch(v) for k, v in value.items()
    )


_CHECKS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
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
