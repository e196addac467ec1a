"""Prepare a training job: pack the images, decide the shape of the networks, describe both for the record."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from sagan_cli.config.schema import AUTO, Config
from sagan_cli.contracts import ModelSpec, Progress
from sagan_cli.data.holdout import Indices, split
from sagan_cli.data.packing.build import guess_channels
from sagan_cli.data.packing.pack import Pack, PackRequest, packed_dataset, require_batch
from sagan_cli.data.sources.opening import Opened, hints_of
from sagan_cli.engine.runtime import Runtime
from sagan_cli.errors import PluginError
from sagan_cli.plugins import registry


@dataclass(frozen=True)
class Job:
    """The inputs of the training loop."""

    config: Config
    spec: ModelSpec
    arch_package: str
    pack: Pack
    training: Indices
    """Images of the pack that are trained on."""
    held_out: Indices
    """Images of the pack that are reserved for scoring."""


def label(config: Config, opened: Opened) -> str:
    """Return `<data>-<arch><size>`, the readable part of a run directory's name."""
    form = opened.form
    size = str(form.height) if form.height == form.width else f"{form.height}x{form.width}"
    name = Path(config.data.data).stem
    return f"{name}-{config.model.arch}{size}"


def preview_spec(config: Config, opened: Opened) -> ModelSpec:
    """Return the shape of the networks before any image is packed."""
    channels = _channels(config) or hints_of(opened.dataset).channels or guess_channels(opened.dataset)
    return _spec(config, opened, channels, len(opened.dataset.class_names))


def open_job(config: Config, opened: Opened, progress: Progress, notify: Callable[[str], None]) -> Job:
    """Pack the images, or find them packed, and decide the shape of the networks.

    Raises:
        DataError: too many unreadable images, or fewer images than a batch.
        UsageError: an unknown architecture.
    """
    arch = registry.find("architectures", config.model.arch)
    request = PackRequest(opened.form.height, opened.form.width, _channels(config), config.data.fit)
    pack = packed_dataset(opened.dataset, request, config.data.max_bad, progress, notify)
    training, held_out = split(pack, config.data.holdout)
    require_batch(len(training), config.train.batch)
    spec = _spec(config, opened, int(pack.images.shape[-1]), len(pack.class_names))
    return Job(config, spec, f"{arch.package} {arch.version}", pack, training, held_out)


def machine_facts(job: Job, runtime: Runtime) -> dict[str, Any]:
    """Return what run.json records besides the settings."""
    return {
        "model": {"arch": job.config.model.arch, "package": job.arch_package, **asdict(job.spec)},
        "data": {
            "source": job.config.data.data,
            "digest": job.pack.digest,
            "count": len(job.pack.images),
            "held_out": len(job.held_out),
            "skipped": len(job.pack.skipped),
            "class_names": list(job.pack.class_names),
        },
        "machine": runtime.facts(),
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("torch", "numpy", "pillow", "safetensors")},
        },
    }  # fmt: skip


def _channels(config: Config) -> int | None:
    return None if config.data.channels == "auto" else int(config.data.channels)


def _spec(config: Config, opened: Opened, channels: int, num_classes: int) -> ModelSpec:
    model, form = config.model, opened.form
    spec = ModelSpec(
        height=form.height, width=form.width, channels=channels, num_classes=num_classes, latent=model.latent,
        base_width=model.width, attn_at=form.attn_at, options=model.spec_options(),
    )  # fmt: skip
    return settled(model.arch, spec, auto=model.attn_at == AUTO)


def settled(arch: str, spec: ModelSpec, *, auto: bool) -> ModelSpec:
    """Return the specification with the attention layers that the architecture decides on (`settled` in `contracts`).

    Args:
        auto: whether `--attn-at` was left open; `spec.attn_at` is then that of `sagan`.

    Raises:
        UsageError: unknown architecture, or attention that it refuses.
        PluginError: the plugin does not load, or returns something else.
    """
    entry = registry.find("architectures", arch)
    ask = getattr(registry.load_entry(entry), "settled", None)
    answer = spec if ask is None else ask(spec, auto=auto)
    if not isinstance(answer, ModelSpec):
        raise PluginError(f"{entry.title}: settled() returned {type(answer).__name__}, not a ModelSpec")
    return answer
