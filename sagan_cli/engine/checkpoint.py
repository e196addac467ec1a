"""Write, verify and read checkpoints, in safetensors and JSON.

    checkpoints/00000500/
        model.safetensors    generator.* and ema.*, for sampling
        state.safetensors    discriminator.*, opt_g.*, opt_d.*, adaptive.*, for resuming
        checkpoint.json      step, network, data, and the sha256 of the two files

The directory is created by one rename, so it is complete or absent.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sagan_cli import __version__
from sagan_cli.contracts import ModelSpec
from sagan_cli.engine.networks import Networks
from sagan_cli.errors import CheckpointError
from sagan_cli.files import TEMPORARY, discard, encoded, remove, sha256_of, utf8_name, write_directory
from sagan_cli.model.ema import EMA
from sagan_cli.runs import CHECKPOINT_FACTS, checkpoint_steps
from sagan_cli.runs import MODEL as MODEL

FORMAT = 1
DIGEST = "digest"
"""Key of the digest of checkpoint.json in itself."""
STATE, FACTS = "state.safetensors", CHECKPOINT_FACTS


SPEC_LIMITS = {
    "height": (1, 1 << 14), "width": (1, 1 << 14), "channels": (1, 64), "num_classes": (0, 1_000_000),
    "latent": (1, 1 << 20), "base_width": (1, 1 << 16),
}  # fmt: skip
"""Smallest and largest values of a `ModelSpec` in a file; within these, no product of sides overflows."""


@dataclass(frozen=True)
class Facts:
    """The contents of checkpoint.json."""

    path: Path
    step: int
    arch: str
    arch_package: str
    spec: ModelSpec
    class_names: tuple[str, ...]
    data: dict[str, Any]
    digests: dict[str, str]
    run: dict[str, Any] = field(default_factory=dict)
    """`id` and `seed` of the run that it belongs to; empty in checkpoints of versions before 0.4, and imported ones."""


def save(folder: Path, step: int, networks: Networks, ema: EMA, about: dict[str, Any]) -> Path:
    """Write `folder/<step>/`; `about` holds run, arch, arch_package, spec, class_names and data.

    An existing checkpoint of this step is kept: training is deterministic, so it has the same contents. What has the
    name of a checkpoint and is none is replaced.
    """
    path = folder / f"{step:08d}"
    if (path / FACTS).is_file():
        return path
    if path.exists():
        discard(path)

    def fill(work: Path) -> None:
        model = _prefixed("generator", networks.generator.state_dict()) | _prefixed("ema", ema.module.state_dict())
        state = _prefixed("discriminator", networks.discriminator.state_dict())
        state |= _optimiser_tensors("opt_g", networks.opt_g, networks.generator)
        state |= _optimiser_tensors("opt_d", networks.opt_d, networks.discriminator)
        if networks.adaptive is not None:
            state |= _prefixed("adaptive", networks.adaptive.state_dict())
        for name, tensors in ((MODEL, model), (STATE, state)):
            write_tensors(tensors, work / name)
        facts = {
            "format": FORMAT,
            "sagan": __version__,
            "step": step,
            **about,
            "spec": {**asdict(about["spec"]), "options": dict(about["spec"].options)},
            "sha256": {name: sha256_of(work / name) for name in (MODEL, STATE)},
        }
        facts[DIGEST] = _digest(facts)
        (work / FACTS).write_bytes(encoded(json.dumps(facts, indent=2, ensure_ascii=False) + "\n"))

    write_directory(path, fill)
    return path


def write_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write a safetensors file.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    try:
        save_file({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, file)
    except SafetensorError as e:
        # The library reports errors of the system as text only.
        full = "os error 28" in str(e) or shutil.disk_usage(file.parent).free < 1 << 20
        raise OSError(errno.ENOSPC if full else errno.EIO, "no space left on the disk" if full else str(e)) from e


def prune(folder: Path, keep: int, spare: Collection[int] = ()) -> None:
    """Delete all but the newest `keep` checkpoints and those of the steps `spare`, and leftovers of crashed writers."""
    for stale in folder.glob(f"{TEMPORARY}*"):
        remove(stale)
    for path in checkpoint_steps(folder)[:-keep]:
        if int(path.name) in spare:
            continue
        # Renamed first: an interrupted deletion must not leave half a checkpoint under a valid name.
        gone = path.rename(path.with_name(f"{TEMPORARY}{path.name}"))
        shutil.rmtree(gone)


def read_facts(path: Path) -> Facts:
    """Read checkpoint.json of a checkpoint directory.

    Raises:
        CheckpointError: missing, damaged, or of another format.
    """
    file = path / FACTS
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except OSError as e:
        raise CheckpointError(f"{path}: not a checkpoint (no readable {FACTS})") from e
    except ValueError as e:
        raise CheckpointError(f"{file}: damaged: {e}") from e
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        found = facts.get("format") if isinstance(facts, dict) else None
        raise CheckpointError(f"{file}: checkpoint format {found!r}; this version of sagan reads format {FORMAT}")
    if facts.get(DIGEST, _digest(facts)) != _digest(facts):
        raise CheckpointError(f"{file}: changed after it was written; delete {path} to use an older one")
    try:
        spec = {**facts["spec"], "attn_at": tuple(facts["spec"]["attn_at"])}
        for name, (low, high) in SPEC_LIMITS.items():
            if type(spec[name]) is not int or not low <= spec[name] <= high:
                raise ValueError(f"spec.{name} is not a number {low} to {high}")
        for name in ("data", "sha256", "run"):
            if not isinstance(facts.get(name, {}), dict):
                raise ValueError(f"{name} is not an object")
        return Facts(
            path, int(facts["step"]), facts["arch"], facts["arch_package"], ModelSpec(**spec),
            tuple(facts["class_names"]), facts["data"], facts["sha256"], facts.get("run", {}),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as e:
        raise CheckpointError(f"{file}: damaged: {type(e).__name__}: {e}") from e


def _digest(facts: Mapping[str, Any]) -> str:
    """Return the sha256 of the contents of checkpoint.json without the digest itself."""
    rest = {name: value for name, value in facts.items() if name != DIGEST}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def require_own(facts: Facts, run_id: str | None, seed: int) -> None:
    """Refuse a checkpoint of another run, of another step than its directory, or of another seed.

    Raises:
        CheckpointError: naming the difference.
    """
    for what, found, expected in (
        ("run", facts.run.get("id", run_id), run_id), ("seed", facts.run.get("seed", seed), seed),
        ("step", f"{facts.step:08d}", facts.path.name),
    ):  # fmt: skip
        if found != expected:
            raise CheckpointError(
                f"{facts.path}: is of {what} {found}, and this run's is {expected}; delete it to use an older one"
            )


def load_tensors(facts: Facts, file: str, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the tensors of one file under the given prefixes, after checking its digest.

    Raises:
        CheckpointError: the file is missing, or its digest differs.
    """
    path = facts.path / file
    if not path.is_file():
        raise CheckpointError(f"{path}: missing from its checkpoint")
    if sha256_of(path) != facts.digests.get(file):
        raise CheckpointError(
            f"{path}: damaged or replaced (its sha256 is not the one in {FACTS}); "
            f"delete {facts.path} to use an older one"
        )
    try:
        with utf8_name(path) as name, safe_open(name, framework="pt") as f:
            return {k: f.get_tensor(k) for k in f.keys() if k.split(".", 1)[0] in prefixes}  # noqa: SIM118
    except SafetensorError as e:
        raise CheckpointError(f"{path}: not a safetensors file: {e}") from e


