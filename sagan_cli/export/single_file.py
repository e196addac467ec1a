"""A generator in one safetensors file: written to be equal byte for byte each time, read without trusting a byte.

The header has one key, `sagan`: facts as sorted JSON (`export.facts`), with a sha256 over the facts and all tensors.
One key, because the library writes several in an order that changes from run to run.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from sagan_cli.engine import networks, sample
from sagan_cli.engine.checkpoint import Facts
from sagan_cli.errors import CheckpointError, SaganError, UsageError
from sagan_cli.export import facts as described
from sagan_cli.export.header import Header, load_json, read_header
from sagan_cli.export.subject import Check, Subject
from sagan_cli.model.layers import fold_network_
from sagan_cli.plugins import registry

KEY = "sagan"
STDIN = Path("standard input")
"""What messages call a model that came through a pipe."""
BATCHES = (1, 3, 16)
"""What a written file is tried at."""
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_CHUNK = 1 << 24


def to_bytes(subject: Subject) -> bytes:
    """The file of a generator, a function of its weights and facts alone.

    Raises:
        SaganError: facts that JSON cannot hold, or weights of a type that the format has not.
    """
    tensors = {k: t.detach().cpu().contiguous() for k, t in subject.generator.state_dict().items()}
    for name, tensor in tensors.items():
        if tensor.dtype not in _NAMES:
            raise SaganError(f"{subject.source}: {name} is of type {tensor.dtype}, which safetensors files do not have")
    facts = described.describe(subject)
    try:
        facts[described.DIGEST] = _digest(facts, tensors)
        # Clones: the library refuses tensors that share memory, as tied weights do.
        return save({k: t.clone() for k, t in tensors.items()}, {KEY: _json(facts)})
    except ValueError as e:
        raise SaganError(f"{subject.source}: cannot be described in a file's header: {e}") from e


def read_file(source: Path | bytes | IO[bytes], device: torch.device | None = None) -> sample.Sampler:
    """The generator of a file, its bytes, or a stream of them; ready to draw on `device` (the CPU by default).

    Nothing is believed: lengths are checked before anything is read, facts before a network is thought of, names and
    shapes before memory is taken, and the digest before the weights are used.

    Raises:
        CheckpointError: one line that names the file and what is wrong with it.
        PluginError: its architecture is installed and broken.
    """
    device = device or torch.device("cpu")
    if isinstance(source, Path):
        try:
            with source.open("rb") as f:
                return _read(f, source, source.stat().st_size, device)
        except OSError as e:
            raise CheckpointError(f"{source}: cannot be read: {e.strerror or e}") from e
    if isinstance(source, bytes):
        return _read(io.BytesIO(source), Path("model"), len(source), device)
    return _read(source, STDIN, None, device)


def proven(data: bytes, subject: Subject) -> Check:
    """Read a file's bytes back and draw with them beside the generator that they were made from.

    Raises:
        SaganError: it draws anything else, or cannot be read.
    """
    sampler = read_file(data)
    differences, ours, theirs = {}, {}, {}
    for batch in BATCHES:
        z, y = sample.latents([sample.Request(seed) for seed in range(batch)], subject.spec, None)
        with torch.inference_mode():
            want, theirs[batch] = _timed(subject.generator, z, y)
            got, ours[batch] = _timed(sampler.generator, z, y)
        differences[batch] = (want - got).abs().max().item()
        if not differences[batch] <= 1e-5:
            raise SaganError(f"the file draws other pictures than {subject.source} (by {differences[batch]:.2g})")
    return Check(f"PyTorch {torch.__version__.partition('+')[0]}, CPU", differences, ours, theirs)


def _timed(network: nn.Module, z: Tensor, y: Tensor | None) -> tuple[Tensor, float]:
    """Output, and milliseconds of the second of two passes."""
    network(z, y)
    begun = time.perf_counter()
    x: Tensor = network(z, y)
    return x, (time.perf_counter() - begun) * 1000


def _read(stream: IO[bytes], path: Path, size: int | None, device: torch.device) -> sample.Sampler:
    header = read_header(stream, str(path), size)
    if KEY not in header.metadata:
        raise CheckpointError(f"{path}: a safetensors file, but none that 'sagan export' wrote")
    stated = load_json(header.metadata[KEY], f"{path}: damaged: the description in its header")
    facts, weights = described.check(stated, path)
    network = _expected(facts)
    _compare(header, network, path)
    tensors = _tensors(_exactly(stream, header.total, path), header)
    claimed = stated.pop(described.DIGEST)
    if _digest(stated, tensors) != claimed:
        raise CheckpointError(f"{path}: damaged: its sha256 is not the one in its header")
    network = _filled(network, tensors, facts)
    return sample.Sampler(sample.ready(network, device), facts.spec, facts.class_names, facts, weights)


def _expected(facts: Facts) -> nn.Module:
    """The folded network that the facts describe, without memory for its weights.

    Raises:
        CheckpointError: there is no such architecture here, or it refuses the facts.
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


def _compare(header: Header, network: nn.Module, path: Path) -> None:
    """Hold the tensors that a file declares against those that its network has."""
    wanted = network.state_dict()
    for name, tensor in wanted.items():
        if name not in header.tensors:
            raise CheckpointError(f"{path}: does not fit its architecture: tensor '{name}' is missing")
        found = header.tensors[name]
        for what, has, needs in (
            ("shape", found.shape, tuple(tensor.shape)),
            ("type", found.dtype, _NAMES.get(tensor.dtype)),
        ):
            if has != needs:
                raise CheckpointError(
                    f"{path}: does not fit its architecture: tensor '{name}' has {what} {has}, not {needs}"
                )
    if extra := sorted(set(header.tensors) - set(wanted)):
        raise CheckpointError(f"{path}: does not fit its architecture: it has no tensor {extra[0][:100]!r}")


def _exactly(stream: IO[bytes], count: int, path: Path) -> bytearray:
    data = bytearray()
    # In parts: a pipe that promises more than it sends must not cost the memory of its promise.
    while len(data) < count and (part := stream.read(min(count - len(data), _CHUNK))):
        data += part
    if len(data) < count:
        raise CheckpointError(f"{path}: cut short: {len(data):,} of {count:,} bytes of tensors are there")
    if stream.read(1):
        raise CheckpointError(f"{path}: damaged: bytes follow its last tensor")
    return data


def _tensors(data: bytearray, header: Header) -> dict[str, Tensor]:
    found = {}
    for name, e in header.tensors.items():
        if e.begin == e.end:
            found[name] = torch.empty(e.shape, dtype=_DTYPES[e.dtype])
            continue
        # A copy, so that each lies at an address that suits its type.
        flat = torch.frombuffer(data, dtype=torch.uint8, count=e.end - e.begin, offset=e.begin).clone()
        found[name] = flat.view(_DTYPES[e.dtype]).view(e.shape)
    return found


def _filled(network: nn.Module, tensors: dict[str, Tensor], facts: Facts) -> nn.Module:
    """The network with its weights; built once more, for real, where it holds tensors that no file carries."""
    network.load_state_dict(tensors, assign=True)
    if sample.hollow(network):
        network = _built(facts)
        network.load_state_dict(tensors)
    return network


def _digest(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """sha256 over the facts, and name, type, shape and bytes of each tensor in the order of names."""
    digest = hashlib.sha256(_json(facts).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, _NAMES[tensor.dtype], list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _json(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
