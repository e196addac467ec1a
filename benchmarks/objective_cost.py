"""The cost of the objective: seconds of a training step with each loss and penalty, interleaved on random images.

    OMP_NUM_THREADS=1 python benchmarks/objective_cost.py                  # the preset `laptop` at 32 pixels
    OMP_NUM_THREADS=1 python benchmarks/objective_cost.py --size 64 --rounds 5

Prints a Markdown table: median time of a step, and its ratio to that of the first row in the same round. A lazy penalty
is timed over as many steps as its interval.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch

from sagan_cli.ablation.trials import NoiseImages
from sagan_cli.config.resolve import resolve
from sagan_cli.contracts import ModelSpec
from sagan_cli.engine.iteration import iteration
from sagan_cli.engine.networks import create
from sagan_cli.engine.runtime import Runtime, open_runtime
from sagan_cli.engine.step_inputs import StepInputs
from sagan_cli.objectives.objective import Objective

LOSSES = {
    "hinge, spectral norm in both": {"model.spectral_norm": "both"},
    "hinge, no spectral norm": {"model.spectral_norm": "none"},
    "relativistic": {"train.loss": "relativistic", "model.spectral_norm": "none"},
}
PENALTIES = {
    f"relativistic, {name} {'in every step' if every == 1 else f'every {every} steps'}": {
        **LOSSES["relativistic"], "train.penalty": ",".join(f"{term}=1/{every}" for term in name.split(" + ")),
    }
    for name, every in (("r1", 1), ("r1 + r2", 1), ("r1 + r2", 2), ("r1 + r2", 4), ("r1 + r2", 8), ("r1 + r2", 16))
}  # fmt: skip
AUGMENTED = {"relativistic, color, translation and cutout": {
    **LOSSES["relativistic"], "train.augment": "color,translation,cutout",
}}  # fmt: skip
SPAN = 16
"""Steps of one timing: a multiple of every interval."""


class Timed:
    """The training of one objective."""

    def __init__(self, settings: dict[str, str], size: int, batch: int, runtime: Runtime) -> None:
        flags = {"train.batch": batch, **settings}
        config = resolve(flags=flags, sets=[], environ={}, file=None, preset="laptop-hinge").config
        spec = ModelSpec(
            size, size, num_classes=6, base_width=config.model.width, attn_at=(16 if size == 32 else 32,),
            options={"spectral_norm": config.model.spectral_norm},
        )  # fmt: skip
        networks, _ = create("sagan", spec, config.train, runtime.device)
        objective = Objective.of(config.train)
        self.iterate = iteration(networks, objective, runtime, config.train, print)
        images = NoiseImages(spec, batch, runtime)
        self.inputs = StepInputs(objective, config.train, spec, images, runtime)

    def seconds(self, steps: int) -> float:
        """Return the mean time of a step."""
        begun = time.perf_counter()
        for step in range(steps):
            self.iterate(self.inputs.at(step))["g_loss"].item()
        return (time.perf_counter() - begun) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="auto")
    arguments = parser.parse_args()
    with open_runtime("cpu", arguments.precision) as runtime:
        rows = {
            name: Timed(settings, arguments.size, arguments.batch, runtime)
            for name, settings in (LOSSES | PENALTIES | AUGMENTED).items()
        }
        for timed in rows.values():
            timed.seconds(1)
        found = [{name: timed.seconds(SPAN) for name, timed in rows.items()} for _ in range(arguments.rounds)]
        threads = torch.get_num_threads()
        print(f"{arguments.size} pixels, batch {arguments.batch}, {runtime.precision}, threads: {threads}\n")
    first = next(iter(rows))
    print("| objective | ms | ratio |\n|---|---|---|")
    for name in rows:
        milliseconds = 1000 * median(r[name] for r in found)
        print(f"| {name} | {milliseconds:.0f} | {median(r[name] / r[first] for r in found):.2f} |")


if __name__ == "__main__":
    main()
