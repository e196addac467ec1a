"""What `sagan train --dry-run` prints: the network, its memory, the data and the settings; nothing is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagan_cli import console
from sagan_cli.config.toml import to_toml

if TYPE_CHECKING:
    from sagan_cli.config.resolve import Resolved
    from sagan_cli.data.sources.opening import Opened
    from sagan_cli.engine.runtime import Runtime


def show_plan(resolved: Resolved, opened: Opened, runtime: Runtime, json_: bool) -> None:
    """The plan on stdout, as text or JSON."""
    from sagan_cli.engine import anatomy, cost
    from sagan_cli.engine.jobs import preview_spec

    config = resolved.config
    spec = preview_spec(config, opened)
    at_once = config.train.batch // runtime.world // config.train.accumulate
    price = cost.count(config.model.arch, spec, at_once, runtime.precision)
    pictures = len(opened.dataset)
    facts = {
        "data": config.data.source,
        "pictures": pictures,
        "classes": list(opened.dataset.class_names),
        "arch": config.model.arch,
        "height": spec.height,
        "width": spec.width,
        "channels": spec.channels,
        "attn_at": list(spec.attn_at),
        "g_parameters": price.g_parameters,
        "d_parameters": price.d_parameters,
        "weights_mib": round(price.weights_mib, 1),
        "activations_mib": round(price.activations_mib, 1),
        "device": str(runtime.device),
        "precision": runtime.precision,
        "steps": config.train.steps,
        "batch": config.train.batch,
        "passes": round(config.train.steps * config.train.d_steps * config.train.batch / max(pictures, 1), 2),
    }
    if json_:
        console.emit_json(facts)
        return
    attention = anatomy.whereabouts(config.model.arch, spec)
    classes = f"{len(opened.dataset.class_names)} classes" if opened.dataset.class_names else "no classes"
    console.result(
        f"data         {config.data.source}: {pictures} pictures, {classes}\n"
        f"pictures     {spec.height}x{spec.width}x{spec.channels}, attention at {attention}\n"
        f"parameters   G {price.g_parameters:,}  D {price.d_parameters:,}\n"
        f"memory       {price.weights_mib:,.0f} MiB weights and optimiser, "
        f"about {price.activations_mib:,.0f} MiB activations\n"
        f"training     {config.train.steps:,} steps of {config.train.batch} pictures on {runtime.device} in "
        f"{runtime.precision}: {facts['passes']} passes over the data\n"
    )
    console.result(to_toml(resolved).rstrip("\n"))
