"""Count the files and functions of the package that a command runs through.

    python benchmarks/walk.py train --data DIR

Every called function of `sagan_cli` is counted, with its file, in the order of the first call. For `train`, counting
ends when the first batch of images is complete; for other commands, when the command ends. The networks (`model/`,
`ops/`) are listed separately: to a reader, a forward pass is one step. Calls during an import are not counted.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import sagan_cli

PACKAGE = str(Path(sagan_cli.__file__).parent) + os.sep
LAST = {"train": ("data/batches.py", "Batches.at")}
"""Command -> the function at whose return counting ends."""
NETWORKS = ("model/", "ops/")


class Walk:
    """The files and functions that were entered, in order."""

    def __init__(self, last: tuple[str, str] | None) -> None:
        self.found: dict[str, dict[str, None]] = {}
        self.last = last

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Count a call; the hook of the profiler."""
        code = frame.f_code
        if not code.co_filename.startswith(PACKAGE):
            return
        file = code.co_filename.removeprefix(PACKAGE)
        # 0x2: the code of a function, not of a module or class.
        if event == "call" and code.co_flags & 0x2 and not code.co_name.startswith("<") and not _importing(frame):
            self.found.setdefault(file, {})[code.co_qualname] = None
        elif event == "return" and (file, code.co_qualname) == self.last:
            self.report()

    def report(self) -> NoReturn:
        """Print the counts and end the process."""
        sys.setprofile(None)
        threading.setprofile(None)
        inside = [file for file in self.found if file.startswith(NETWORKS)]
        files = [file for file in self.found if file not in inside]
        for file in (*files, *inside):
            print(f"{file:<36} {', '.join(self.found[file])}", file=sys.stderr)
        functions = sum(len(self.found[file]) for file in files)
        print(f"{len(files)} files, {functions} functions; {len(inside)} files inside the networks", file=sys.stderr)
        sys.stderr.flush()
        os._exit(0)


def _importing(frame: FrameType) -> bool:
    """Return whether the function was called during the import of a module."""
    caller = frame.f_back
    while caller is not None:
        if caller.f_code.co_name == "<module>" and caller.f_code.co_filename.startswith(PACKAGE):
            return True
        caller = caller.f_back
    return False


def main() -> None:
    """Run the command under the profiler."""
    from sagan_cli.cli import main as sagan

    walk = Walk(LAST.get(sys.argv[1]) if len(sys.argv) > 1 else None)
    threading.setprofile(walk)
    sys.setprofile(walk)
    try:
        sagan(sys.argv[1:])
    except SystemExit:
        pass
    finally:
        walk.report()


if __name__ == "__main__":
    main()
