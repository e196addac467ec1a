"""The header of a safetensors file, read from bytes that nobody vouches for: sizes first, then structure, no tensor.

The format: 8 bytes little-endian length n, n bytes of JSON, then the tensors' bytes without gaps
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import IO, Any

from sagan_cli.errors import CheckpointError

MAX_HEADER = 8 << 20
"""Bytes; a generator's header has some ten thousand."""
ITEMSIZE = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
"""Bytes of one number of each type that a generator may have."""
_LARGEST = 1 << 48
"""No side, product of sides or offset is larger, so that nothing overflows further on."""


@dataclass(frozen=True)
class Entry:
    """One tensor as the header declares it."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    """Offset of its first byte after the header."""
    end: int


@dataclass(frozen=True)
class Header:
    """What a file says that it holds."""

    metadata: dict[str, str]
    tensors: dict[str, Entry]
    total: int
    """Bytes of all tensors; they follow the header and are all of the rest."""


def read_header(stream: IO[bytes], name: str, size: int | None = None) -> Header:
    """Read a header and leave the stream at the first tensor.

    Args:
        name: what the messages call the file.
        size: bytes of the whole file, where that is known beforehand.

    Raises:
        CheckpointError: it is not a sound header, or does not fit the size.
    """
    start = stream.read(8)
    if len(start) < 8:
        what = "is empty" if not start else f"has only {len(start)} bytes"
        raise CheckpointError(f"{name}: not a safetensors file: it {what}")
    length = int.from_bytes(start, "little")
    if length > MAX_HEADER:
        pickled = start[:1] == b"\x80" or start[:4] == b"PK\x03\x04"
        hint = "; it looks like a pickle, which sagan never opens" if pickled else ""
        raise CheckpointError(f"{name}: not a safetensors file: its header would be {length:,} bytes long{hint}")
    text = stream.read(length)
    if len(text) < length:
        raise CheckpointError(f"{name}: cut short: {len(text):,} of the header's {length:,} bytes are there")
    header = parse(text, name)
    if size is not None and size != 8 + length + header.total:
        held, declared = f"{size:,} bytes long", f"{8 + length + header.total:,}"
        word = "cut short" if size < 8 + length + header.total else "damaged"
        raise CheckpointError(f"{name}: {word}: it is {held}, and its header tells of {declared}")
    return header


def parse(text: bytes, name: str) -> Header:
    """The header from its JSON.

    Raises:
        CheckpointError: naming what is wrong with it.
    """
    value = load_json(text, f"{name}: not a safetensors file: its header")
    metadata = value.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CheckpointError(f"{name}: damaged: the header's __metadata__ is not a map of texts")
    tensors = {key: _entry(key, entry, name) for key, entry in value.items()}
    end = 0
    for key, entry in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != end:
            raise CheckpointError(f"{name}: damaged: the bytes of tensor {key!r} do not follow those before it")
        end = entry.end
    return Header(metadata, tensors, end)


def load_json(text: bytes | str, what: str) -> dict[str, Any]:
    """A JSON object, strictly: no NaN, no key twice, no absurd nesting; `what` begins the message.

    Raises:
        CheckpointError: it is anything else.
    """
    try:
        value = json.loads(
            text if isinstance(text, str) else text.decode("utf-8"),
            parse_constant=_refuse,
            parse_float=_finite,
            object_pairs_hook=_once,
        )
    except RecursionError:
        raise CheckpointError(f"{what} is nested too deeply") from None
    except ValueError as e:  # UnicodeDecodeError and JSONDecodeError are such
        raise CheckpointError(f"{what} is not sound JSON: {' '.join(str(e).split())[:200]}") from e
    if not isinstance(value, dict):
        raise CheckpointError(f"{what} is not a JSON object")
    return value


def _entry(key: str, entry: Any, name: str) -> Entry:
    def wrong(what: str) -> CheckpointError:
        return CheckpointError(f"{name}: damaged: tensor {key!r} {what}")

    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise wrong("is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEMSIZE:
        raise wrong(f"is of an unknown type {str(dtype)[:20]!r}")
    if not _sizes(shape) or len(shape) > 8:
        raise wrong("has an impossible shape")
    if not _sizes(offsets) or len(offsets) != 2:
        raise wrong("has impossible offsets")
    needed = math.prod(shape) * ITEMSIZE[dtype]
    if needed > _LARGEST or offsets[1] - offsets[0] != needed:
        raise wrong(f"takes {offsets[1] - offsets[0]:,} bytes, and its shape {needed:,}")
    return Entry(dtype, tuple(shape), *offsets)


def _sizes(values: Any) -> bool:
    """Whether it is a list of whole numbers that can be sizes; True is no number here."""
    return isinstance(values, list) and all(type(v) is int and 0 <= v <= _LARGEST for v in values)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large a number")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands there twice")
    return found
