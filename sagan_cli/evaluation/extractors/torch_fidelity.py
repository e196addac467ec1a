"""torch-fidelity's feature extractors, opened without executing a pickle and without output on stdout.

Networks, resizing and layers are torch-fidelity's classes, so that features are equal to the bit. `weights.py` finds
and checks the weights.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import re
import socket
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sagan_cli.errors import SaganError, UsageError, closest
from sagan_cli.evaluation.extractors.extractor import Extractor, tensor_digest
from sagan_cli.evaluation.extractors.weights import (
    DINO,
    EXTRACTORS,
    FLAG,
    INCEPTION,
    PUBLISHED,
    TIMEOUT,
    Progress,
    Weights,
    find_weights,
    load_tensors,
    offline,
    opened,
)

METRICS = ("fid", "kid", "prc")
"""Metrics of any extractor. The inception score needs class probabilities, which only Inception has."""


def open_torch_fidelity(
    name: str,
    *,
    weights: Path | None,
    device: torch.device,
    environ: Mapping[str, str],
    progress: Progress,
    notify: Callable[[str], None],
) -> Extractor:
    """Open one of `EXTRACTORS` on `device`, frozen, in evaluation mode, with verified weights.

    Args:
        weights: a file instead of the published one (`--weights`).
        environ: environment with SAGAN_FID_WEIGHTS, SAGAN_OFFLINE and HF_HUB_OFFLINE.

    Raises:
        UsageError: no such name or file, or weights for an extractor that takes none.
        SaganError: the weights cannot be downloaded, or belong to another network.
    """
    if name not in EXTRACTORS:
        known = ", ".join(EXTRACTORS)
        raise UsageError(f"--extractor {name}: no such extractor{closest(name, EXTRACTORS)}; there are {known}")
    if name in DINO:
        return _open_dino(name, weights, device, environ, notify)
    found = find_weights(name, weights, environ=environ, progress=progress, notify=notify)
    module, digest = (_load_script if name.startswith("clip-") else _load_state)(name, found, notify)
    facts = {"weights_file": str(found.path), "weights_file_sha256": found.sha256}
    return _extractor(name, module, digest, found.published, device, facts)


def _load_state(name: str, weights: Weights, notify: Callable[[str], None]) -> tuple[Any, str]:
    """Load Inception or VGG16 from tensors by name; return the module and its digest."""
    state = load_tensors(weights)
    # The classes read only files of torch.save, so they get one made in memory from the checked tensors.
    ours = io.BytesIO()
    torch.save(state, ours)
    ours.seek(0)
    try:
        module = _construct(name, notify, feature_extractor_weights_path=ours)
    except RuntimeError as e:
        detail = _mismatch(str(e))
        if detail is None:
            raise
        raise SaganError(f"{weights.path}: not weights of {name}: {detail}") from e
    return module, weights.sha256 if weights.published else tensor_digest(state)


def _load_script(name: str, weights: Weights, notify: Callable[[str], None]) -> tuple[Any, str]:
    """Load CLIP, which is published as a TorchScript archive.

    torch.jit.load runs code from the archive, and there is no other reader, so only the published file is accepted.
    """
    if not weights.published:
        raise SaganError(
            f"{FLAG} {weights.path}: sha256 {weights.sha256}, but {name} is {PUBLISHED[name].sha256}; its file "
            "contains code, so only the published one is opened"
        )
    with opened(weights) as f, warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.load` is", FutureWarning)  # users cannot change this
        return _construct(name, notify, feature_extractor_weights_path=f), weights.sha256


def _open_dino(
    name: str,
    weights: Path | None,
    device: torch.device,
    environ: Mapping[str, str],
    notify: Callable[[str], None],
) -> Extractor:
    """Open DINOv2 by torch.hub, which downloads code and weights from its authors; no sha256 is published.

    The digest is that of the tensors, so that records distinguish other weights.
    """
    if weights is not None:
        raise UsageError(f"{FLAG}: {name} is fetched by torch.hub and takes no file; leave it out")
    hub = Path(torch.hub.get_dir())
    needed = (hub / "facebookresearch_dinov2_main", hub / "checkpoints" / f"{DINO[name]}_pretrain.pth")
    # Even with both, torch.hub queries GitHub for the main branch, and continues if that fails.
    missing = [str(path) for path in needed if not path.exists()]
    if missing and (set_by := offline(environ)):
        raise SaganError(
            f"--extractor {name}: {' and '.join(missing)} not on this machine, and {set_by} is set: "
            "unset it once to fetch them; --extractor classifier needs no download"
        )
    if missing:
        notify(f"{name}: fetching code and weights of github.com/facebookresearch/dinov2 to {hub}")
    try:
        module = _construct(name, notify)
    except (OSError, http.client.HTTPException, RuntimeError) as e:
        reason = " ".join(str(e).split()) or type(e).__name__
        raise SaganError(
            f"--extractor {name}: torch.hub could not get facebookresearch/dinov2 ({reason}): it needs internet, or "
            f"{hub} copied from a machine with internet; --extractor classifier needs no download"
        ) from e
    facts = {"weights_file": str(needed[1]), "code": "torch.hub facebookresearch/dinov2"}
    return _extractor(name, module, tensor_digest(module.state_dict()), None, device, facts)


def _construct(name: str, notify: Callable[[str], None], **arguments: Any) -> Any:
    """Build torch-fidelity's module; its output goes to `notify`, and torch's random state does not change."""
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    cls = FEATURE_EXTRACTORS_REGISTRY[name]
    # fork_rng: the constructors initialise every layer at random before they load the weights.
    with _redirected(notify), _network_timeout(), _tensors_only(), torch.random.fork_rng(devices=[]):
        return cls(name, list(cls.get_provided_features_list()), **arguments)


@contextlib.contextmanager
def _tensors_only() -> Iterator[None]:
    """Context in which torch.load accepts only tensors and plain containers, even with weights_only=False.

    torch-fidelity's constructors use weights_only=False. PyTorch reads these variables at every call.
    """
    force, allow = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
    before = {name: os.environ.pop(name, None) for name in (force, allow)}
    os.environ[force] = "1"
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _extractor(
    name: str, module: Any, digest: str, published: bool | None, device: torch.device, facts: Mapping[str, Any]
) -> Extractor:
    module.eval().requires_grad_(False).to(device)
    side = getattr(module, "INPUT_IMAGE_SIZE", None) or module.resolution
    metrics = (*METRICS, "isc") if name == INCEPTION else METRICS
    return Extractor(
        name=name,
        digest=digest,
        published=published,
        layers={metric: module.get_default_feature_layer_for_metric(metric) for metric in metrics},
        resize=f"bilinear to {side}x{side} as TensorFlow 1 does it, without antialiasing",
        device=device,
        compute=partial(_compute, module),
        facts={"torch_fidelity": metadata.version("torch-fidelity"), **facts},
        inception=module if name == INCEPTION else None,
    )


def _compute(module: Any, images: Tensor, layers: tuple[str, ...]) -> dict[str, Tensor]:
    """Return features of uint8 (N, 3, H, W), float32 (N, D) by layer; the network stops after the last layer."""
    if unknown := set(layers) - set(module.get_provided_features_list()):
        raise ValueError(f"{module.name} has no layers {sorted(unknown)}")
    module.features_list = list(layers)
    return dict(zip(layers, module(images), strict=True))


def _mismatch(message: str) -> str | None:
    """Return the first wrong key in an error of Module.load_state_dict; None for other errors."""
    lines = [line.strip() for line in message.splitlines()]
    if not lines or "loading state_dict" not in lines[0] or len(lines) < 2:
        return None
    return re.split(r'(?<="), "', lines[1])[0].rstrip(". ")


@contextlib.contextmanager
def _redirected(notify: Callable[[str], None]) -> Iterator[None]:
    """Collect stdout and stderr of a library, and pass the lines to `notify` at the end; omit progress bars."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            yield
    finally:
        for line in said.getvalue().split("\n"):
            if line.strip() and "\r" not in line:
                notify(line.strip())


@contextlib.contextmanager
def _network_timeout() -> Iterator[None]:
    """Give torch.hub a timeout; without one it waits forever behind a firewall that drops packets."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