def load_module(
    module: nn.Module, tensors: dict[str, Tensor], prefix: str, path: Path, *, assign: bool = False
) -> None:
    """Copy the tensors `prefix.*` into a module; all names and shapes must agree.

    Args:
        assign: use the tensors themselves as weights, as a module on the meta device requires.

    Raises:
        CheckpointError: naming the first tensor that does not fit.
    """
    state = {k.removeprefix(prefix + "."): t for k, t in tensors.items() if k.startswith(prefix + ".")}
    try:
        module.load_state_dict(state, assign=assign)
    except RuntimeError as e:
        raise CheckpointError(f"{path}: does not fit this architecture: {str(e).splitlines()[-1].strip()}") from e


def restore(facts: Facts, networks: Networks, ema: EMA) -> int:
    """Restore networks, optimisers and EMA; return the step of the checkpoint."""
    tensors = load_tensors(facts, MODEL, ("generator", "ema"))
    load_module(networks.generator, tensors, "generator", facts.path)
    load_module(ema.module, tensors, "ema", facts.path)
    tensors = load_tensors(facts, STATE, ("discriminator", "opt_g", "opt_d", "adaptive"))
    if networks.adaptive is not None:
        load_module(networks.adaptive, tensors, "adaptive", facts.path)
    load_module(networks.discriminator, tensors, "discriminator", facts.path)
    _load_optimiser("opt_g", networks.opt_g, networks.generator, tensors, facts.path)
    _load_optimiser("opt_d", networks.opt_d, networks.discriminator, tensors, facts.path)
    return facts.step


def _prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{k}": t for k, t in tensors.items()}


def _optimiser_tensors(prefix: str, optimiser: torch.optim.Optimizer, network: nn.Module) -> dict[str, Tensor]:
    """Return the optimiser's state by parameter name, as in `opt_g.linear.weight/exp_avg`."""
    return {
        f"{prefix}.{name}/{slot}": value if isinstance(value, Tensor) else torch.tensor(float(value))
        for name, parameter in network.named_parameters()
        for slot, value in optimiser.state.get(parameter, {}).items()
    }


def _load_optimiser(
    prefix: str, optimiser: torch.optim.Optimizer, network: nn.Module, tensors: dict[str, Tensor], path: Path
) -> None:
    slots: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith(prefix + "."):
            name, _, slot = key.removeprefix(prefix + ".").partition("/")
            slots.setdefault(name, {})[slot] = tensor
    for name, parameter in network.named_parameters():
        state = {}
        for slot, tensor in slots.get(name, {}).items():
            if tensor.dim() and tensor.shape != parameter.shape:
                raise CheckpointError(
                    f"{path}: {prefix}.{name}/{slot} is {tuple(tensor.shape)}, not {tuple(parameter.shape)}"
                )
            # empty_like keeps the parameter's memory layout, which fused Adam requires; the step count is a scalar.
            state[slot] = torch.empty_like(parameter).copy_(tensor) if tensor.dim() else tensor.to(parameter.device)
        if state:
            optimiser.state[parameter] = state
