"""ONNX: one file with a free batch size, proven in onnxruntime before it is written."""

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
"""The oldest that PyTorch's exporter writes without a conversion; every operator used here has its last form in it, and

onnxruntime reads it since 1.14 (2023), onnxruntime-web included.
"""
LARGEST = 2**31 - 1
"""Bytes of a protobuf message, and so of a model in one file."""
METADATA_KEY = "sagan"
INPUTS = ("latent", "class")
_NEEDS = ("onnx", "onnxscript", "onnxruntime")
_FIRST_LINE = b'"""Pictures from a generator that `sagan export --format onnx` wrote'


def write_onnx(
    trained: TrainedModel, path: Path, *, attention: bool, notify: Callable[[str], None], script: bool = True
) -> Check:
    """Export, run beside PyTorch, and only then write `path`, atomically.

    Inputs `latent` float32 (batch, latent) and, with classes, `class` int64 (batch,); outputs `image` float32
    (batch, C, H, W) in [-1, 1] and, with `attention`, one `attention_<layer>` (batch, N, M) for each attention layer:
    the very tensor that the pass multiplies its values with. The metadata entry `sagan` is one JSON object.

    Args:
        trained: its generator stands on the CPU.
        script: also write `<stem>_draw.py` beside it, which draws with onnxruntime and numpy alone.

    Raises:
        SaganError: the extra is not installed; the architecture has no such graph; onnxruntime disagrees with PyTorch;
            attention was wanted of a generator that shows none; the file cannot be written.
    """
    _require()
    network = Portable(trained, attention=attention).eval()
    with quiet():
        # Always the explicit map: the fused kernel has no operator, and its decomposition pads for nothing.
        program = trace(network, trained, pictures=0)
        data = _serialised(program, network, trained)
    result = _proven(data, trained, network, notify)
    write_atomic(path, data)
    if script:
        write_script(path, notify)
    return result


def write_script(model: Path, notify: Callable[[str], None]) -> Path | None:
    """Put the drawing script beside a model, as `<stem>_draw.py`; a file of that name that is not ours is left."""
    target = model.with_name(f"{model.stem}_draw.py")
    if target.exists() and not (target.is_file() and target.read_bytes().startswith(_FIRST_LINE)):
        notify(f"{target}: exists and is not a drawing script of sagan; left as it is")
        return None
    write_atomic(target, draw_script())
    return target


def draw_script() -> bytes:
    """The stand-alone program that draws with an exported model: onnxruntime and numpy, neither torch nor sagan."""
    return resources.files("sagan_cli.export").joinpath("draw.py").read_bytes()


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
    """The model as bytes, the same for the same weights: nothing in it tells of time, place or the code's lines."""
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
    except Exception as e:  # the exporter and the checker raise types of their own
        raise SaganError(f"architecture '{trained.arch}' cannot be exported to ONNX: {reason(e)}") from e
    return data


def _strip(model: Any) -> None:
    """Drop what the exporter notes for its own debugging: source lines with the paths of this machine, and more."""
    for holder in (model, model.graph, *model.functions):
        del holder.metadata_props[:]
        holder.doc_string = ""
    graph = model.graph
    inside = (*graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output)
    for item in (*inside, *(node for function in model.functions for node in function.node)):
        del item.metadata_props[:]
        item.doc_string = ""


def _name_batch(graph: Any) -> None:
    """Call the free axis `batch`; the tracer's own names are numbered by whatever was traced before."""
    free = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == free:
                dim.dim_param = "batch"


def _proven(data: bytes, trained: TrainedModel, network: Portable, notify: Callable[[str], None]) -> Check:
    import onnxruntime

    runtime = f"onnxruntime {metadata.version('onnxruntime')}, CPU"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors, which are raised as well
    options.intra_op_num_threads = torch.get_num_threads()  # a fair clock
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as e:  # its exceptions share no base but this
        raise SaganError(f"{runtime} does not load the exported model: {reason(e)}") from e

    def run(given: tuple[Tensor, ...], names: Sequence[str] = tuple(network.names)) -> Sequence[np.ndarray]:
        feed = {name: tensor.numpy() for name, tensor in zip(INPUTS, given, strict=False)}
        outputs: Sequence[np.ndarray] = session.run(list(names), feed)
        return outputs

    return check(trained, network, runtime, run, lambda given: run(given, ("image",)), notify)
