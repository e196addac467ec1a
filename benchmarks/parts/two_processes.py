"""One of the processes that torchrun starts: our step on its share of the batch; the first one prints the seconds.

torchrun --standalone --nproc-per-node 2 benchmarks/parts/two_processes.py cpu laptop-32 7
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path


def main() -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

    from measuring import interleaved, summary, timed, waiting

    from parts.implementations import DEFAULT, side
    from parts.systems import systems_for
    from sagan_cli.engine.runtime import open_runtime

    device, name, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with open_runtime(device, "auto", distributed=True) as runtime:
        system = systems_for(runtime.device.type)[name]
        share = replace(system, batch=system.batch // runtime.world)
        take = timed(side(DEFAULT, share, runtime, seed=runtime.rank), waiting(runtime.device))
        found = summary(interleaved({"step": take}, rounds, warm=2)["step"])
        if runtime.leads:
            print(json.dumps({"seconds": found, "batch": system.batch}))


if __name__ == "__main__":
    main()
