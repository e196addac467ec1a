"""A process of its own that takes training steps when it is told to, and answers with the seconds.

    python worker.py '{"system": "sagan-32", "sides": ["textbook"], "device": "cpu", "allocator": "as run"}'

One JSON request a line on stdin, one JSON answer a line on stdout. `Worker` is the other end of the pipes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

HERE = Path(__file__).resolve()


class Worker:
    """The process, as a context: it ends with the block."""

    def __init__(self, **task: Any) -> None:
        """`task` holds system, sides, device, allocator (`as run`: each side's own; or `kept` or `default` for all),

        and optionally batch and width in place of the system's.
        """
        env = {k: v for k, v in os.environ.items() if k != "SAGAN_MALLOC"}
        if task["allocator"] == "default":
            env["SAGAN_MALLOC"] = "default"
        self.process = subprocess.Popen(
            [sys.executable, str(HERE), json.dumps(task)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=env,
        )  # fmt: skip
        self.hello = self._answer()

    def ask(self, what: str, side: str) -> Any:
        """`step` -> seconds; `flops` -> operations of a step; `profile` -> its table; `memory` -> MiB."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([what, side]) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def step(self, side: str) -> float:
        """Seconds of one training step, or of one convolution."""
        return float(self.ask("step", side))

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker ended with exit code {self.process.wait()}; its stderr is above")
        return json.loads(line)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def main() -> None:
    """Serve until stdin ends."""
    sys.path.insert(0, str(HERE.parent.parent))
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever prints must not break the pipe

    def answer(value: Any) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    import torch
    from measuring import peak_mib, timed, waiting

    from parts import step_profile
    from parts.implementations import AGAIN, TEXTBOOK, side
    from parts.peaks import convolution
    from parts.systems import systems_for
    from sagan_cli.engine.runtime import Runtime, open_runtime

    task = json.loads(sys.argv[1])
    device, before = torch.device(task["device"]), peak_mib()
    system = systems_for(device.type)[task["system"]]
    system = replace(system, batch=task.get("batch", system.batch),
                     spec=replace(system.spec, base_width=task.get("width", system.spec.base_width)))  # fmt: skip

    def serve(runtime: Runtime) -> None:
        takes = {name: side(name, system, runtime) for name in task["sides"]}
        for kind in task.get("convolutions", ()):
            takes[f"convolution {kind}"] = convolution(getattr(torch, kind), device)
        wait = waiting(device)
        clocks = {name: timed(take, wait) for name, take in takes.items()}
        answer({"precision": runtime.precision, "imported_mib": before})
        for line in sys.stdin:
            what, name = json.loads(line)
            if what == "step":
                answer(clocks[name]())
            elif what == "memory":
                answer(torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else peak_mib())
            else:
                answer(getattr(step_profile, what)(takes[name], device))

    plain = task["allocator"] == "as run" and set(task["sides"]) <= {TEXTBOOK, AGAIN}
    if plain:
        # As a port is run: nobody has told the allocator anything.
        serve(Runtime(device, "fp32"))
    else:
        with open_runtime(str(device), "auto") as runtime:
            serve(runtime)


if __name__ == "__main__":
    main()
