"""Export to one ONNX file with a free batch size, compared in onnxruntime before it is written."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sagan_cli.errors import SaganError
from sagan_cli.export.checking import check
from sagan_cli.export.portable import Portable, about, quiet, reason, trace
from sagan_cli.export.trained_model import Check, TrainedModel
from sagan_cli.files import write_atomic

OPSET = 18
"""The oldest opset that PyTorch's exporter writes without conversion; onnxruntime reads it since 1.14 (2023)."""
LARGEST = 2**31 - 1
"""Largest number of bytes of a protobuf message, and so of a model in one file."""
METADATA_KEY = "sagan"
INPUTS = ("latent", "class")
_NEEDS = ("onnx", "onnxscript", "onnxruntime")
_FIRST_LINE = b'"""Pictures from a generator that `sagan export --format onnx` wrote'


def write_onnx(
    trained: TrainedModel, path: Path, *, attention: bool, notify: Callable[[str], None], script: bool = True
) -> Check:
    """Export, compare with PyTorch, then write `path` atomically.

    Inputs `latent` float32 (batch, latent) and, with classes, `class` int64 (batch,); outputs `image` float32
    (batch, C, H, W) in [-1, 1] and, with `attention`, one `attention_<layer>` (batch, N, M) for each attention layer.
    The metadata entry `sagan` is a JSON object.

    Args:
        trained: its generator is on the CPU.
        script: also write `<stem>_draw.py`, which draws with onnxruntime and NumPy only.

    Raises:
        SaganError: the extra is not installed; the architecture cannot be exported; onnxruntime and PyTorch differ;
            `attention` for a generator without attention maps; the file cannot be written.
    """
    _require()
    network = Portable(trained, attention=attention).eval()
    with quiet():
        # 0: explicit attention maps, because ONNX has no operator for the fused kernel.
        program = trace(network, trained, batch=0)
        data = _serialised(program, network, trained)
    result = _checked(data, trained, network, notify)
    write_atomic(path, data)
    if script:
        write_script(path, notify)
    return result


def write_script(model: Path, notify: Callable[[str], None]) -> Path | None:
    """Write the drawing script `<stem>_draw.py` next to a model, unless another file has this name."""
    target = model.with_name(f"{model.stem}_draw.py")
    if target.exists() and not (target.is_file() and target.read_bytes().startswith(_FIRST_LINE)):
        notify(f"{target}: exists and is not a drawing script of sagan; not replaced")
        return None
    write_atomic(target, draw_script())
    return target


def draw_script() -> bytes:
    """Return the stand-alone script that draws with onnxruntime and NumPy."""
    return resources.files("sagan_cli.export").joinpath("draw_script.py").read_bytes()


def _require() -> None:
    for name in _NEEDS:
        try:
            with quiet():
                importlib.import_module(name)
        except ImportError as e:
            raise SaganError(
                f'ONNX export needs {name}, which cannot be imported: pip install "sagan-cli[onnx]"'
            ) from e


def _serialised(program: torch.export.ExportedProgram, network: Portable, trained: TrainedModel) -> bytes:
    """Return the model as bytes, equal for equal weights: without times, paths and source lines."""
    import onnx

    names = INPUTS[: 2 if network.conditional else 1]
    try:
        exported = torch.onnx.export(
            program, input_names=names, output_names=network.names, opset_version=OPSET, dynamo=True,
            external_data=False, verbose=False,
        )  # fmt: skip
        assert exported is not None
        model: Any = exported.model_proto
        _strip(model)
        _name_batch(model.graph)
        entry = model.metadata_props.add()
        entry.key, entry.value = METADATA_KEY, about(trained)
        if model.ByteSize() > LARGEST:
            raise SaganError(
                f"the ONNX file would have {model.ByteSize():,} bytes, and one file holds 2 GiB: use --format pt2"
            )
        onnx.checker.check_model(model, full_check=True)
        data: bytes = model.SerializeToString(deterministic=True)
    except SaganError:
        raise
    except Exception as e:  # exporter and checker raise their own types
        raise SaganError(f"architecture '{trained.arch}' cannot be exported to ONNX: {reason(e)}") from e
    return data


def _strip(model: Any) -> None:
    """Remove the exporter's debugging information, such as source lines with local paths."""
    for holder in (model, model.graph, *model.functions):
        del holder.metadata_props[:]
        holder.doc_string = ""
    graph = model.graph
    inside = (*graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output)
    for item in (*inside, *(node for function in model.functions for node in function.node)):
        del item.metadata_props[:]
        item.doc_string = ""


def _name_batch(graph: Any) -> None:
    """Name the free axis `batch`; the tracer's own names depend on earlier traces."""
    free = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == free:
                dim.dim_param = "batch"


def _checked(data: bytes, trained: TrainedModel, network: Portable, notify: Callable[[str], None]) -> Check:
    import onnxruntime

    runtime = f"onnxruntime {metadata.version('onnxruntime')}, CPU"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only, which are raised as well
    options.intra_op_num_threads = torch.get_num_threads()  # as many as PyTorch
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as e:  # its exceptions have no common base
        raise SaganError(f"{runtime} does not load the exported model: {reason(e)}") from e

    def run(given: tuple[Tensor, ...], names: Sequence[str] = tuple(network.names)) -> Sequence[np.ndarray]:
        feed = {name: tensor.numpy() for name, tensor in zip(INPUTS, given, strict=False)}
        outputs: Sequence[np.ndarray] = session.run(list(names), feed)
        return outputs

    return check(trained, network, runtime, run, lambda given: run(given, ("image",)), notify)
