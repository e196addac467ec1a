"""The generator that a command's argument means: a run's, a checkpoint's, an exported one, or one from a pipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sagan_cli.commands.targets import find_checkpoint
from sagan_cli.errors import UsageError
from sagan_cli.export.naming import exported_file, in_checkpoint

if TYPE_CHECKING:
    from sagan_cli.engine.runtime import Runtime
    from sagan_cli.engine.sample import Sampler

STDIN = "-"


def find_model(target: str | None) -> Path:
    """The checkpoint directory or .safetensors file that a target means; `-` itself is standard input.

    Raises:
        UsageError: there is nothing there, or standard input is a keyboard.
        CheckpointError: a run without checkpoints.
    """
    if target == STDIN:
        if sys.stdin is None or sys.stdin.isatty():
            what = "closed" if sys.stdin is None else "a terminal"
            source = "as from 'sagan export --format safetensors --out -'"
            raise UsageError(f"-: standard input is {what}: pipe a model in, {source}")
        return Path(STDIN)
    if target is not None:
        if (file := exported_file(Path(target))) is not None:
            return file
        if in_checkpoint(Path(target)):
            return Path(target).parent
    return find_checkpoint(target)


def open_found(found: Path, runtime: Runtime, *, raw: bool) -> Sampler:
    """The generator at a place that `find_model` found.

    Raises:
        UsageError: `raw` is wanted of a file that holds the moving average.
        CheckpointError: it is damaged, of another format, or of an architecture that is not there.
    """
    from sagan_cli.export.generator import as_wanted, open_model
    from sagan_cli.export.single_file import read_file

    if found == Path(STDIN):
        return as_wanted(read_file(sys.stdin.buffer, runtime.device), raw)
    return open_model(found, runtime, raw=raw)
