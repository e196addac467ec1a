"""Export to pt2, a torch.export program that PyTorch runs without sagan; compared before it is written.

`torch.export.save` of PyTorch 2.11 to 2.15 writes a zip of JSON (the graph) and raw bytes (each tensor). Its only
pickle, the example inputs, is left out here. `torch.export.load` would unpickle those of other archives.
"""

from __future__ import annotations

import copy
import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from sagan_cli.errors import SaganError
from sagan_cli.export.checking import BATCHES, check
from sagan_cli.export.portable import Portable, about, quiet, reason, trace
from sagan_cli.export.trained_model import Check, TrainedModel
from sagan_cli.files import write_atomic

FACTS = "sagan.json"
"""Name of the extra file with the facts: `torch.export.load(f, extra_files={"sagan.json": ""})` fills it in."""


def write_pt2(trained: TrainedModel, path: Path, *, notify: Callable[[str], None]) -> Check:
    """Export, load again, compare with PyTorch, then write `path` atomically.

    `torch.export.load(path).module()(latent, label)` takes latent float32 (B, latent) and, with classes, label int64
    (B,), for any B from 1 up, and returns a tuple of one: the image (B, C, H, W) in [-1, 1].

    Args:
        trained: its generator is on the CPU.

    Raises:
        SaganError: the architecture cannot be exported; the program and the network differ; the file cannot be written.
    """
    network = Portable(trained).eval()
    with quiet():
        data = _serialised(_traced(trained), trained)
        try:
            loaded = torch.export.load(io.BytesIO(data)).module()
        except Exception as e:  # the loader raises its own types
            raise SaganError(f"torch.export does not load the exported program: {reason(e)}") from e

    def run(given: tuple[Tensor, ...]) -> Sequence[np.ndarray]:
        with torch.inference_mode():
            return [output.numpy() for output in loaded(*given)]

    result = check(trained, network, f"torch.export {torch.__version__.partition('+')[0]}, CPU", run, run, notify)
    write_atomic(path, data)
    return result


def _traced(trained: TrainedModel) -> ExportedProgram:
    """Return the program without weights that it does not use.

    A folded generator keeps the 3x3 kernels that its 4x4 resampling kernels were made from.
    """
    network = Portable(trained).eval()
    # The largest batch of the check: explicit attention for small feature maps, fused for large ones.
    program = trace(network, trained, batch=BATCHES[-1])
    unread = _unread(program)
    if not unread:
        return program
    lean = copy.deepcopy(network)
    for name in unread:
        owner, _, leaf = name.rpartition(".")
        setattr(lean.get_submodule(owner), leaf, nn.Parameter(torch.empty(0), requires_grad=False))
    return trace(lean, trained, batch=BATCHES[-1])


def _unread(program: ExportedProgram) -> list[str]:
    """Return the names of parameters that no operation uses."""
    users = {node.name: len(node.users) for node in program.graph.nodes if node.op == "placeholder"}
    return [name for place, name in program.graph_signature.inputs_to_parameters.items() if not users[place]]


def _serialised(program: ExportedProgram, trained: TrainedModel) -> bytes:
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # source lines with local paths
    program.example_inputs = None
    out = io.BytesIO()
    try:
        torch.export.save(program, out, extra_files={FACTS: about(trained)})
    except Exception as e:  # the writer raises its own types
        raise SaganError(f"architecture '{trained.arch}' cannot be exported to pt2: {reason(e)}") from e
    data = out.getvalue()
    if pickles := pickled(data):
        raise SaganError(f"architecture '{trained.arch}' cannot be exported to pt2 without a pickle: {pickles[0]}")
    return data


def pickled(data: bytes) -> list[str]:
    """Return members of a .pt2 archive that are pickles, or archives that may contain one."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        found = []
        for name in archive.namelist():
            with archive.open(name) as member:
                head = member.read(4)
            # By name, because the raw bytes of a weight can look like a pickle.
            kind = name.rpartition("/")[2]
            foreign = kind.startswith(("custom_obj_", "opaque_obj_")) or name.endswith(".pt")
            if foreign and head:
                found.append(name)
    return found
